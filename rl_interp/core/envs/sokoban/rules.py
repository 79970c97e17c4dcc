"""The rules, compiled, on boards of kinds (`kinds.KINDS`). The player, and whatever a box can be pushed to, lies
within walls: `levels.Levels` has no others, so nothing here looks beyond the board's edge.
"""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.kinds import (
    A_BOX,
    BOX_ON_TARGET,
    COLOURS,
    FLOOR,
    MOVES,
    PLAYER,
    PLAYER_ON_TARGET,
    TARGET,
    WALL,
)

STEP, BOX, SOLVED = -0.1, 1.0, 10.0
"""Rewards: of a step, of a box pushed onto a target (and minus that, off it), and of the last one."""

_MOVES = np.array(MOVES)
_COLOURS = np.array(COLOURS, np.uint8)
_LEFT = np.array([WALL, FLOOR, TARGET, TARGET, FLOOR, FLOOR, TARGET], np.uint8)
"""What is left of a cell once the box or the player has gone."""


@compiled()
def push(board: NDArray[np.uint8], row: int, column: int, down: int, right: int) -> int:
    """Move the player at (row, column) of `board [H, W]`, with the box before it if there is one.

    Returns:
        -1 where something is in the way, and nothing changes; else the number of boxes, 0 or 1, that were pushed.
    """
    y, x = row + down, column + right
    ahead, pushed = board[y, x], 0
    if ahead == WALL:
        return -1
    if ahead in (BOX_ON_TARGET, A_BOX):
        beyond = board[y + down, x + right]
        if beyond not in (FLOOR, TARGET):
            return -1
        board[y + down, x + right] = BOX_ON_TARGET if beyond == TARGET else A_BOX
        pushed = 1
    board[y, x] = PLAYER_ON_TARGET if _LEFT[ahead] == TARGET else PLAYER
    board[row, column] = _LEFT[board[row, column]]
    return pushed


@compiled()
def step(
    actions: NDArray[np.int64],
    first: NDArray[np.bool_],
    boards: NDArray[np.uint8],
    players: NDArray[np.int64],
    boxes_left: NDArray[np.int64],
    steps: NDArray[np.int64],
    reward: NDArray[np.float32],
    obs: NDArray[np.uint8],
) -> None:
    """One step of every board whose episode goes on, in place: `boards [N, H, W]`, `players [N, 2]`, and observations
    `obs [N, C, H, W]`."""
    for i in range(len(actions)):
        if first[i]:
            continue
        steps[i] += 1
        reward[i] = STEP
        if actions[i] >= len(_MOVES):
            continue
        row, column = players[i]
        down, right = _MOVES[actions[i]]
        y, x = row + down, column + right
        before = boards[i, y, x]
        pushed = push(boards[i], row, column, down, right)
        if pushed < 0:
            continue
        players[i, 0], players[i, 1] = y, x
        draw_cell(boards[i], row, column, obs[i])
        draw_cell(boards[i], y, x, obs[i])
        if pushed:
            draw_cell(boards[i], y + down, x + right, obs[i])
            off, on = before == BOX_ON_TARGET, boards[i, y + down, x + right] == BOX_ON_TARGET
            boxes_left[i] += np.int64(off) - np.int64(on)
            reward[i] += BOX * (np.int64(on) - np.int64(off))
            if boxes_left[i] == 0:
                reward[i] += SOLVED


@compiled()
def draw_cell(board: NDArray[np.uint8], row: int, column: int, out: NDArray[np.uint8]) -> None:
    """Draw one cell into an observation, `[3, H, W]` of colours or `[1, H, W]` of kinds."""
    kind = board[row, column]
    if len(out) == 1:
        out[0, row, column] = kind
    else:
        for channel in range(3):
            out[channel, row, column] = _COLOURS[kind, channel]


def observe(boards: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Observations `[N, 3, H, W]` of colours or `[N, 1, H, W]` of kinds."""
    return boards[:, None].copy() if channels == 1 else np.ascontiguousarray(np.moveaxis(_COLOURS[boards], -1, 1))
