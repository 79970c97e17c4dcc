"""Mazes laid out and solved, compiled. A maze is `walls [25, 25]`, true where there is one, and cells are (row, column)
from the top left.
"""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.maze.config import MOVES, WORLD
from rl_interp.core.envs.splitmix import below

NOWHERE = -1
"""Both coordinates of what is not there; the distance of what can't be reached."""

_STEPS = MOVES[:4]


@compiled()
def lay_out(
    seed: int,
    min_side: int,
    max_side: int,
    region: int,
    start_anywhere: bool,
    with_cheese: bool,
    with_decision: bool,
    walls: NDArray[np.bool_],
    mouse: NDArray[np.int64],
    cheese: NDArray[np.int64],
) -> int:
    """Write a random maze into `walls [25, 25]`, `mouse [2]` and `cheese [2]`; returns its side."""
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(seed)
    while True:
        side = min_side + 2 * below(state, (max_side - min_side) // 2 + 1)
        start = (WORLD - side) // 2
        _carve(state, side, start, walls)
        mouse[0], mouse[1], cheese[:] = start + side - 1, start, NOWHERE
        if with_cheese:
            _place(state, start, start + side - 1, side if region == 0 else min(region, side), walls, mouse, cheese)
        if start_anywhere:
            _place(state, start, start + side - 1, side, walls, cheese, mouse)
        if not with_decision or decision_square(walls, mouse, cheese, start, start + side - 1)[0] != NOWHERE:
            return side


@compiled()
def _carve(state: NDArray[np.uint64], side: int, start: int, walls: NDArray[np.bool_]) -> None:
    """Kruskal: rooms are every other cell; walls between two are opened in random order, where that joins what was
    apart. The rooms end as one tree."""
    rooms = (side + 1) // 2
    between = np.empty(2 * rooms * (rooms - 1), np.int64)  # right of a room: 2 x its number; below it: 2 x + 1
    count = 0
    for room in range(rooms * rooms):
        if room % rooms < rooms - 1:
            between[count] = 2 * room
            count += 1
        if room // rooms < rooms - 1:
            between[count] = 2 * room + 1
            count += 1
    walls[:] = True
    for row in range(rooms):
        for column in range(rooms):
            walls[start + 2 * row, start + 2 * column] = False
    parent = np.arange(rooms * rooms)
    for i in range(count - 1, -1, -1):
        j = below(state, i + 1)
        between[i], between[j] = between[j], between[i]
        room, beneath = between[i] // 2, between[i] % 2
        a, b = _root(parent, room), _root(parent, room + (rooms if beneath else 1))
        if a != b:
            parent[a] = b
            walls[start + 2 * (room // rooms) + beneath, start + 2 * (room % rooms) + 1 - beneath] = False


@compiled()
def _root(parent: NDArray[np.int64], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled()
def _place(
    state: NDArray[np.uint64],
    top: int,
    right: int,
    size: int,
    walls: NDArray[np.bool_],
    other: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Write a free cell, though not that of the `other`, of the square of `size` cells whose corner is (top, right)."""
    while True:
        out[0], out[1] = top + below(state, size), right - below(state, size)
        if not walls[out[0], out[1]] and (out[0] != other[0] or out[1] != other[1]):
            return


@compiled()
def distances(walls: NDArray[np.bool_], row: int, column: int, out: NDArray[np.int16]) -> None:
    """Write the steps from every cell to one into `out [25, 25]`; -1 in walls and where there is no way."""
    out[:] = NOWHERE
    if row == NOWHERE or walls[row, column]:
        return
    queue = np.empty((walls.size, 2), np.int64)
    queue[0, 0], queue[0, 1] = row, column
    out[row, column] = 0
    read, written = 0, 1
    while read < written:
        r, c = queue[read]
        read += 1
        for dr, dc in _STEPS:
            y, x = r + dr, c + dc
            inside = 0 <= y < walls.shape[0] and 0 <= x < walls.shape[1]
            if inside and not walls[y, x] and out[y, x] == NOWHERE:
                out[y, x] = out[r, c] + 1
                queue[written, 0], queue[written, 1] = y, x
                written += 1


@compiled()
def decision_square(
    walls: NDArray[np.bool_], mouse: NDArray[np.int64], cheese: NDArray[np.int64], row: int, column: int
) -> tuple[int, int]:
    """Where the mouse's way to the cheese leaves its way to the cell (`row`, `column`): the first cell from which no
    step brings it nearer to both. (-1, -1) where one lies on the way to the other, or can't be reached."""
    to_cheese, to_corner = np.empty(walls.shape, np.int16), np.empty(walls.shape, np.int16)
    distances(walls, cheese[0], cheese[1], to_cheese)
    distances(walls, row, column, to_corner)
    r, c = mouse[0], mouse[1]
    if to_cheese[r, c] == NOWHERE or to_corner[r, c] == NOWHERE:
        return NOWHERE, NOWHERE
    while True:
        if to_cheese[r, c] == 0 or to_corner[r, c] == 0:
            return NOWHERE, NOWHERE
        moved = False
        for dr, dc in _STEPS:
            y, x = r + dr, c + dc
            inside = 0 <= y < walls.shape[0] and 0 <= x < walls.shape[1]
            if inside and to_cheese[y, x] == to_cheese[r, c] - 1 and to_corner[y, x] == to_corner[r, c] - 1:
                r, c, moved = y, x, True
                break
        if not moved:
            return r, c
