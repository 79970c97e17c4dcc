"""Mazes drawn: for agents, two pixels a cell, and for people, the same picture at eight times its size."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.maze.config import CELL, MARGIN, WORLD

PIXELS = 64
ENLARGED = 8
"""How much larger the picture for people is."""

WALL, FLOOR = (54, 44, 60), (214, 200, 178)
MOUSE, CHEESE = (88, 104, 196), (248, 190, 24)
_COLOURS = np.array([FLOOR, WALL, CHEESE, MOUSE], np.uint8)


@compiled()
def draw_cell(
    walls: NDArray[np.bool_],
    mouse: NDArray[np.int64],
    cheese: NDArray[np.int64],
    row: int,
    column: int,
    out: NDArray[np.uint8],
) -> None:
    """Draw one cell into an observation `[3, 64, 64]`."""
    kind = 1 if walls[row, column] else 0
    if row == cheese[0] and column == cheese[1]:
        kind = 2
    if row == mouse[0] and column == mouse[1]:
        kind = 3
    top, left = MARGIN + CELL * row, MARGIN + CELL * column
    for channel in range(3):
        for y in range(top, top + CELL):
            for x in range(left, left + CELL):
                out[channel, y, x] = _COLOURS[kind, channel]


@compiled()
def draw(walls: NDArray[np.bool_], mouse: NDArray[np.int64], cheese: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Draw a maze into an observation `[3, 64, 64]`."""
    for channel in range(3):
        out[channel] = _COLOURS[1, channel]
    for row in range(WORLD):
        for column in range(WORLD):
            draw_cell(walls, mouse, cheese, row, column, out)


def picture(walls: NDArray[np.bool_], mouse: NDArray[np.int64], cheese: NDArray[np.int64]) -> NDArray[np.uint8]:
    """RGB `[512, 512, 3]`."""
    nowhere = np.full(2, -1)
    observation = np.empty((3, PIXELS, PIXELS), np.uint8)
    draw(walls, nowhere, nowhere, observation)
    large = observation.transpose(1, 2, 0).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    for cell, sprite in ((cheese, _cheese()), (mouse, _mouse())):
        if cell[0] >= 0:
            top, left = ((MARGIN + CELL * cell) * ENLARGED).tolist()
            side = CELL * ENLARGED
            patch = large[top : top + side, left : left + side]
            patch[:] = np.round(sprite[..., 3:] * sprite[..., :3] + (1 - sprite[..., 3:]) * patch)
    return large


@cache
def _mouse() -> NDArray[np.float64]:
    """A face with ears."""
    sprite = _nothing()
    for x, y, radius, colour in (
        (7.5, 9.5, 5.5, MOUSE),
        (3.0, 4.0, 2.6, MOUSE),
        (12.0, 4.0, 2.6, MOUSE),
        (5.6, 8.2, 1.0, _EYE),
        (9.4, 8.2, 1.0, _EYE),
        (7.5, 11.5, 1.1, _NOSE),
    ):
        sprite[_disc(x, y, radius)] = (*colour, 1)
    return sprite


@cache
def _cheese() -> NDArray[np.float64]:
    """A wedge with holes."""
    sprite = _nothing()
    y, x = np.mgrid[: len(sprite), : len(sprite)]
    wedge = (y >= 13 - 0.75 * x) & (y <= 13) & (x >= 1) & (x <= 14)
    sprite[wedge] = (*CHEESE, 1)
    for hole in (_disc(11.5, 7.5, 1.6), _disc(8.0, 11.0, 1.4), _disc(12.5, 11.8, 1.0)):
        sprite[wedge & hole] = (*_HOLE, 1)
    return sprite


_EYE, _NOSE, _HOLE = (20, 20, 40), (240, 150, 160), (196, 132, 10)


def _nothing() -> NDArray[np.float64]:
    """A cell's RGB and opacity, `[16, 16, 4]`."""
    return np.zeros((CELL * ENLARGED, CELL * ENLARGED, 4))


def _disc(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: CELL * ENLARGED, : CELL * ENLARGED]
    return np.hypot(columns - x, rows - y) <= radius
