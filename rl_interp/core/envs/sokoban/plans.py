"""What is to come of a cell: from which side the player next steps onto it, and which way a box is next pushed off it.

These are the concepts C_A and C_B of Bush et al. 2025, "Interpreting Emergent Planning in Model-Free Reinforcement
Learning", §3. Both are read from what happened, or from a solution: what the player does in vain is no step.

Shape letters: T steps of an episode on a board of H x W cells.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.kinds import ACTIONS, MOVES
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.envs.sokoban.rules import push

CLASSES = (*ACTIONS, "never")
NEVER = len(ACTIONS)


@dataclass(frozen=True)
class Future:
    """What is to come, before each of T steps."""

    agent: NDArray[np.int8]
    """`[T, H, W]`: the direction in which the player next steps onto a cell, an index of `CLASSES` (C_A)."""
    box: NDArray[np.int8]
    """`[T, H, W]`: the direction in which a box is next pushed off a cell (C_B)."""
    agent_ahead: NDArray[np.int32]
    """`[T, H, W]`: steps until then, 0 if the next one does it; -1 where it never comes."""
    box_ahead: NDArray[np.int32]
    """`[T, H, W]`."""


def future(board: NDArray[np.uint8], actions: NDArray[np.integer]) -> Future:
    """What is to come in an episode that begins with `board [H, W]` and takes `actions [T]`, an action of 4 or more
    being none."""
    steps, pushes = _played(board.copy(), np.asarray(actions, np.int64), players(board[None])[0])
    agent, agent_ahead = _to_come(steps, *board.shape)
    box, box_ahead = _to_come(pushes, *board.shape)
    return Future(agent, box, agent_ahead, box_ahead)


@compiled()
def replayed(board: NDArray[np.uint8], actions: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The boards `[T + 1, H, W]` of an episode, the player being `at [2]` in the first."""
    out = np.empty((len(actions) + 1, board.shape[0], board.shape[1]), np.uint8)
    row, column = at[0], at[1]
    out[0] = board
    for t in range(len(actions)):
        out[t + 1] = out[t]
        if actions[t] < len(MOVES):
            down, right = MOVES[actions[t]]
            if push(out[t + 1], row, column, down, right) >= 0:
                row, column = row + down, column + right
    return out


@compiled()
def _played(
    board: NDArray[np.uint8], actions: NDArray[np.int64], at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the player steps, and where it pushes a box off: `[T, 3]` of row, column and direction, -1 for nothing. A
    box is pushed off the very cell that the player steps onto."""
    steps, pushes = np.full((len(actions), 3), -1), np.full((len(actions), 3), -1)
    row, column = at[0], at[1]
    for t in range(len(actions)):
        if actions[t] >= len(MOVES):
            continue
        down, right = MOVES[actions[t]]
        pushed = push(board, row, column, down, right)
        if pushed < 0:
            continue
        row, column = row + down, column + right
        steps[t, 0], steps[t, 1], steps[t, 2] = row, column, actions[t]
        if pushed:
            pushes[t, 0], pushes[t, 1], pushes[t, 2] = row, column, actions[t]
    return steps, pushes


@compiled()
def _to_come(events: NDArray[np.int64], height: int, width: int) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    count = len(events)
    directions, ahead = np.empty((count, height, width), np.int8), np.empty((count, height, width), np.int32)
    for row in range(height):
        for column in range(width):
            direction, at = NEVER, -1
            for t in range(count - 1, -1, -1):
                if events[t, 0] == row and events[t, 1] == column:
                    direction, at = events[t, 2], t
                directions[t, row, column] = direction
                ahead[t, row, column] = at - t if at >= 0 else -1
    return directions, ahead
