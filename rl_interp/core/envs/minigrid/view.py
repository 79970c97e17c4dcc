"""What an agent sees of a grid, compiled: 100 times faster than building it from the package's objects.

A grid is uint8 `[width, height, 3]`: object, colour and state of each cell, as `Grid.encode` gives it.

One core makes 80,000 to 125,000 steps a second this way, against the package's 8,600. `envpool` is faster still, but
has no panoramas, and the learner could not keep up with it.
"""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled

_UNSEEN, _EMPTY, _WALL, _DOOR, _GREY = 0, 1, 2, 4, 5


@compiled()
def view(
    grid: NDArray[np.uint8],
    x: int,
    y: int,
    direction: int,
    kind: int,
    colour: int,
    state: int,
    see_through_walls: bool,
    out: NDArray[np.uint8],
) -> None:
    """Write the egocentric view `[3, V, V]` (rows from far to near, the agent in the middle of the last).

    Args:
        direction: 0 right, 1 down, 2 left, 3 up.
        kind, colour, state: what stands in the agent's own cell: the thing it carries, or an empty cell.
    """
    side = out.shape[1]
    ahead_x, ahead_y = (1, 0, -1, 0)[direction], (0, 1, 0, -1)[direction]
    right_x, right_y = -ahead_y, ahead_x
    for row in range(side):
        for column in range(side):
            far, aside = side - 1 - row, column - side // 2
            cx, cy = x + far * ahead_x + aside * right_x, y + far * ahead_y + aside * right_y
            if 0 <= cx < grid.shape[0] and 0 <= cy < grid.shape[1]:
                for channel in range(3):
                    out[channel, row, column] = grid[cx, cy, channel]
            else:
                out[0, row, column], out[1, row, column], out[2, row, column] = _WALL, _GREY, 0
    if not see_through_walls:
        _hide(out)
    out[0, side - 1, side // 2], out[1, side - 1, side // 2], out[2, side - 1, side // 2] = kind, colour, state


@compiled()
def _hide(out: NDArray[np.uint8]) -> None:
    """Set to `unseen` what walls and shut doors hide: light spreads row by row away from the agent, in each
    row first to the right and then to the left."""
    side = out.shape[1]
    seen = np.zeros((side, side), np.bool_)
    seen[side - 1, side // 2] = True
    for row in range(side - 1, -1, -1):
        for step in (1, -1):
            for i in range(side - 1):
                column = i if step == 1 else side - 1 - i
                kind, state = out[0, row, column], out[2, row, column]
                opaque = kind == _WALL or (kind == _DOOR and state != 0)
                if seen[row, column] and not opaque:
                    seen[row, column + step] = True
                    if row > 0:
                        seen[row - 1, column + step] = True
                        seen[row - 1, column] = True
    for row in range(side):
        for column in range(side):
            if not seen[row, column]:
                for channel in range(3):
                    out[channel, row, column] = _UNSEEN


@compiled()
def panorama(
    grid: NDArray[np.uint8],
    x: int,
    y: int,
    kind: int,
    colour: int,
    state: int,
    see_through_walls: bool,
    out: NDArray[np.uint8],
) -> None:
    """Write the views `[4, 3, V, V]` to the right, down, left and up, whichever way the agent faces."""
    for direction in range(4):
        view(grid, x, y, direction, kind, colour, state, see_through_walls, out[direction])
