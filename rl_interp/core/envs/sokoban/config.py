"""Sokoban's conventions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.sokoban.draw import enlarged, kinds_of, picture
from rl_interp.core.envs.sokoban.kinds import ACTIONS, KINDS
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.stats import plain, wilson

ID = "rl_interp/Sokoban-v0"
NONE = "none"
GENERATED = "generated"
PUBLISHED = {
    "unfiltered": "the 1,000 levels of Boxoban's unfiltered/test",
    "medium": "1,000 of its medium/valid",
    "hard": "332 of its hard",
    "agent_shortcut": "25 levels of Bush et al. 2025 with a shorter way for the player",
    "box_shortcut": "25 with a shorter way for a box",
}
"""Sets that come with the package."""
_SHORTEST = 30
_LONGEST_SIDE = 64


@dataclass(frozen=True)
class SokobanConfig(EnvConfig):
    """Sokoban (Thinking Rabbit 1982) with the rewards of Racanière et al. 2017, "Imagination-Augmented Agents": -0.1 a
    step, 1 for a box pushed onto a target and -1 for one pushed off, and 10 when none is left, which ends the episode.
    """

    id: str = ID
    """rl_interp/Sokoban-v0."""
    levels: str = GENERATED
    """Levels to play: generated, one of the sets that come with the package (unfiltered, medium, hard, agent_shortcut,
    box_shortcut), or a file or folder of levels as text."""
    held_out: str = ""
    """Levels to score with, named as `levels` are; empty: the part of the same ones that is not trained in."""
    part: Literal["all", "training", "held out"] = "all"
    """Part of the levels to play. A level and its mirror images and turns are all in one: an eighth is held out."""
    rows: int = 10
    """Cells from the board's top to its bottom, the walls around it included. Smaller levels are set amid walls."""
    columns: int = 10
    """Cells from left to right, likewise."""
    boxes: int = 4
    """Boxes of a generated level."""
    observation: Literal["pixels", "symbols"] = "pixels"
    """A pixel a cell, `[3, rows, columns]`, or the cells' kinds, `[1, rows, columns]`, seen as 7 planes."""
    none: bool = False
    """Whether doing nothing is a fifth action."""
    min_steps: int = 120
    """Fewest steps after which an episode is truncated. Each draws its limit from here up to `max_steps`."""
    max_steps: int = 120
    """Most of them."""
    guidance: float = 0.0
    """Reward for each step by which a step brings the end of the level nearer, and minus that for each by which it puts
    it off, as a search says; a board that can't be solved any more then ends the episode, at the price of ten. 0 for
    none, as in all scores."""

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if not 3 <= getattr(self, name) <= _LONGEST_SIDE:
                raise UserError(f"{name}={getattr(self, name)} given; it is a number from 3 to {_LONGEST_SIDE}.")
        floor = (self.rows - 2) * (self.columns - 2)
        if self.boxes < 1 or (self.levels == GENERATED and 4 * self.boxes > floor):
            raise UserError(
                f"boxes={self.boxes} given for {self.rows} x {self.columns} cells; at least 1, and at most a box for "
                f"every four of the {floor} cells within the walls."
            )
        if self.observation not in ("pixels", "symbols"):
            raise UserError(f"observation={self.observation!r} given; it is pixels or symbols.")
        if self.part not in ("all", "training", "held out"):
            raise UserError(f"part={self.part!r} given; it is 'all', 'training' or 'held out'.")
        if not 1 <= self.min_steps <= self.max_steps:
            raise UserError(
                f"min_steps={self.min_steps} and max_steps={self.max_steps} given; both are at least 1, and the first "
                "is not larger."
            )
        if not (np.isfinite(self.guidance) and self.guidance >= 0):
            raise UserError(f"guidance={self.guidance} given; it is a reward, at least 0.")

    @property
    def categories(self) -> tuple[int, ...] | None:
        return (len(KINDS),) if self.observation == "symbols" else None

    @property
    def action_names(self) -> tuple[str, ...]:
        if self.id != ID:
            raise UserError(unknown("environment", self.id, [ID]))
        return (*ACTIONS, NONE) if self.none else ACTIONS

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (3 if self.observation == "pixels" else 1, self.rows, self.columns)

    @property
    def eased(self) -> "SokobanConfig":
        """In the levels to train in, with limits drawn from 30 steps on, so that episodes do not end together."""
        return replace(self, part="training", min_steps=min(_SHORTEST, self.max_steps))

    @property
    def scored(self) -> "SokobanConfig":
        """In the held-out levels, with the largest limit and without guidance."""
        levels = self.held_out or self.levels
        part = "all" if self.held_out else "held out" if self.part == "training" else self.part
        return replace(self, levels=levels, part=part, min_steps=self.max_steps, guidance=0.0)

    @property
    def cell_pixels(self) -> tuple[int, int]:
        return 1, 0

    @property
    def observations_recur(self) -> bool:
        return True

    def picture(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As people see it; what a model makes of pixels, by the nearest colour, is shown as it is."""
        kinds = obs[0] if self.observation == "symbols" else kinds_of(obs)
        return enlarged(obs) if kinds is None else picture(kinds)

    def summary(self, returns: NDArray[np.float64], last: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        solved = last["boxes_left"] == 0
        return {"success_rate": float(solved.mean()), "success_rate_interval": plain(wilson(solved))}
