"""The units of one layer of an agent, measured by each kind of replacement."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.circuits.ablation import Ablations, PartialPasses
from rl_interp.circuits.distance import Distance
from rl_interp.circuits.importance import Importance, attribution, importance
from rl_interp.circuits.optimal import OptimalConfig, fit
from rl_interp.circuits.replacement import Kind, Recorded, record, replacement
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent
from rl_interp.core.errors import UserError, require_numbers

KINDS: tuple[Kind, ...] = ("zero", "mean", "mean-position", "resample", "noise", "optimal")
GRADIENTS = {"gradient": 0, "integrated": 8}
"""Estimates from gradients, of the importance by the mean, and the steps along the way."""
NEGLIGIBLE = 1e-6
"""Nats; units that matter less, whatever takes their place, are left out of ratios."""
_LIMIT = 2 << 30
"""Bytes that the values of a layer may take."""


@dataclass(frozen=True)
class ImportanceConfig:
    """What is measured, and what is played."""

    kinds: tuple[Kind, ...] = KINDS
    """Kinds of replacement."""
    states: int = 512
    """Number of states to measure on; twice as many more, of other episodes, are what replacements are made from."""
    change: Literal["moved", "removed", "recoloured", "history"] = "moved"
    """What is changed in a counterfactual: a thing in view, or the episode that the agent remembers."""
    temperature: float | None = None
    """Temperature of the softmax of Q-values; by default the median gap between the two best."""
    episodes: int = 30
    """Number of whole episodes to play without the half of the units that matters least, by each kind's ranking; 0 for
    none."""
    cut: Kind | None = None
    """What takes the place of the units that are cut then; by default optimal constants where there are some, else the
    mean, position by position."""
    seed: int = 0
    """Seed of the states, the random draws and the episodes."""
    optimal: OptimalConfig = field(default_factory=OptimalConfig)
    """Settings of the fit of optimal constants."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UserError("no kinds of replacement given; give at least one.")
        require_numbers(
            self, at_least_1=("states",), at_least_0=("episodes",), positive=("temperature",), seed=("seed",)
        )


@dataclass(frozen=True)
class Layer:
    """One hook point, measured."""

    bank: Recorded
    """What replacements are made from."""
    kinds: Mapping[str, Importance]
    """By each kind of replacement."""
    estimates: Mapping[str, Importance]
    """By gradients, where there is an importance by the mean that they estimate."""
    passes: PartialPasses
    """What it cost, with the fit of constants."""
    temperature: float

    def kl(self, name: str) -> NDArray[np.float64]:
        """`[U]`: D by a kind, or as gradients estimate it."""
        return {**self.kinds, **self.estimates}[name].kl.numpy()


def measure_layer(agent: Agent, hook: str, states: States, bank: States, config: ImportanceConfig) -> Layer:
    """Measure the units of one layer on `states`, with replacements made from the `bank`."""
    ablations = Ablations(agent, states, hook)
    _require_memory(hook, ablations, len(bank))
    recorded, here = record(agent, bank, hook), record(agent, states, hook)
    distance, passes = Distance.of(agent, ablations.preferences, config.temperature), PartialPasses()
    if "optimal" in (*config.kinds, config.cut):
        fitted = fit(Ablations(agent, bank, hook), distance, config.optimal)
        recorded, passes = replace(recorded, optimal=fitted.constants), fitted.passes
    generator = torch.Generator().manual_seed(config.seed)
    new = {kind: replacement(kind)(here, recorded, generator) for kind in config.kinds}
    kinds = {kind: importance(ablations, value, distance) for kind, value in new.items()}
    estimates = {
        name: attribution(ablations, new["mean"], distance, steps) for name, steps in GRADIENTS.items() if "mean" in new
    }
    for each in (*kinds.values(), *estimates.values()):
        passes += each.passes
    return Layer(recorded, kinds, estimates, passes, distance.temperature)


def _require_memory(hook: str, ablations: Ablations, bank: int) -> None:
    states, numbers = len(ablations.values), ablations.values[0].numel()
    needed = 4 * numbers * (states + bank) * 2 + 4 * ablations.units * ablations.preferences.numel()
    if needed > _LIMIT:
        raise UserError(
            f"{states} states given for {hook!r}, whose values of {numbers:,} numbers would take "
            f"{needed / 2**30:.1f} GiB; give {int(states * _LIMIT / needed)} at most."
        )
