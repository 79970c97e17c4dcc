"""What is put in place of a unit's value when the unit is cut.

A kind of replacement is a function of recorded values. What it gives has either the shape of one value, a constant that
is the same in every state (and may differ by position), or the shape of all values, one for each state. Everything that
cuts units or edges takes the kinds of `REPLACEMENTS` by name.

Which kind is right depends on the question: Li & Janson 2024 (arXiv 2409.09951) tell what a unit's value says apart
from the damage done by values that the network never sees. Zero does most of such damage, the mean less, and optimal
constants none that a constant could avoid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rl_interp.circuits.states import States, values_at
from rl_interp.core.agent import Agent
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.hooks import hook_point
from rl_interp.core.interventions import Intervention, Mean, Resample

Kind = Literal["zero", "mean", "mean-position", "mean-time", "resample", "counterfactual", "noise", "optimal"]
NEAREST = 32
"""Recorded states, nearest in time, whose mean is that at a time."""


@dataclass(frozen=True)
class Recorded:
    """Values at one hook point in N states."""

    at: str
    feature_axis: int
    """The axis that counts units, from the end."""
    values: Tensor
    """`[N, ...]`."""
    steps: Tensor | None = None
    """int64 `[N]`: when in its episode each state was."""
    counterfactual: Tensor | None = None
    """`[N, ...]`: the values in the states' counterfactuals."""
    optimal: Tensor | None = None
    """`[...]`, of one value's shape: constants fitted by `circuits.optimal`."""
    width_axis: int | None = None
    """The axis, from the end, of the numbers that a unit has at one place, if these are several."""

    @property
    def units(self) -> int:
        """How many there are."""
        return self.values.shape[self.feature_axis]

    def by_unit(self, constants: Tensor) -> Tensor:
        """A constant for each unit, `[F]`, or for each of a unit's numbers, `[F, D]`, in the shape of one value."""
        shape = [1] * (self.values.dim() - 1)
        for axis in self._own_axes:
            shape[axis] = self.values.shape[axis]
        return constants.reshape(shape).expand(self.values.shape[1:])

    @property
    def at_places(self) -> Tensor:
        """`[N * places, F]`, or `[N * places, F, D]`: what units are, state by state and place by place."""
        axes = self._own_axes
        return self.values.movedim(axes, tuple(range(-len(axes), 0))).flatten(0, -1 - len(axes))

    @property
    def _own_axes(self) -> tuple[int, ...]:
        """Those that are no states and places."""
        return (self.feature_axis,) if self.width_axis is None else (self.feature_axis, self.width_axis)


def record(agent: Agent, states: States, at: str) -> Recorded:
    """The values at a hook point in some states, and in their counterfactuals where they have some.

    Raises:
        HookError: no such hook point, or one that the agent does not pass through when it acts.
    """
    other = None if states.counterfactual is None else values_at(agent, states.counterfactual, at)
    point = hook_point(agent, at)
    values = values_at(agent, states, at)
    return Recorded(at, point.feature_axis, values, states.steps, other, width_axis=point.width_axis)


Replacement = Callable[[Recorded, Recorded, torch.Generator], Tensor]
"""`replacement(here, bank, generator)`: what takes the place of the values `here`, made from those of the `bank`, which
may be the same. `[...]` of one value's shape, or `[N, ...]` of that of `here.values`."""


def zero(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """Zero."""
    return torch.zeros_like(here.values[0])


def mean(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """The unit's mean over all states and positions."""
    return bank.by_unit(bank.at_places.mean(0))


def mean_position(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """The unit's mean over states, position by position."""
    return bank.values.mean(0)


def mean_time(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """The unit's mean, position by position, over those recorded states that are nearest in time to this one."""
    if here.steps is None or bank.steps is None:
        raise UserError(f"the states of {here.at!r} do not say when in their episodes they were; give their steps.")
    count = min(NEAREST, len(bank.values))
    apart = (here.steps[:, None] - bank.steps[None]).abs().to(bank.values.device)
    weights = torch.zeros_like(apart, dtype=bank.values.dtype)
    weights.scatter_(1, apart.topk(count, largest=False).indices, 1 / count)
    return (weights @ bank.values.flatten(1)).view(len(weights), *bank.values.shape[1:])


def resample(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """The unit's value in another state, drawn at random."""
    return bank.values[torch.randint(len(bank.values), (len(here.values),), generator=generator)]


def counterfactual(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """The unit's value in the same state with one thing changed."""
    if here.counterfactual is None:
        raise UserError(f"the states of {here.at!r} have no counterfactuals; give some, or choose another replacement.")
    return here.counterfactual


def noise(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """The unit's value with normal noise of its own standard deviation."""
    spread = bank.by_unit(bank.at_places.std(0, correction=0))
    drawn = torch.randn(here.values.shape, generator=generator).to(here.values)
    return here.values + spread * drawn


def optimal(here: Recorded, bank: Recorded, generator: torch.Generator) -> Tensor:
    """The constant, position by position, with which the agent decides most like itself."""
    if bank.optimal is None:
        raise UserError(f"there are no optimal constants of {here.at!r} yet; fit them by `circuits.optimal.fit`.")
    return bank.optimal


REPLACEMENTS: dict[Kind, Replacement] = {
    "zero": zero,
    "mean": mean,
    "mean-position": mean_position,
    "mean-time": mean_time,
    "resample": resample,
    "counterfactual": counterfactual,
    "noise": noise,
    "optimal": optimal,
}
CONSTANT: tuple[Kind, ...] = ("zero", "mean", "mean-position", "optimal")
"""The kinds that put the same in every state."""


def replacement(kind: str) -> Replacement:
    """The kind of that name.

    Raises:
        UserError: there is none.
    """
    if kind not in REPLACEMENTS:
        raise UserError(unknown("kind of replacement", kind, REPLACEMENTS))
    return REPLACEMENTS[kind]  # pyright: ignore[reportArgumentType]


def while_playing(kind: str) -> Kind:
    """The kind, if units can be replaced by it while the agent plays.

    Raises:
        UserError: one that needs more than the value at hand, its time, its counterfactual, or noise; or no kind.
    """
    replacement(kind)
    if kind not in (*CONSTANT, "resample"):
        raise UserError(
            f"{kind!r} given; units can be cut while the agent plays by {', '.join((*CONSTANT, 'resample'))}."
        )
    return kind  # pyright: ignore[reportReturnType]


def intervention(kind: str, bank: Recorded, units: list[int] | None, seed: int = 0) -> Intervention:
    """The replacement of units, or of all, as an intervention, for playing without them.

    Raises:
        UserError: as `while_playing` does, or optimal constants that were not fitted.
    """
    generator = torch.Generator().manual_seed(seed)
    if while_playing(kind) == "resample":
        return Resample(bank.at, units=units, bank=bank.values, generator=generator)
    return Mean(bank.at, units=units, mean=replacement(kind)(bank, bank, generator).contiguous())
