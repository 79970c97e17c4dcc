"""Which units of one agent are those of another of the same architecture, told by what they do in the same states.

Two trainings put the same unit in different places. As units that are joined one by one (along a residual stream, or as
the gates and the state of an LSTM) can only change places together, they are matched together: the permutation of a
group of nodes maximises the sum of the correlations of their activations over states and positions (Li et al. 2016,
"Convergent learning", arXiv 1511.07543, by Hungarian assignment).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import operands
from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class Matching:
    """For each node, the unit of one agent that each unit of another is.

    Attributes:
        order: int64 `[units]` by node.
        correlation: of each matched pair of units that vary, for nodes whose values are read and whose units were not
            fixed.
    """

    order: Mapping[str, Tensor]
    correlation: Mapping[str, Tensor] = field(repr=False)

    @property
    def mean_correlation(self) -> float:
        """Over all matched units; 1 where nothing had to be matched."""
        return float(torch.cat(list(self.correlation.values())).mean()) if self.correlation else 1.0

    def carried(self, mask: Mask, graph: Graph) -> Mask:
        """A mask of the one agent on the matched units of the other, whose graph is given."""
        return Mask(graph, mask.reordered(self.order).values)


def match(one: Behaviour, other: Behaviour) -> Matching:
    """The units of `one` that those of `other` are, by their activations in the same states, in order.

    Units of what is seen and of decisions are the same by their places.

    Raises:
        UserError: agents of different architectures, or different numbers of states.
    """
    from scipy.optimize import linear_sum_assignment

    require_alike(one.graph, other.graph)
    if len(one) != len(other):
        raise UserError(f"{len(one)} states of one agent and {len(other)} of the other given; give the same to both.")
    a, b = activations(one), activations(other)
    order, correlation = {}, {}
    for group in one.graph.joined:
        units = one.graph.nodes[group[0]].units
        alike = {name: _correlations(b[name], a[name]) for name in group if name in a}
        if one.graph.has_fixed(group) or not alike:
            order |= dict.fromkeys(group, torch.arange(units))
            continue
        rows, columns = linear_sum_assignment(torch.stack(list(alike.values())).sum(0).numpy(), maximize=True)
        order |= dict.fromkeys(group, torch.as_tensor(columns))
        for name, each in alike.items():
            vary = [_varies(values[name])[torch.as_tensor(of)] for values, of in ((b, rows), (a, columns))]
            if (both := vary[0] & vary[1]).any():
                correlation[name] = each[rows, columns][both]
    return Matching(order, correlation)


def require_alike(one: Graph, other: Graph) -> None:
    """Two agents' graphs have the same links.

    Raises:
        UserError: they do not.
    """
    first, second = ({link.name: link.shape for link in graph.links} for graph in (one, other))
    if first != second:
        name = next(name for name in (*first, *second) if first.get(name) != second.get(name))
        raise UserError(
            f"the agents differ at {name!r}: {first.get(name, 'no')} edges and {second.get(name, 'no')}; circuits are "
            "compared of agents of one architecture."
        )


@torch.no_grad()
def activations(behaviour: Behaviour) -> dict[str, Tensor]:
    """`[units, values]` of every node that is read: what its units are in all states and positions."""
    graph, states = behaviour.graph, behaviour.states
    _, read = operands(behaviour.agent, graph, states.obs, states.memory or None)
    found = {}
    for link in graph.links:
        if link.source in found:
            continue
        value = read[link.key]
        spatial = value.dim() > 2 and value.shape[1] == len(link.units)
        value = value.flatten(2) if spatial else value.flatten(1)[..., None]
        # The features of each unit lie side by side, in their order.
        features = link.units.argsort(stable=True)[int((link.units < 0).sum()) :]
        of_units = value[:, features].unflatten(1, (graph.nodes[link.source].units, -1))
        found[link.source] = of_units.movedim(1, 0).flatten(1).cpu()
    return found


def _correlations(rows: Tensor, columns: Tensor) -> Tensor:
    """float64 `[R, C]` of `[R, n]` and `[C, n]`; 0 where either is constant."""

    def normal(x: Tensor) -> Tensor:
        x = x.double() - x.double().mean(1, keepdim=True)
        norm = x.norm(dim=1, keepdim=True)
        return torch.where(norm > _CONSTANT, x / norm.clamp(min=_CONSTANT), 0.0)

    return normal(rows) @ normal(columns).T


def _varies(rows: Tensor) -> Tensor:
    """Bool `[R]` of `[R, n]`."""
    return (rows.double() - rows.double().mean(1, keepdim=True)).norm(dim=1) > _CONSTANT


_CONSTANT = 1e-9
"""Norm about the mean up to which a unit's values are all the same."""
