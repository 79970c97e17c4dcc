"""How much each unit of a layer matters for what the agent decides: D, how far its decisions are from the agent's own
without that unit.

`importance` measures it, by running the agent without each unit; `attribution` estimates it from gradients, for all
units at the price of a few backward passes; `keeping` says how far decisions are with the most important units alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_interp.circuits.ablation import Ablations, PartialPasses
from rl_interp.circuits.distance import Distance, advantage_error

_AT_ONCE = 64


@dataclass(frozen=True)
class Importance:
    """Of U units of a layer, each replaced alone, on N states."""

    kl: Tensor
    """float64 `[U]`: D, the mean KL divergence in nats from the agent's decisions to those without the unit."""
    action_agreement: Tensor
    """float64 `[U]`: share of states in which the greedy action stays the same."""
    advantage_error: Tensor
    """float64 `[U]`: squared change of the advantages as a share of their squares; of a policy, of its logits less
    their mean."""
    by_state: Tensor
    """float32 `[U, N]`: D in each state."""
    passes: PartialPasses
    """What it cost."""


@torch.no_grad()
def importance(ablations: Ablations, new: Tensor, distance: Distance) -> Importance:
    """Measured unit by unit.

    Args:
        new: what is put in the units' place: a constant, `[...]` of one value's shape, or `[N, ...]`, a value for each
            state.
    """
    changed = torch.empty(ablations.units, *ablations.preferences.shape, dtype=ablations.preferences.dtype)
    for units, rows in ablations.blocks():
        changed[units[:, None], rows] = ablations.without(units, new, rows).to(changed)
    states = len(ablations.values)
    return _compared(ablations, changed, distance, ablations.passes * (ablations.units * states))


def attribution(ablations: Ablations, new: Tensor, distance: Distance, steps: int = 0) -> Importance:
    """Estimated: preferences change by gradient times difference, and D is that of preferences which change so.

    The gradient is that where nothing is replaced (attribution patching, Nanda 2023), which is exact where preferences
    are linear in the layer; with `steps` it is the mean along the way to the whole layer replaced, by midpoints
    (integrated gradients, Sundararajan et al. 2017, arXiv 1703.01365, eq. 1), so that the changes by all units add up
    to that by the whole layer. D itself has no gradient where nothing is replaced, as it is least there.
    """
    count, actions = ablations.preferences.shape
    changed = torch.empty(ablations.units, count, actions, dtype=ablations.preferences.dtype)
    places = [(step + 0.5) / steps for step in range(steps)] or [0.0]
    for rows in torch.arange(count, device=ablations.values.device).split(_AT_ONCE):
        own = ablations.values[rows]
        difference = (new[None] if new.dim() < own.dim() else new[rows]) - own
        for action in range(actions):
            gradient = sum(ablations.gradient(own + place * difference, action, rows) for place in places) / len(places)
            by_unit = (gradient * difference).movedim(ablations.axis, 0).reshape(ablations.units, len(rows), -1)
            changed[:, rows, action] = by_unit.sum(-1)
    changed += ablations.preferences.cpu()
    cost = ablations.passes_of_layer * (3 * actions * len(places) * count)  # a backward pass costs two forward ones
    return _compared(ablations, changed, distance, cost)


@torch.no_grad()
def keeping(
    ablations: Ablations, new: Tensor, order: Tensor, counts: Sequence[int], distance: Distance
) -> tuple[Tensor, PartialPasses]:
    """float64 `[len(counts)]`: D with all units of the layer replaced but the first so many in `order`; and the cost.

    Args:
        new: as `importance` takes it.
        order: int64 `[U]`, those first that are kept first, or `[U, N]`, an order of its own for each state.
    """
    values, constant, found = ablations.values, new.dim() < ablations.values.dim(), []
    rank = order.argsort(0).to(values.device)  # of each unit
    rank = rank[:, None].expand(-1, len(values)) if rank.dim() == 1 else rank
    rank = rank.T.reshape(*rank.T.shape, *(1,) * (-1 - ablations.axis))
    for count in counts:
        changed = [
            ablations.changed(torch.where(rank[rows] < count, values[rows], new if constant else new[rows]), rows)
            for rows in torch.arange(len(values), device=values.device).split(_AT_ONCE)
        ]
        found.append(distance(ablations.preferences, torch.cat(changed)).mean())
    return torch.stack(found).double().cpu(), ablations.passes_of_layer * (len(counts) * len(values))


def _compared(ablations: Ablations, changed: Tensor, distance: Distance, passes: PartialPasses) -> Importance:
    own = ablations.preferences.to(changed)
    agreement = (changed.argmax(-1) == own.argmax(-1)).double().mean(-1)
    by_state = distance(own, changed)
    return Importance(by_state.mean(-1), agreement, advantage_error(own, changed), by_state.float(), passes)
