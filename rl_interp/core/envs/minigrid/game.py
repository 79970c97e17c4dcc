"""A MiniGrid task as a `Game`: the package's rules, the suite's views."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import GameVector
from rl_interp.core.envs.minigrid.config import TILE, MiniGridConfig, make
from rl_interp.core.envs.minigrid.view import panorama, view

if TYPE_CHECKING:
    from minigrid.core.world_object import WorldObj

_EMPTY = (1, 0, 0)
_AHEAD_X, _AHEAD_Y = (1, 0, -1, 0), (0, 1, 0, -1)


def make_vector(config: MiniGridConfig, num_envs: int, workers: int) -> GameVector:
    """In this process whatever `workers` says: a step takes less than handing it over would."""
    return GameVector(config, [MiniGridGame(config, config.ids[i % len(config.ids)]) for i in range(num_envs)])


class MiniGridGame:
    """The package steps and lays out the grid; its slow `gen_obs` is not called.

    The grid's codes are kept in an array that follows each step: cells whose object is another than
    before, and the cell that was acted on, whose object may have changed its state.
    """

    def __init__(self, config: MiniGridConfig, env_id: str):
        self.config = config
        self.env = make(env_id)
        self.env.gen_obs = lambda: {}  # pyright: ignore[reportAttributeAccessIssue] - the views are ours

    def reset(self, seed: int) -> None:
        self.env.reset(seed=seed)
        self._objects = list(self.env.grid.grid)
        self.grid = np.empty((self.env.width, self.env.height, 3), np.uint8)
        for index in range(len(self._objects)):
            self._encode(index)

    def step(self, action: int) -> tuple[float, bool, bool]:
        env = self.env
        x, y = env.agent_pos
        ahead = int(x) + _AHEAD_X[env.agent_dir] + (int(y) + _AHEAD_Y[env.agent_dir]) * env.width
        _, reward, terminated, truncated, _ = env.step(action)
        objects = env.grid.grid
        if objects != self._objects:  # compares identities
            for index, (new, old) in enumerate(zip(objects, self._objects, strict=True)):
                if new is not old:
                    self._objects[index] = new
                    self._encode(index)
        self._encode(ahead)
        return float(reward), terminated, truncated

    def put(self, cell: tuple[int, int], thing: "WorldObj | None") -> None:
        """Have a thing, or nothing, in a cell (column, row)."""
        self.env.grid.set(*cell, thing)
        index = cell[0] + cell[1] * self.env.width
        self._objects[index] = thing
        self._encode(index)

    def take_codes(self, codes: NDArray[np.uint8]) -> None:
        """Follow the package's grid after it was changed as a whole; `codes [width, height, 3]` are its."""
        self._objects = list(self.env.grid.grid)
        self.grid[:] = codes

    def _encode(self, index: int) -> None:
        y, x = divmod(index, self.env.width)
        self.grid[x, y] = _code(self._objects[index])

    def symbols(self, out: NDArray[np.uint8]) -> None:
        """Write the egocentric view, `[3, 7, 7]`."""
        env = self.env
        x, y = env.agent_pos
        view(self.grid, int(x), int(y), int(env.agent_dir), *_code(env.carrying), env.see_through_walls, out)

    def observe(self, out: NDArray[np.uint8]) -> None:
        if self.config.observation == "symbols":
            self.symbols(out)
        else:
            out[:] = self.picture(TILE).transpose(2, 0, 1)

    def picture(self, tile: int) -> NDArray[np.uint8]:
        """The egocentric view for people, RGB `[7 · tile, 7 · tile, 3]`."""
        env = self.env
        grid, seen = env.gen_obs_grid()
        middle, last = env.agent_view_size // 2, env.agent_view_size - 1
        return grid.render(tile, (middle, last), agent_dir=3, highlight_mask=seen)

    def scene(self, out: NDArray[np.uint8]) -> None:
        env = self.env
        x, y = env.agent_pos
        panorama(self.grid, int(x), int(y), *_code(env.carrying), env.see_through_walls, out)

    def info(self) -> Mapping[str, Any]:
        return {}


def _code(thing: "WorldObj | None") -> tuple[int, int, int]:
    return _EMPTY if thing is None else thing.encode()
