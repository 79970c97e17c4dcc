"""Mazes as values: to draw at random, look at, edit and solve, many at once.

Shape letters: N mazes; cells are (row, column) from the top left of the 25×25 world.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import rl_interp.core.envs.maze.draw as draw
from rl_interp.core.envs.maze.config import WORLD, MazeConfig
from rl_interp.core.envs.maze.layout import NOWHERE, decision_square, distances, lay_out
from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class Mazes:
    """N mazes, each with a mouse and perhaps a cheese.

    Raises:
        UserError: a mouse or a cheese on a wall or outside, or a cheese that can't be reached.
    """

    walls: NDArray[np.bool_]
    """`[N, 25, 25]`."""
    side: NDArray[np.int64]
    """`[N]`: of the square, in the middle of the world, that the maze fills. Its top right is the corner."""
    mouse: NDArray[np.int64]
    """`[N, 2]`."""
    cheese: NDArray[np.int64]
    """`[N, 2]`; (-1, -1) where there is none."""

    def __post_init__(self) -> None:
        wanted = {"walls": (len(self), WORLD, WORLD), "side": (len(self),), "mouse": (len(self), 2)}
        for name, shape in (wanted | {"cheese": (len(self), 2)}).items():
            if getattr(self, name).shape != shape:
                raise UserError(f"{name} {getattr(self, name).shape} given for {len(self)} mazes; it must be {shape}.")
        there = (self.cheese != NOWHERE).any(1)
        self._must_be_free("mouse", self.mouse, np.ones(len(self), bool))
        self._must_be_free("cheese", self.cheese, there)
        far = there & (self._at(self.distances(self.mouse), np.where(there[:, None], self.cheese, 0)) == NOWHERE)
        if far.any():
            i = int(np.argmax(far))
            raise UserError(
                f"maze {i} has no way from its mouse {_cell(self.mouse[i])} to its cheese {_cell(self.cheese[i])}: "
                "open a wall between them."
            )

    def _must_be_free(self, name: str, cells: NDArray[np.int64], there: NDArray[np.bool_]) -> None:
        outside = there & ((cells < 0) | (cells >= WORLD)).any(1)
        blocked = there & self._at(self.walls, np.clip(cells, 0, WORLD - 1))
        for bad, what in ((outside, f"outside the world of {WORLD} x {WORLD} cells"), (blocked, "on a wall")):
            if bad.any():
                i = int(np.argmax(bad))
                raise UserError(f"the {name} of maze {i} is at {_cell(cells[i])}, {what}: move it to a free cell.")

    @staticmethod
    def draw(config: MazeConfig, seeds: Sequence[int] | NDArray[np.integer]) -> "Mazes":
        """The mazes that episodes of these seeds start from."""
        count = len(seeds)
        mazes = Mazes.blank(count)
        for i in range(count):
            mazes.side[i] = lay_out(
                int(seeds[i]), config.min_side, config.max_side, config.region, config.start == "anywhere",
                config.cheese, config.decision,
                mazes.walls[i], mazes.mouse[i], mazes.cheese[i],
            )  # fmt: skip
        return mazes

    @staticmethod
    def blank(count: int) -> "Mazes":
        """Worlds without walls or cheese, the mouse at the top left."""
        return Mazes(
            np.zeros((count, WORLD, WORLD), bool),
            np.full(count, WORLD),
            np.zeros((count, 2), np.int64),
            np.full((count, 2), NOWHERE),
        )

    def __len__(self) -> int:
        return len(self.walls)

    def __getitem__(self, index: slice | NDArray[np.integer] | NDArray[np.bool_]) -> "Mazes":
        """Some of them; with repeated indices, copies."""
        return Mazes(self.walls[index], self.side[index], self.mouse[index], self.cheese[index])

    def edit(
        self,
        walls: NDArray[np.bool_] | None = None,
        mouse: NDArray[np.int64] | Sequence[int] | None = None,
        cheese: NDArray[np.int64] | Sequence[int] | None = None,
    ) -> "Mazes":
        """Copies with other walls, mice or cheeses: `[N, ...]`, or one for all. `cheese=(-1, -1)` takes it away."""
        given = {"walls": walls, "mouse": mouse, "cheese": cheese}
        new = {
            name: np.broadcast_to(np.asarray(value), getattr(self, name).shape).copy()
            for name, value in given.items()
            if value is not None
        }
        return replace(self, **new)

    @property
    def corner(self) -> NDArray[np.int64]:
        """`[N, 2]`: the top right cell of each maze."""
        start = (WORLD - self.side) // 2
        return np.stack([start, start + self.side - 1], 1)

    @property
    def decision(self) -> NDArray[np.int64]:
        """`[N, 2]`: the decision square, where the mouse's way to the cheese leaves that to the corner; (-1, -1) where
        one lies on the way to the other."""
        found = [
            decision_square(self.walls[i], self.mouse[i], self.cheese[i], *self.corner[i]) for i in range(len(self))
        ]
        return np.array(found, np.int64).reshape(-1, 2)

    def distances(self, to: NDArray[np.int64]) -> NDArray[np.int16]:
        """`[N, 25, 25]`: steps from every cell to the cell `to [N, 2]`; -1 in walls and where there is no way."""
        out = np.empty(self.walls.shape, np.int16)
        for i in range(len(self)):
            distances(self.walls[i], to[i, 0], to[i, 1], out[i])
        return out

    def observations(self) -> NDArray[np.uint8]:
        """`[N, 3, 64, 64]`: what an agent sees."""
        out = np.empty((len(self), 3, draw.PIXELS, draw.PIXELS), np.uint8)
        for i in range(len(self)):
            draw.draw(self.walls[i], self.mouse[i], self.cheese[i], out[i])
        return out

    def picture(self, index: int = 0) -> NDArray[np.uint8]:
        """One of them for people, RGB `[512, 512, 3]`: the observation at eight times its size, with a mouse and a
        cheese."""
        return draw.picture(self.walls[index], self.mouse[index], self.cheese[index])

    def _at(self, maps: NDArray, cells: NDArray[np.int64]) -> NDArray:
        """`[N]`: a map's value at one cell of each maze."""
        return maps[np.arange(len(self)), cells[:, 0], cells[:, 1]]


def _cell(cell: NDArray[np.int64]) -> str:
    return f"({cell[0]}, {cell[1]})"
