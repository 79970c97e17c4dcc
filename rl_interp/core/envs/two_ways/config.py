"""Conventions of two ways round a post."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig, Goals
from rl_interp.core.errors import UserError, require_numbers, unknown

ID = "rl_interp/TwoWays-v0"
END = np.array([1.0, 0.0])
POINTS = {"above": np.array([0.0, 0.75]), "below": np.array([0.0, -0.75]), "end": END}
"""Places that are asked for, by name."""
ROUTES = {"above": ("above", "end"), "below": ("below", "end"), "end": ("end",)}
"""Places in the order in which an episode's goals are, by what is asked for."""
POST, NEAR, REACH, BOUND = 0.45, 0.15, 0.3, 1.5
"""Radius of the post; how near a goal counts as reached; the longest step that can be taken; the largest x and y."""


@dataclass(frozen=True)
class TwoWaysConfig(EnvConfig):
    """A point at the left is to get to the right, round a post. Its goal is the right end, which both ways lead to, or
    a place above or below the post and then the end. A goal reached in its order pays 1, and the last ends the episode.

    An observation is float32 `[4]`: x and y of the point and of its goal. An action is a step, in the same units, no
    longer than 0.3; one that would end in the post is not taken.
    """

    id: str = ID
    """rl_interp/TwoWays-v0."""
    asked: tuple[Literal["above", "below", "end"], ...] = ("above", "below", "end")
    """What is asked for in an episode, each as often."""
    max_steps: int = 30
    """Steps after which an episode is truncated."""
    start: float = -1.0
    """x of the start's place; its y is 0."""
    spread: float = 0.05
    """How far from its place the start may be, in x and y. With 0 nothing tells a way from the other at the start but
    the goal."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_1=("max_steps",), at_least_0=("spread",))
        if not -BOUND <= self.start - self.spread <= self.start + self.spread < -POST:
            raise UserError(
                f"start={self.start} given with spread={self.spread}; all starts must lie left of the post, between "
                f"-{BOUND} and -{POST}."
            )
        if not self.asked or set(self.asked) - set(ROUTES):
            raise UserError(f"asked={self.asked} given; name some of {', '.join(ROUTES)}.")

    @property
    def action_names(self) -> tuple[str, ...]:
        if self.id != ID:
            raise UserError(unknown("environment", self.id, [ID]))
        return ("dx", "dy")

    @property
    def action_kind(self) -> Literal["continuous"]:
        return "continuous"

    @property
    def observation_kind(self) -> Literal["vector"]:
        return "vector"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (4,)

    @property
    def input_names(self) -> tuple[str, ...]:
        return ("x", "y", "goal x", "goal y")

    @property
    def goals(self) -> Goals:
        return Goals(state=(0, 1), goal=(2, 3), achieved=(0, 1))

    @property
    def steps_per_second(self) -> int:
        return 5

    def summary(self, returns: NDArray[np.float64], last: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Episodes whose goals were all reached; goals reached in order; where a way was asked for, how often it was
        taken; and where none was, the entropy of the ways taken, in bits, of those that took one."""
        asked, way = last["asked"], last["way"]
        told, free = asked != 0, (asked == 0) & (way != 0)
        above = float((way[free] > 0).mean()) if free.any() else None
        return {
            "success_rate": float((last["reached"] == last["goals"]).mean()),
            "goals_reached": float(last["reached"].mean()),
            "way_as_asked": float((way[told] == asked[told]).mean()) if told.any() else None,
            "way_above": above,
            "way_entropy": None if above is None else entropy(above),
        }


def entropy(share: float) -> float:
    """In bits, of two ways of which one is taken with this probability."""
    shares = np.array([share, 1 - share])
    return float(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum()) + 0.0
