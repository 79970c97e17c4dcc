"""The mazes' conventions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.errors import UserError, at_least_one, unknown
from rl_interp.core.stats import plain, wilson

ID = "rl_interp/Maze-v0"
WORLD = 25
"""Cells along a side of the world, in whose middle a maze lies."""
CELL, MARGIN = 2, 6
"""Pixels along a cell of an observation, and of wall above and left of the world. A cell's pixels start at an even one,
so that a layer that halves the picture has one position a cell."""
ACTIONS = ("up", "down", "left", "right", "stay")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))
"""Where each action leads, as (rows down, columns right)."""
MASTERED = 0.8
"""Share of the largest mazes so far that must be solved before a curriculum goes on to larger ones."""
_NEVER_APART = 2
"""With a region of at most so many cells, the way to the cheese never leaves the way to the corner."""


@dataclass(frozen=True)
class MazeConfig(EnvConfig):
    """Random mazes: the mouse gets 1 when it reaches the cheese, which ends the episode.

    After Langosco et al. 2022, "Goal Misgeneralization in Deep Reinforcement Learning", §3.3.
    """

    id: str = ID
    """rl_interp/Maze-v0."""
    min_side: int = 3
    """Cells along the side of the smallest maze: odd, at least 3."""
    max_side: int = 25
    """Cells along the side of the largest: odd, at most 25. Every odd side from the smallest on is equally likely."""
    region: int = 0
    """The cheese lies in one of the free cells of the region x region cells at the maze's top right; 0: anywhere."""
    start: Literal["bottom left", "anywhere"] = "bottom left"
    """Where the mouse starts: at the maze's bottom left, as published, or in any free cell. Scores are from there."""
    curriculum: bool = False
    """Begin training in the smallest mazes; larger ones follow once four fifths of the largest so far are solved."""
    cheese: bool = True
    """Whether there is a cheese. Without one an episode lasts until it is truncated, and no reward is given."""
    decision: bool = False
    """Play only mazes with a decision square, at which the ways to the cheese and to the top right part."""
    patience: int = 8
    """Steps per cell of the maze's side after which an episode is truncated: 200 in a maze of 25."""

    def __post_init__(self) -> None:
        for name in ("min_side", "max_side"):
            side = getattr(self, name)
            if not (3 <= side <= WORLD and side % 2):
                raise UserError(f"{name}={side} given; it is an odd number from 3 to {WORLD}.")
        if self.min_side > self.max_side:
            raise UserError(f"min_side={self.min_side} given with max_side={self.max_side}; it must not be larger.")
        if not 0 <= self.region <= WORLD:
            raise UserError(f"region={self.region} given; it is a number of cells up to {WORLD}, or 0 for anywhere.")
        if self.decision and (not self.cheese or 0 < self.region <= _NEVER_APART):
            raise UserError(
                "decision=True given, and the way to the cheese can't leave that to the top right: there must be a "
                "cheese, in a region of at least 3."
            )
        if self.start not in ("bottom left", "anywhere"):
            raise UserError(f"start={self.start!r} given; it is 'bottom left' or 'anywhere'.")
        at_least_one(patience=self.patience)

    @property
    def action_names(self) -> tuple[str, ...]:
        if self.id != ID:
            raise UserError(unknown("environment", self.id, [ID]))
        return ACTIONS

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (3, 64, 64)

    @property
    def eased(self) -> "MazeConfig":
        """From anywhere, in mazes that grow as they are solved."""
        return replace(self, start="anywhere", curriculum=True)

    @property
    def scored(self) -> "MazeConfig":
        """From the bottom left, in mazes of all sides."""
        return replace(self, start="bottom left", curriculum=False)

    @property
    def cell_pixels(self) -> tuple[int, int]:
        return CELL, MARGIN

    @property
    def observations_recur(self) -> bool:
        return True

    def summary(self, returns: NDArray[np.float64], last: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        return {"success_rate": float((returns > 0).mean()), "success_rate_interval": plain(wilson(returns > 0))}
