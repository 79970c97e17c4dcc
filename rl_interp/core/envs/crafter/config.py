"""Crafter's conventions and its score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.errors import UserError, at_least_one, unknown
from rl_interp.core.stats import plain, wilson

ACHIEVEMENTS = (
    "collect_coal", "collect_diamond", "collect_drink", "collect_iron", "collect_sapling", "collect_stone",
    "collect_wood", "defeat_skeleton", "defeat_zombie", "eat_cow", "eat_plant", "make_iron_pickaxe",
    "make_iron_sword", "make_stone_pickaxe", "make_stone_sword", "make_wood_pickaxe", "make_wood_sword",
    "place_furnace", "place_plant", "place_stone", "place_table", "wake_up",
)  # fmt: skip
"""The 22 achievements, in the package's order."""

IDS = ("CrafterReward-v1", "CrafterNoReward-v1")


@dataclass(frozen=True)
class CrafterConfig(EnvConfig):
    """Crafter as published: 64×64 pixels of 9×9 cells, 17 actions."""

    id: str = "CrafterReward-v1"
    """CrafterReward-v1, or CrafterNoReward-v1, where rewards are all 0."""
    length: int = 10_000
    """Steps after which an episode is truncated."""

    def __post_init__(self) -> None:
        at_least_one(length=self.length)

    @property
    def action_names(self) -> tuple[str, ...]:
        if self.id not in IDS:
            raise UserError(unknown("environment", self.id, IDS))
        from crafter import constants

        return tuple(constants.actions)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (3, 64, 64)

    @property
    def cell_pixels(self) -> tuple[int, int]:
        return 7, 0

    def summary(self, returns: NDArray[np.float64], last: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        rates = last["achievements"].mean(0)
        return {
            "crafter_score": crafter_score(rates),
            "achievements": {name: float(rate) for name, rate in zip(ACHIEVEMENTS, rates, strict=True)},
            "achievements_intervals": {
                name: plain(wilson(unlocked))
                for name, unlocked in zip(ACHIEVEMENTS, last["achievements"].T, strict=True)
            },
        }


def crafter_score(success_rates: ArrayLike) -> float:
    """exp(mean ln(1 + sᵢ)) − 1 of success rates in percent: the score, in percent (Hafner 2021, §3.2).

    Args:
        success_rates: share of episodes in which each achievement was unlocked, in [0, 1], `[22]`.
    """
    return float(np.expm1(np.log1p(100 * np.asarray(success_rates, np.float64)).mean()))
