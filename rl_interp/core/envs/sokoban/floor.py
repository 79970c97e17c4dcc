"""A level as the search sees it: its floor, numbered, and what a box alone on it could do.

Cells are numbered along the floor that the player could reach if there were no boxes: n of them, n for what is not.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.kinds import A_BOX, BOX_ON_TARGET, MOVES, PLAYER, PLAYER_ON_TARGET, TARGET, WALL

_MOVES = np.array(MOVES)

FAR = np.int32(1_000_000)
"""More pushes than any board needs."""


class Level(NamedTuple):
    """What does not change while a level is searched. n cells, k boxes and targets."""

    beside: NDArray[np.int32]
    """`[n + 1, 4]`: the cells up, down, left and right of each."""
    part: NDArray[np.int8]
    """`[n, n]`: with a box on the first cell, which part of the floor the second is in."""
    alone: NDArray[np.int32]
    """`[n, 4, k]`: pushes that a box alone on the board needs from a cell to a target, by the player's part."""
    dead: NDArray[np.bool_]
    """`[n + 1]`: cells from which it can't be pushed to any."""
    is_target: NDArray[np.bool_]
    """`[n + 1]`."""


@compiled()
def level_of(beside: NDArray[np.int32], targets: NDArray[np.int32]) -> Level:
    part = _parts(beside)
    alone, is_target = _alone(beside, part, targets), np.zeros(len(beside), np.bool_)
    for target in targets:
        is_target[target] = True
    return Level(beside, part, alone, _dead(alone), is_target)


@compiled()
def floor_of(board: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """The cells beside each, up, down, left and right, `[n + 1, 4]`; the boxes' and the targets', -1 where the player
    can't go, but for boxes there that are on targets. The player's cell is 0."""
    height, width = board.shape
    number, cells = np.full((height, width), -1, np.int32), np.empty((height * width, 2), np.int32)
    boxes, targets = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    n, read = 0, 0
    for row in range(height):
        for column in range(width):
            if board[row, column] in (PLAYER, PLAYER_ON_TARGET):
                cells[0, 0], cells[0, 1], number[row, column] = row, column, 0
                n = 1
    while read < n:
        row, column = cells[read]
        read += 1
        for turn in range(4):
            y, x = row + _MOVES[turn, 0], column + _MOVES[turn, 1]
            if board[y, x] != WALL and number[y, x] < 0:
                number[y, x] = n
                cells[n, 0], cells[n, 1] = y, x
                n += 1
    beside = np.full((n + 1, 4), n, np.int32)
    for i in range(n):
        for turn in range(4):
            there = number[cells[i, 0] + _MOVES[turn, 0], cells[i, 1] + _MOVES[turn, 1]]
            if there >= 0:
                beside[i, turn] = there
    k, t = 0, 0
    for row in range(height):
        for column in range(width):
            kind = board[row, column]
            if kind == BOX_ON_TARGET and number[row, column] < 0:
                continue
            if kind in (A_BOX, BOX_ON_TARGET):
                boxes[k] = number[row, column]
                k += 1
            if kind in (TARGET, BOX_ON_TARGET, PLAYER_ON_TARGET):
                targets[t] = number[row, column]
                t += 1
    for last in range(1, k):
        moved(boxes[: last + 1], last, boxes[last], boxes[: last + 1])
    return beside, boxes[:k], targets[:t]


@compiled()
def _parts(beside: NDArray[np.int32]) -> NDArray[np.int8]:
    """`[n, n]`: with a box on the first cell, which part of the floor the second is in: the first of the box's sides
    that it is joined to."""
    n = len(beside) - 1
    part, queue = np.full((n, n), -1, np.int8), np.empty(n, np.int32)
    for box in range(n):
        for side in range(4):
            start = beside[box, side]
            if start == n or part[box, start] >= 0:
                continue
            part[box, start], queue[0] = side, start
            read, written = 0, 1
            while read < written:
                cell = queue[read]
                read += 1
                for there in beside[cell]:
                    if there != n and there != box and part[box, there] < 0:
                        part[box, there] = side
                        queue[written] = there
                        written += 1
    return part


@compiled()
def _alone(beside: NDArray[np.int32], part: NDArray[np.int8], targets: NDArray[np.int32]) -> NDArray[np.int32]:
    """`[n, 4, targets]`: pushes that a box alone on the board needs from a cell to a target, by the part of the floor
    that the player is in."""
    n = len(beside) - 1
    out = np.full((n, 4, len(targets)), FAR, np.int32)
    queue = np.empty((4 * n, 2), np.int32)
    for t in range(len(targets)):
        written, read = 0, 0
        for side in range(4):
            queue[written, 0], queue[written, 1] = targets[t], side
            out[targets[t], side, t] = 0
            written += 1
        while read < written:
            cell, side = queue[read]
            read += 1
            for turn in range(4):  # it was pushed here this way
                before = beside[cell, turn ^ 1]
                if before == n or part[cell, before] != side:
                    continue
                behind = beside[before, turn ^ 1]
                if behind != n and out[before, part[before, behind], t] >= FAR:
                    out[before, part[before, behind], t] = out[cell, side, t] + 1
                    queue[written, 0], queue[written, 1] = before, part[before, behind]
                    written += 1
    return out


@compiled()
def _dead(alone: NDArray[np.int32]) -> NDArray[np.bool_]:
    """`[n + 1]`: the cells from which a box alone could not be pushed to any target."""
    out = np.ones(len(alone) + 1, np.bool_)
    for cell in range(len(alone)):
        for part in range(4):
            for t in range(alone.shape[2]):
                out[cell] &= alone[cell, part, t] >= FAR
    return out


@compiled()
def moved(boxes: NDArray[np.int32], i: int, to: int, out: NDArray[np.int32]) -> None:
    """Write the boxes in order with the i-th elsewhere."""
    for j in range(len(boxes)):
        out[j] = boxes[j]
    while i > 0 and out[i - 1] > to:
        out[i] = out[i - 1]
        i -= 1
    while i < len(out) - 1 and out[i + 1] < to:
        out[i] = out[i + 1]
        i += 1
    out[i] = to
