"""Levels made by playing backwards, compiled: boxes begin on their targets and are pulled away, so pushing them back is
a solution.

After Racanière et al. 2017, "Imagination-Augmented Agents", appendix: a room is carved by a random walk, and of the
boards that random pulls lead to, that whose boxes are farthest from where they began is taken, counting how often
another box was pulled.

Where the player can walk is asked after every pull, so cells that are floor, free or reached are rows of bits, the
first column lowest.
"""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.kinds import A_BOX, BOX_ON_TARGET, FLOOR, MOVES, PLAYER, PLAYER_ON_TARGET, TARGET, WALL
from rl_interp.core.envs.sokoban.levels import canonical
from rl_interp.core.envs.splitmix import below, skip

ALL, TRAINING, HELD_OUT = range(3)
_SHARE = np.uint64(8)
"""One level of so many is held out."""
_MOVES = np.array(MOVES)
_PATTERNS = np.array(
    [[0b000, 0b111, 0b000], [0b010, 0b010, 0b010], [0b000, 0b011, 0b010], [0b000, 0b011, 0b011], [0b000, 0b110, 0b010]],
    np.uint64,
)
"""What is carved around each place of the walk: three rows, each from its lowest bit on."""
_TURNS = 0.35
_PULLS = 60
"""Pulls for each box."""
_ONE = np.uint64(1)


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
    floor = np.empty(len(board), np.uint64)
    while True:
        _carve(state, floor, board.shape[1])
        if not _pull(state, boxes, floor, board):
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
def _carve(state: NDArray[np.uint64], floor: NDArray[np.uint64], width: int) -> None:
    height, inside = len(floor), (_ONE << np.uint64(width - 1)) - np.uint64(2)
    floor[:] = 0
    row, column, turn = 1 + below(state, height - 2), 1 + below(state, width - 2), below(state, 4)
    for _ in range((height + width) * 17 // 10):
        if below(state, 100) < 100 * _TURNS:
            turn = below(state, 4)
        y, x = row + _MOVES[turn, 0], column + _MOVES[turn, 1]
        if 0 < y < height - 1 and 0 < x < width - 1:
            row, column = y, x
        pattern = _PATTERNS[below(state, len(_PATTERNS))]
        for down in range(3):
            y = row + down - 1
            if 0 < y < height - 1:
                floor[y] |= pattern[down] << np.uint64(column - 1) & inside


@compiled()
def _pull(state: NDArray[np.uint64], boxes: int, room: NDArray[np.uint64], board: NDArray[np.uint8]) -> bool:
    """Put boxes on targets in a carved room, pull them away, and write the best board; false where that fails."""
    floor = _cells(room, board.shape[1])
    if len(floor) < 2 * boxes + 1:
        return False
    for i in range(boxes + 1):  # the first places of a shuffled list: the targets, and the player
        j = i + below(state, len(floor) - i)
        for axis in range(2):
            floor[i, axis], floor[j, axis] = floor[j, axis], floor[i, axis]
    began, at, best_at = floor[:boxes], np.empty((boxes, 2), np.int64), np.empty((boxes, 2), np.int64)
    _copy(began, at)
    free, reached = np.empty_like(room), np.empty_like(room)
    best, best_player = 0, np.empty(2, np.int64)
    last, changes = -1, 0
    _free(room, at, free)
    _reach(free, floor[boxes, 0], floor[boxes, 1], reached)
    if not _any_pull(at, free, reached):
        skip(state, 2 * _PULLS * boxes)  # what the pulls would draw: a seed's level does not depend on this short cut
        return False
    for _ in range(_PULLS * boxes):
        box, turn = below(state, boxes), below(state, 4)
        if last >= 0 and below(state, 2):  # half of the pulls go on with the same box
            box = last
        down, right = _MOVES[turn]
        y, x = at[box, 0] + down, at[box, 1] + right  # where the player stands, and steps back from
        row, column = y + down, x + right
        if not (_at(reached, y, x) and _at(free, row, column)):
            continue
        free[at[box, 0]] |= _ONE << np.uint64(at[box, 1])
        free[y] &= ~(_ONE << np.uint64(x))
        at[box, 0], at[box, 1] = y, x
        changes += box != last
        last = box
        _reach(free, row, column, reached)
        score = _score(at, began, changes)
        if score > best:
            best = score
            _copy(at, best_at)
            best_player[0], best_player[1] = row, column
    if best == 0:
        return False
    _free(room, best_at, free)
    _reach(free, best_player[0], best_player[1], reached)
    walked = _cells(reached, board.shape[1])
    best_player[:] = walked[below(state, len(walked))]  # whence it walks to its first push
    _write(board, room, began, best_at, best_player)
    return True


@compiled()
def _any_pull(boxes: NDArray[np.int64], free: NDArray[np.uint64], reached: NDArray[np.uint64]) -> bool:
    for row, column in boxes:
        for down, right in MOVES:
            y, x = row + down, column + right
            if _at(reached, y, x) and _at(free, y + down, x + right):
                return True
    return False


@compiled()
def _cells(cells: NDArray[np.uint64], width: int) -> NDArray[np.int64]:
    """Row and column of each."""
    out, n = np.empty((len(cells) * width, 2), np.int64), 0
    for row in range(len(cells)):
        for column in range(width):
            if _at(cells, row, column):
                out[n, 0], out[n, 1] = row, column
                n += 1
    return out[:n]


@compiled()
def _copy(source: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    for i in range(len(source)):
        out[i, 0], out[i, 1] = source[i, 0], source[i, 1]


@compiled()
def _at(cells: NDArray[np.uint64], row: int, column: int) -> bool:
    return (cells[row] >> np.uint64(column)) & _ONE != 0


@compiled()
def _free(floor: NDArray[np.uint64], boxes: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    out[:] = floor
    for i in range(len(boxes)):
        out[boxes[i, 0]] &= ~(_ONE << np.uint64(boxes[i, 1]))


@compiled()
def _reach(free: NDArray[np.uint64], row: int, column: int, reached: NDArray[np.uint64]) -> None:
    """Write where the player can walk from a free cell, a row of bits for each row: rows are filled downwards and
    upwards in turn, until nothing changes."""
    reached[:] = 0
    reached[row] = _along(_ONE << np.uint64(column), free[row])
    height, changed = len(free), True
    while changed:
        changed = False
        for i in range(1, height):
            found = reached[i - 1] & free[i] & ~reached[i]
            if found:
                reached[i], changed = _along(reached[i] | found, free[i]), True
        for i in range(height - 2, -1, -1):
            found = reached[i + 1] & free[i] & ~reached[i]
            if found:
                reached[i], changed = _along(reached[i] | found, free[i]), True


@compiled()
def _along(cells: np.uint64, free: np.uint64) -> np.uint64:
    """A row's cells, all of them free, and those free ones that are reached from them in the row."""
    cells |= free & ~(free + cells)  # a carry runs through the free cells on one side
    while True:
        more = cells | (cells >> _ONE & free)
        if more == cells:
            return cells
        cells = more


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
    board: NDArray[np.uint8],
    floor: NDArray[np.uint64],
    targets: NDArray[np.int64],
    boxes: NDArray[np.int64],
    player: NDArray[np.int64],
) -> None:
    for row in range(board.shape[0]):
        for column in range(board.shape[1]):
            board[row, column] = FLOOR if _at(floor, row, column) else WALL
    for i in range(len(targets)):
        board[targets[i, 0], targets[i, 1]] = TARGET
    for i in range(len(boxes)):
        row, column = boxes[i, 0], boxes[i, 1]
        board[row, column] = BOX_ON_TARGET if board[row, column] == TARGET else A_BOX
    row, column = player[0], player[1]
    board[row, column] = PLAYER_ON_TARGET if board[row, column] == TARGET else PLAYER
