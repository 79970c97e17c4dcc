"""The units of one layer of an agent, measured by each kind of replacement."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.circuits.ablation import Ablations, PartialPasses
from rl_interp.circuits.distance import Distance
from rl_interp.circuits.importance import Importance, attribution, importance, keeping
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
EACH = "each state"
"""The ranking by what matters in each state, instead of what matters in all."""
_ACTIONS = 32
"""Actions above which nothing is estimated from gradients, which take a backward pass for each."""
_RANDOM = 5
"""Random orders in which units are kept, for comparison."""
_LIMIT = 2 << 30
"""Bytes that the values of a layer may take."""


@dataclass(frozen=True)
class ImportanceConfig:
    """What is measured, and what is played."""

    kinds: tuple[Kind, ...] = KINDS
    """Kinds of replacement."""
    states: int = 512
    """Number of states to measure on; twice as many more, of other episodes, are what replacements are made from."""
    change: Literal["moved", "removed", "recoloured", "corrupted", "history"] = "moved"
    """What is changed in a counterfactual: a thing in view, the text for its corrupted twin, or the episode that the
    agent remembers."""
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
    """By gradients, where there is an importance by the mean that they estimate, and actions are few."""
    passes: PartialPasses
    """What it cost, with the fit of constants."""
    temperature: float
    kept: "Kept"
    """How many of its units are enough."""

    def kl(self, name: str) -> NDArray[np.float64]:
        """`[U]`: D by a kind, or as gradients estimate it."""
        return {**self.kinds, **self.estimates}[name].kl.numpy()


@dataclass(frozen=True)
class Kept:
    """Faithfulness of an agent that keeps some of a layer's units, the others being replaced all at once: 1 where it
    decides as the agent does, 0 as with the whole layer replaced."""

    replaced_by: str
    counts: tuple[int, ...]
    faithfulness: Mapping[str, tuple[float, ...]]
    """By ranking: that of a kind of replacement or of a gradient's estimate, on states that the units were not ranked
    on; random ones, averaged, on the same; and `EACH`, an order of its own for each state, by the first kind."""
    nothing: float
    """D with the whole layer replaced, in nats."""

    def enough(self, ranking: str, faithfulness: float = 0.9) -> int | None:
        """The smallest of the counts from which on it is at least so faithful."""
        found = None
        for count, value in zip(reversed(self.counts), reversed(self.faithfulness[ranking]), strict=True):
            if value < faithfulness:
                break
            found = count
        return found


def measure_layer(agent: Agent, hook: str, states: States, bank: States, config: ImportanceConfig) -> Layer:
    """Measure the units of one layer on `states`, with replacements made from the `bank`."""
    ablations = Ablations(agent, states, hook)
    _require_memory(hook, ablations, len(bank))
    elsewhere = Ablations(agent, bank, hook)
    recorded, here = record(agent, bank, hook), record(agent, states, hook)
    distance, passes = Distance.of(agent, ablations.preferences, config.temperature), PartialPasses()
    if "optimal" in (*config.kinds, config.cut):
        fitted = fit(elsewhere, distance, config.optimal)
        recorded, passes = replace(recorded, optimal=fitted.constants), fitted.passes
    generator = torch.Generator().manual_seed(config.seed)
    new = {kind: replacement(kind)(here, recorded, generator) for kind in config.kinds}
    kinds = {kind: importance(ablations, value, distance) for kind, value in new.items()}
    estimated = "mean" in new and ablations.preferences.shape[-1] <= _ACTIONS
    estimates = {
        name: attribution(ablations, new["mean"], distance, steps) for name, steps in GRADIENTS.items() if estimated
    }
    for each in (*kinds.values(), *estimates.values()):
        passes += each.passes
    rankings = {name: each.kl.argsort(descending=True, stable=True) for name, each in (kinds | estimates).items()}
    kept, cost = _kept(ablations, next(iter(kinds.values())), elsewhere, recorded, rankings, distance, config)
    return Layer(recorded, kinds, estimates, passes + cost, distance.temperature, kept)


def cut_by(cut: Kind | None, banks: Iterable[Recorded]) -> Kind:
    """What takes the place of many units at once: what is asked for, else optimal constants where all have some, else
    the mean, position by position."""
    return cut or ("optimal" if all(bank.optimal is not None for bank in banks) else "mean-position")


def _kept(
    here: Ablations, by: Importance, ablations: Ablations, bank: Recorded, rankings: Mapping[str, Tensor],
    distance: Distance, config: ImportanceConfig,
) -> tuple[Kept, PartialPasses]:  # fmt: skip
    """Judged on the bank's states, as the units were ranked on others, but for the order of each state."""
    generator, cut = torch.Generator().manual_seed(config.seed), cut_by(config.cut, [bank])
    new = replacement(cut)(bank, bank, generator)
    counts = sorted({0, *(2**i for i in range(ablations.units.bit_length())), ablations.units})
    draws = {f"random {i}": torch.randperm(ablations.units, generator=generator) for i in range(_RANDOM)}
    found = {name: keeping(ablations, new, order, counts, distance) for name, order in {**rankings, **draws}.items()}
    nothing = float(found["random 0"][0][0])
    faithful = {name: 1 - kl / max(nothing, NEGLIGIBLE) for name, (kl, _) in found.items()}
    curves = {name: faithful[name] for name in rankings}
    curves["random"] = torch.stack([faithful[name] for name in draws]).mean(0)
    kl, cost = keeping(here, new, by.by_state.argsort(dim=0, descending=True, stable=True), counts, distance)
    curves[EACH] = 1 - kl / kl[0].clamp(min=NEGLIGIBLE)
    kept = Kept(cut, tuple(counts), {name: tuple(each.tolist()) for name, each in curves.items()}, nothing)
    return kept, sum((each for _, each in found.values()), cost)


def _require_memory(hook: str, ablations: Ablations, bank: int) -> None:
    states, numbers = len(ablations.values), ablations.values[0].numel()
    needed = 4 * numbers * (states + bank) * 2 + 4 * ablations.units * ablations.preferences.numel()
    if needed > _LIMIT:
        raise UserError(
            f"{states} states given for {hook!r}, whose values of {numbers:,} numbers would take "
            f"{needed / 2**30:.1f} GiB; give {int(states * _LIMIT / needed)} at most."
        )
