"""What a search says of each step while an agent learns: whether it brought the end nearer, or spoiled the level.

A reward for boxes on targets comes late, and most pushes that lose a level look harmless for many steps. The steps to
go in a solution with the fewest pushes are a potential (Ng, Harada & Russell 1999), whose undiscounted differences are
rewards here: over an episode they add up to the same for all ways from its first board to its last.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.sokoban.solve import solve

DEAD_END = 10
"""Steps that a board which can't be solved is further from the end."""
UNKNOWN, NEVER = -1, -2
_BOARDS = 2_000
"""Boards that a search looks at, at most."""
_KEPT = 100_000
"""Boards whose steps to go are kept: those of the step before, and of levels that are played again."""


def judge(before: NDArray[np.uint8], boards: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which way a step from the boards `before` to `boards`, both `[N, H, W]`, led.

    Returns:
        By how many steps the end came nearer, `[N]`, 0 where that isn't known; and which boards can't be solved any
        more, `[N]`.
    """
    nearer, dead = np.zeros(len(boards), np.int64), np.zeros(len(boards), bool)
    for i in np.flatnonzero((before != boards).any((1, 2))):
        was, now = (_steps_to_go(board[i].tobytes(), board[i].shape) for board in (before, boards))
        if now == NEVER:
            nearer[i], dead[i] = -DEAD_END, True
        elif UNKNOWN not in (was, now):
            nearer[i] = was - now
    return nearer, dead


@lru_cache(_KEPT)
def _steps_to_go(board: bytes, shape: tuple[int, int]) -> int:
    """`UNKNOWN` where the search ended before it was known, `NEVER` where there is no way."""
    plan = solve(np.frombuffer(board, np.uint8).reshape(shape), _BOARDS)
    if plan.actions is None:
        return NEVER if plan.solvable is False else UNKNOWN
    return len(plan.actions)
