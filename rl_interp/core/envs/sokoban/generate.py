"""Levels made by playing backwards, compiled: boxes begin on their targets and are pulled away, so pushing them back is
a solution.

After Racanière et al. 2017, "Imagination-Augmented Agents", appendix: a room is carved by a random walk, and of the
boards that random pulls lead to, that whose boxes are farthest from where they began is taken, counting how often
another box was pulled.
"""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.kinds import A_BOX, BOX_ON_TARGET, FLOOR, MOVES, PLAYER, PLAYER_ON_TARGET, TARGET, WALL
from rl_interp.core.envs.sokoban.levels import canonical
from rl_interp.core.envs.splitmix import below

ALL, TRAINING, HELD_OUT = range(3)
_SHARE = np.uint64(8)
"""One level of so many is held out."""
_MOVES = np.array(MOVES)
_PATTERNS = np.array(
    [
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
        [[0, 0, 0], [1, 1, 0], [0, 1, 0]],
        [[0, 0, 0], [1, 1, 0], [1, 1, 0]],
        [[0, 0, 0], [0, 1, 1], [0, 1, 0]],
    ],
    np.uint8,
)  # fmt: skip
"""What is carved around each place of the walk."""
_TURNS = 0.35
_PULLS = 60
"""Pulls for each box."""


def held_out(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which levels of these `Levels.hashes` are not trained in."""
    return hashes % _SHARE == 0


@compiled()
def generate(seed: int, boxes: int, part: int, excluded: NDArray[np.uint64], board: NDArray[np.uint8]) -> None:
    """Write a random level into `board [H, W]`: of all, or of those to train in, or of those held out.

    Args:
        excluded: sorted hashes of levels that it must not be.
    """
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(seed)
    while True:
        _carve(state, board)
        if not _pull(state, boxes, board):
            continue
        value = canonical(board)
        if part != ALL and (value % _SHARE == 0) != (part == HELD_OUT):
            continue
        if not _among(excluded, value):
            return


@compiled()
def _among(numbers: NDArray[np.uint64], number: np.uint64) -> bool:
    """Whether it is one of sorted numbers."""
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if numbers[middle] < number:
            low = middle + 1
        else:
            high = middle
    return low < len(numbers) and numbers[low] == number


@compiled()
def _carve(state: NDArray[np.uint64], board: NDArray[np.uint8]) -> None:
    height, width = board.shape
    board[:] = WALL
    row, column, turn = 1 + below(state, height - 2), 1 + below(state, width - 2), below(state, 4)
    for _ in range((height + width) * 17 // 10):
        if below(state, 100) < 100 * _TURNS:
            turn = below(state, 4)
        y, x = row + _MOVES[turn, 0], column + _MOVES[turn, 1]
        if 0 < y < height - 1 and 0 < x < width - 1:
            row, column = y, x
        pattern = _PATTERNS[below(state, len(_PATTERNS))]
        for down in range(3):
            for right in range(3):
                y, x = row + down - 1, column + right - 1
                if pattern[down, right] and 0 < y < height - 1 and 0 < x < width - 1:
                    board[y, x] = FLOOR


@compiled()
def _pull(state: NDArray[np.uint64], boxes: int, board: NDArray[np.uint8]) -> bool:
    """Put boxes on targets in a carved room, pull them away, and leave the best board; false where that fails."""
    height, width = board.shape
    floor = _floor(board)
    if len(floor) < 2 * boxes + 1:
        return False
    for i in range(boxes + 1):  # the first places of a shuffled list: the targets, and the player
        j = i + below(state, len(floor) - i)
        for axis in range(2):
            floor[i, axis], floor[j, axis] = floor[j, axis], floor[i, axis]
    began, at, best_at = floor[:boxes], np.empty((boxes, 2), np.int64), np.empty((boxes, 2), np.int64)
    _copy(began, at)
    taken = np.zeros((height, width), np.bool_)
    for i in range(boxes):
        taken[at[i, 0], at[i, 1]] = True
    row, column = floor[boxes, 0], floor[boxes, 1]
    reached = np.empty((height, width), np.bool_)
    queue = np.empty((height * width, 2), np.int64)
    best, best_player = 0, np.empty(2, np.int64)
    last, changes = -1, 0
    _reach(board, taken, row, column, reached, queue)
    for _ in range(_PULLS * boxes):
        box, turn = below(state, boxes), below(state, 4)
        if last >= 0 and below(state, 2):  # half of the pulls go on with the same box
            box = last
        down, right = _MOVES[turn]
        y, x = at[box, 0] + down, at[box, 1] + right
        if not (reached[y, x] and _free(board, taken, y + down, x + right)):
            continue
        taken[at[box, 0], at[box, 1]], taken[y, x] = False, True
        at[box, 0], at[box, 1] = y, x
        row, column = y + down, x + right
        changes += box != last
        last = box
        _reach(board, taken, row, column, reached, queue)
        score = _score(at, began, changes)
        if score > best:
            best = score
            _copy(at, best_at)
            best_player[0], best_player[1] = row, column
    if best == 0:
        return False
    taken[:] = False
    for i in range(boxes):
        taken[best_at[i, 0], best_at[i, 1]] = True
    _reach(board, taken, best_player[0], best_player[1], reached, queue)
    _choose(state, reached, best_player)
    _write(board, began, best_at, best_player)
    return True


@compiled()
def _choose(state: NDArray[np.uint64], reached: NDArray[np.bool_], out: NDArray[np.int64]) -> None:
    """Write one of the cells that are reached: whence the player walks to its first push."""
    count = 0
    for row in range(reached.shape[0]):
        for column in range(reached.shape[1]):
            count += reached[row, column]
    left = below(state, count)
    for row in range(reached.shape[0]):
        for column in range(reached.shape[1]):
            if reached[row, column]:
                if left == 0:
                    out[0], out[1] = row, column
                left -= 1


@compiled()
def _floor(board: NDArray[np.uint8]) -> NDArray[np.int64]:
    out, n = np.empty((board.size, 2), np.int64), 0
    for row in range(board.shape[0]):
        for column in range(board.shape[1]):
            if board[row, column] == FLOOR:
                out[n, 0], out[n, 1] = row, column
                n += 1
    return out[:n]


@compiled()
def _copy(source: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    for i in range(len(source)):
        out[i, 0], out[i, 1] = source[i, 0], source[i, 1]


@compiled()
def _free(board: NDArray[np.uint8], taken: NDArray[np.bool_], row: int, column: int) -> bool:
    inside = 0 <= row < board.shape[0] and 0 <= column < board.shape[1]
    return inside and board[row, column] != WALL and not taken[row, column]


@compiled()
def _reach(
    board: NDArray[np.uint8],
    taken: NDArray[np.bool_],
    row: int,
    column: int,
    reached: NDArray[np.bool_],
    queue: NDArray[np.int64],
) -> None:
    """Write where the player can walk."""
    reached[:] = False
    queue[0, 0], queue[0, 1], reached[row, column] = row, column, True
    read, written = 0, 1
    while read < written:
        r, c = queue[read, 0], queue[read, 1]
        read += 1
        for down, right in MOVES:
            y, x = r + down, c + right
            if not reached[y, x] and board[y, x] != WALL and not taken[y, x]:
                queue[written, 0], queue[written, 1], reached[y, x] = y, x, True
                written += 1


@compiled()
def _score(at: NDArray[np.int64], began: NDArray[np.int64], changes: int) -> int:
    """How far the boxes are from where they began, times how often another one was pulled; 0 if one is on a target."""
    total = 0
    for i in range(len(at)):
        total += abs(at[i, 0] - began[i, 0]) + abs(at[i, 1] - began[i, 1])
        for j in range(len(at)):
            if at[i, 0] == began[j, 0] and at[i, 1] == began[j, 1]:
                return 0
    return total * changes


@compiled()
def _write(
    board: NDArray[np.uint8], targets: NDArray[np.int64], boxes: NDArray[np.int64], player: NDArray[np.int64]
) -> None:
    for i in range(len(targets)):
        board[targets[i, 0], targets[i, 1]] = TARGET
    for i in range(len(boxes)):
        row, column = boxes[i, 0], boxes[i, 1]
        board[row, column] = BOX_ON_TARGET if board[row, column] == TARGET else A_BOX
    row, column = player[0], player[1]
    board[row, column] = PLAYER_ON_TARGET if board[row, column] == TARGET else PLAYER
