"""How good a circuit is: does it decide like the agent, is all of it needed, and would another one do as well?

Faithfulness at many sizes and its areas are those of MIB (Mueller et al. 2025, "MIB: A mechanistic interpretability
benchmark", arXiv 2504.13151, section 3.2): f(k) of the k best edges, CPR the area under f, CMD that between f and 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.discovery import top
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Reference, Values, is_constant

_AT_ONCE = 256
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""MIB's sizes of circuits, as shares of all edges."""


@dataclass(frozen=True)
class Curve:
    """Circuits of the first edges by some scores, at several sizes."""

    fractions: tuple[float, ...]
    edges: tuple[int, ...]
    """How many each has."""
    kl: tuple[float, ...]
    """Mean distance of its decisions from the agent's, in nats."""
    faithfulness: tuple[float, ...]
    action_agreement: tuple[float, ...]

    @property
    def cpr(self) -> float:
        """Area under f over the share of edges: how well small circuits do; at most 1 where f never exceeds 1."""
        return area(self.fractions, self.faithfulness)

    @property
    def cmd(self) -> float:
        """Area between f and 1 over the share of edges: 0 where every circuit decides as the agent does."""
        return area(self.fractions, np.abs(1 - np.array(self.faithfulness)))

    @property
    def cpr_log(self) -> float:
        """CPR on a logarithmic axis, on which small circuits count as much as large ones."""
        return area(np.log(self.fractions), self.faithfulness)

    @property
    def cmd_log(self) -> float:
        """CMD on a logarithmic axis."""
        return area(np.log(self.fractions), np.abs(1 - np.array(self.faithfulness)))


def area(x: "Sequence[float] | NDArray", y: "Sequence[float] | NDArray") -> float:
    """Under the line through points, by the trapezoid rule, divided by the width."""
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def curve(behaviour: Behaviour, scores: Tensor, fractions: Sequence[float] = FRACTIONS) -> Curve:
    """Faithfulness of the best edges by `scores [edges]`, at each share of all edges. Edges that lead nowhere or come
    from nowhere are not taken out, so that a circuit has as many as it says."""
    nothing = behaviour.require()
    rows = []
    for fraction in fractions:
        count = max(1, round(fraction * behaviour.graph.edges))
        found = compared(behaviour, top(behaviour.graph, scores, count))
        rows.append((count, found.kl, 1 - found.kl / nothing, found.action_agreement))
    return Curve(tuple(fractions), *map(tuple, zip(*rows, strict=True)))


@dataclass(frozen=True)
class Compared:
    """A circuit beside the agent, in the states of a behaviour."""

    kl: float
    """Mean distance of its decisions, in nats."""
    action_agreement: float
    """Share of states in which the greedy action is the same."""
    value_error: float | None
    """Mean squared error of its values, as a share of the variance of the agent's; None without values."""


@torch.no_grad()
def compared(behaviour: Behaviour, mask: Mask) -> Compared:
    """How a circuit decides, and what it thinks of the states."""
    columns: list[list[Tensor]] = [[], [], [], []]
    for start in range(0, len(behaviour), _AT_ONCE):
        some = behaviour[start : start + _AT_ONCE]
        own, out = some.outputs(Mask.full(behaviour.graph)), some.outputs(mask)
        columns[0].append(behaviour.distance(some.preferences, out.preferences))
        columns[1].append(out.preferences.argmax(-1) == some.preferences.argmax(-1))
        if own.value is not None or own.q_values is not None:
            columns[2].append(own.state_value.double())
            columns[3].append(out.state_value.double())
    distances, same = torch.cat(columns[0]), torch.cat(columns[1])
    error = None
    if columns[2]:
        own, other = torch.cat(columns[2]), torch.cat(columns[3])
        spread = float(own.var(correction=0))
        error = float((own - other).square().mean()) / spread if spread > 0 else None
    return Compared(float(distances.mean()), float(same.double().mean()), error)


def leaving_out(behaviour: Behaviour, mask: Mask, most: int = 200, seed: int = 0) -> Tensor:
    """float64 `[K]`: the rise of the distance when each edge of a circuit is left out of it, or each of `most` that are
    drawn at random. Near 0 or below it, the edge is not needed."""
    vector = mask.vector
    edges = vector.nonzero()[:, 0]
    if len(edges) > most:
        edges = edges[torch.randperm(len(edges), generator=torch.Generator().manual_seed(seed))[:most]]
    whole, rises = behaviour.mean_distances(mask)[0], []
    for edge in edges.tolist():
        less = vector.clone()
        less[edge] = 0.0
        rises.append(behaviour.mean_distances(Mask.of_vector(behaviour.graph, less))[0] - whole)
    return torch.stack(rises) if rises else torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True)
class Shared:
    """Edges that two circuits have of one link."""

    link: str
    first: int
    """How many the first circuit has."""
    second: int
    shared: int
    expected: float
    """How many two random circuits of their sizes share on average."""


def shared_edges(a: Mask, b: Mask) -> list[Shared]:
    """What two circuits share, link by link."""
    found = []
    for link in a.graph.links:
        x, y = a.values[link.name] > 0, b.values[link.name] > 0
        first, second = int(x.sum()), int(y.sum())
        found.append(Shared(link.name, first, second, int((x & y).sum()), first * second / link.edges))
    return found


def jaccard(a: Mask, b: Mask) -> tuple[float, float]:
    """Edges that two circuits share, of those that at least one has; and what two random ones of their sizes would
    share of theirs on average, link by link."""
    links = shared_edges(a, b)
    shared, by_chance = sum(each.shared for each in links), sum(each.expected for each in links)
    union, both = a.kept + b.kept - shared, a.kept + b.kept - by_chance
    return (shared / union if union else 1.0), (by_chance / both if both else 1.0)


def shared_share(mask: Mask, other: Mask) -> float:
    """Share of a circuit's edges that another has too."""
    return float(((mask.vector > 0) & (other.vector > 0)).sum()) / max(1, mask.kept)


def complement(mask: Mask) -> Mask:
    """The agent without a circuit."""
    return Mask.of_vector(mask.graph, (mask.vector == 0).float())


def shuffled(mask: Mask, seed: int) -> Mask:
    """A random circuit of the same size and shape: the units of every node change places, but for those of what is seen
    and of the decision. So it is wired as the other is, and as many of its edges lead from what is seen to the
    decision. Where no node has units that can change places, as in a transformer of one head, it is `redrawn`."""
    graph = mask.graph
    if all(graph.has_fixed(group) or graph.nodes[group[0]].units == 1 for group in graph.joined):
        return redrawn(mask, seed)
    generator, order = torch.Generator().manual_seed(seed), {}
    for group in graph.joined:
        units = graph.nodes[group[0]].units
        fixed = graph.has_fixed(group)
        permutation = torch.arange(units) if fixed else torch.randperm(units, generator=generator)
        order |= dict.fromkeys(group, permutation)
    return mask.reordered(order)


def redrawn(mask: Mask, seed: int) -> Mask:
    """A random mask with as many edges of every link: of the same kinds, as one kind may carry a whole channel of the
    residual stream and another a single number."""
    generator = torch.Generator().manual_seed(seed)

    def reordered(values: Tensor) -> Tensor:
        return values.flatten()[torch.randperm(values.numel(), generator=generator)].reshape(values.shape)

    return Mask(mask.graph, {name: reordered(values) for name, values in mask.values.items()})


def played_with(reference: Values, seed: int = 0) -> Reference:
    """What takes the place of cut edges while a circuit plays: the reference itself where it is the same in all states;
    else, at every step, what it is in one of the states, drawn at random."""
    if is_constant(reference):
        return reference
    generator = torch.Generator().manual_seed(seed)
    count = max(len(value) for value in reference.values())

    def drawn(batch: int) -> Values:
        rows = torch.randint(count, (batch,), generator=generator)
        return {key: value if len(value) == 1 else value[rows] for key, value in reference.items()}

    return drawn
