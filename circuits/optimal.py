"""Optimal ablation: the constant in a unit's place with which the agent decides most like itself.

Li & Janson 2024, "Optimal ablation for interpretability", arXiv 2409.09951, eq. 3: a* = argmin_a E[KL(agent ‖ agent
with a in the unit's place)]. What is lost with it is lost because the unit's value says something about the state; no
constant, zero or mean, loses less.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_interp.circuits.ablation import Ablations, PartialPasses
from rl_interp.circuits.distance import Distance
from rl_interp.core.errors import UserError, require_numbers
from rl_interp.core.gradients import gradient

DIVERGED = 10
"""Times the distance at the start; a fit that comes to it has failed."""


@dataclass(frozen=True)
class OptimalConfig:
    """Settings of the fit.

    Raises:
        UserError: one that is out of range.
    """

    rate: float = 0.1
    """Step size of AdamW at first, in standard deviations of each unit; published, 0.002 in the units of a language
    model's activations, which does not come to the optimum of agents' layers within the steps."""
    updates: int = 400
    """The most steps."""
    batch: int = 16
    """States in a step, in each of which every unit is replaced once, alone."""
    held_out: float = 0.25
    """Share of the states, the last ones, that say when to stop."""
    every: int = 20
    """Steps between two looks at the held-out states."""
    patience: int = 4
    """Looks that find the mean distance less than 1% lower; each halves the step size, and the last ends the fit."""
    seed: int = 0
    """Seed of the order of the states."""

    def __post_init__(self) -> None:
        require_numbers(
            self, positive=("rate", "held_out"), at_least_1=("updates", "batch", "every", "patience"), seed=("seed",),
            share=("held_out",),
        )  # fmt: skip


@dataclass(frozen=True)
class Optimal:
    """Constants of a layer's units, each fitted for that unit alone being replaced."""

    constants: Tensor
    """`[...]` of one value's shape."""
    kl: Tensor
    """float64 `[U]`: the distance on the held-out states."""
    kl_of_mean: Tensor
    """float64 `[U]`: the same with the mean by position."""
    updates: int
    """Steps made."""
    passes: PartialPasses
    """What it cost."""


def fit(
    ablations: Ablations,
    distance: Distance,
    config: OptimalConfig = OptimalConfig(),
    update: Callable[[int], None] = lambda done: None,
) -> Optimal:
    """Fit the constants of all units of a layer at once, each from the best of its mean by position, its mean and zero.

    As each unit is replaced alone, the units' distances add up and their fits do not disturb each other: each keeps the
    constants that were best on the held-out states, and is never worse there than where it started.

    Raises:
        UserError: too few states to hold some out, or constants that diverge.
        NoGradientError: an agent that detaches or rounds what is there.
    """
    count, device = len(ablations.values), ablations.values.device
    kept = count - max(1, round(count * config.held_out))
    if kept < 1:
        raise UserError(f"{count} states given to fit constants to; give at least 2, as some are held out.")
    held_out, order = torch.arange(kept, count, device=device), torch.Generator().manual_seed(config.seed)
    training = torch.arange(kept, device=device)
    by_position = ablations.values[:kept].mean(0)
    first = _distances(ablations, by_position, distance, held_out)
    start = _best_start(ablations, by_position, distance, training)
    spread = _by_unit(ablations, ablations.values[:kept].movedim(ablations.axis, 0).flatten(1).std(1, correction=0))
    # Offsets from the start in standard deviations, so that one step size does for layers of any scale.
    offset = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.AdamW([offset], lr=config.rate)
    best, lowest = start.clone(), _distances(ablations, start, distance, held_out)
    at_start, stale, done = lowest, 0, 0
    while done < config.updates and stale < config.patience:
        for _ in range(min(config.every, config.updates - done)):
            rows = torch.randint(kept, (min(config.batch, kept),), generator=order).to(device)
            offset.grad = _gradient(ablations, start, spread, offset, distance, rows)
            optimizer.step()
            done += 1
        update(done)
        constants = (start + spread * offset).detach()
        now = _distances(ablations, constants, distance, held_out)
        _require_sound(ablations.at, now, at_start, done, config)
        better, before = now < lowest, lowest.mean()
        best.movedim(ablations.axis, 0)[better] = constants.movedim(ablations.axis, 0)[better]
        lowest = torch.minimum(lowest, now)
        if lowest.mean() > 0.99 * before:
            stale += 1
            optimizer.param_groups[0]["lr"] /= 2
    looks = 1 + -(-done // config.every)
    runs = ablations.units * (3 * done * min(config.batch, kept) + looks * len(held_out) + 3 * kept + len(held_out))
    return Optimal(best, lowest, first, done, ablations.passes * runs)


def _best_start(ablations: Ablations, by_position: Tensor, distance: Distance, rows: Tensor) -> Tensor:
    """Of each unit, what does best in the states `rows`: its mean by position, its mean, or zero. The mean of a unit
    that is rarely active may lie where no descent leads to the optimum."""
    means = by_position.movedim(ablations.axis, 0).reshape(ablations.units, -1).mean(1)
    starts = [by_position, _by_unit(ablations, means).expand_as(by_position), torch.zeros_like(by_position)]
    chosen = torch.stack([_distances(ablations, each, distance, rows) for each in starts]).argmin(0)
    return sum(each * _by_unit(ablations, (chosen == i).to(each)) for i, each in enumerate(starts))  # pyright: ignore[reportReturnType]


def _gradient(
    ablations: Ablations, start: Tensor, spread: Tensor, offset: Tensor, distance: Distance, rows: Tensor
) -> Tensor:
    """Of the sum over units of their mean distances, with respect to the offsets; as many units at a time as fit the
    cache."""
    total = torch.zeros_like(offset)
    for units, some in ablations.blocks(rows):

        def decide(offset: Tensor, units: Tensor = units, some: Tensor = some) -> Tensor:
            return ablations.without(units, start + spread * offset, some)

        loss = distance(ablations.preferences[some], decide(offset)).sum() / len(rows)
        total += gradient(loss, offset, decide)
    return total


@torch.no_grad()
def _distances(ablations: Ablations, constants: Tensor, distance: Distance, rows: Tensor) -> Tensor:
    """float64 `[U]`: mean over the states `rows`."""
    total = torch.zeros(ablations.units, dtype=torch.float64, device=constants.device)
    for units, some in ablations.blocks(rows):
        total[units] += distance(ablations.preferences[some], ablations.without(units, constants, some)).sum(-1)
    return total / len(rows)


def _by_unit(ablations: Ablations, numbers: Tensor) -> Tensor:
    """`[F]` in a shape that goes with one value."""
    shape = [1] * (ablations.values.dim() - 1)
    shape[ablations.axis] = -1
    return numbers.view(shape)


def _require_sound(at: str, now: Tensor, first: Tensor, done: int, config: OptimalConfig) -> None:
    if bool(now.isfinite().all()) and now.mean() <= DIVERGED * first.mean():
        return
    raise UserError(
        f"the constants of {at!r} diverge: after {done} steps of {config.rate:g} the mean distance is "
        f"{float(now.mean()):.3g}, and was {float(first.mean()):.3g} at the start; give a smaller rate."
    )
