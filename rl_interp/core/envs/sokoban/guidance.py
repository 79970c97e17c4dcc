"""What a search says of each push while an agent learns: whether it brought the end nearer, or spoiled the level.

A reward only for boxes on targets comes late, and most pushes that lose a level look harmless for many steps. Pushes to
go are a potential (Ng, Harada & Russell 1999), whose differences are rewards here: a policy that pushes as few times as
it can is still the best one.
"""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.sokoban.kinds import A_BOX, BOX_ON_TARGET
from rl_interp.core.envs.sokoban.solve import solve

DEAD_END = 5
"""Pushes that a board which can't be solved is worth less."""
UNKNOWN = -1
_BOARDS = 2_000
"""Boards that a search looks at, at most."""


class Guidance:
    """The pushes that N boards still need at least.

    Attributes:
        to_go: `[N]` int64; -1 where the search ended before it was known.
    """

    def __init__(self, num_envs: int):
        self.to_go = np.zeros(num_envs, np.int64)

    def start(self, where: NDArray[np.integer], boards: NDArray[np.uint8]) -> None:
        """Look at the boards that some of the environments begin with."""
        plans = [solve(board, _BOARDS) for board in boards]
        self.to_go[where] = [plan.pushes if plan.solvable else UNKNOWN for plan in plans]

    def step(self, before: NDArray[np.uint8], boards: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Which way the step from `before` to `boards [N, H, W]` led.

        Returns:
            By how many pushes the end came nearer, `[N]`, 0 where that isn't known; and which boards can't be solved
            any more, `[N]`.
        """
        nearer, dead = np.zeros(len(boards), np.int64), np.zeros(len(boards), bool)
        for i in np.flatnonzero((_boxes(before) != _boxes(boards)).any((1, 2))):
            plan = solve(boards[i], _BOARDS)
            if plan.solvable is False:
                nearer[i], dead[i] = -DEAD_END, True
            elif plan.solvable and self.to_go[i] != UNKNOWN:
                nearer[i] = self.to_go[i] - plan.pushes
            self.to_go[i] = plan.pushes if plan.solvable else UNKNOWN
        return nearer, dead


def _boxes(boards: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (boards == A_BOX) | (boards == BOX_ON_TARGET)
