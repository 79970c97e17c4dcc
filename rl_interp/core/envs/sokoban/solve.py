"""Solutions of levels, as far as a search finds them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.sokoban.search import FOUND, GIVEN_UP, search
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress

BOARDS = 100_000
"""Boards that a search looks at, at most, unless said otherwise: a second, at worst."""


@dataclass(frozen=True)
class Plan:
    """What a search found of one board."""

    actions: NDArray[np.int64] | None
    """`[steps]`: a solution; None if there is none, or none was found."""
    pushes: int
    """Of that solution."""
    solvable: bool | None
    """Whether there is a solution; None if the search ended before it was known."""
    boards: int
    """How many boards were looked at."""


def solve(board: NDArray[np.uint8], boards: int = BOARDS, fewest: Literal["pushes", "steps"] = "pushes") -> Plan:
    """Search the best solution of a board `[H, W]`, by A* on up to so many boards.

    Args:
        board: of `Levels`, or as an episode has left it.
        fewest: what the best one has fewest of. One with the fewest pushes is found much sooner, and is longer by a
            sixth in Boxoban's levels.
    """
    if fewest not in ("pushes", "steps"):
        raise UserError(f"fewest={fewest!r} given; it is pushes or steps.")
    result, actions, pushes, looked = search(np.ascontiguousarray(board), boards, fewest == "steps")
    known = None if result == GIVEN_UP else result == FOUND
    return Plan(actions if result == FOUND else None, pushes, known, looked)


def solve_all(
    levels: Levels,
    boards: int = BOARDS,
    fewest: Literal["pushes", "steps"] = "pushes",
    progress: Progress = SILENT,
) -> list[Plan]:
    """Each level's `solve`."""
    plans = []
    with progress.bar("solving", len(levels), "levels") as update:
        for board in levels.boards:
            plans.append(solve(board, boards, fewest))
            update(len(plans))
    return plans
