"""Many boards stepped together, as arrays.

At most three cells change in a step, so only those are drawn again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rl_interp.core.envs.sokoban.rules as rules
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.guidance import judge
from rl_interp.core.envs.sokoban.levels import Levels, boxes_left, players
from rl_interp.core.envs.vector import Step
from rl_interp.core.errors import UserError


class SokobanVector:
    """N boards behind the suite's vector convention.

    Of a set of levels each is played once before any is played again. `Step.info` has each episode's `seed`, from which
    `choice.Choice` gives its level; `level`, its number in the set (of a generated level, the seed; -1 where the board
    was set); `steps` taken, `boxes_left` off their targets, and where the `player` is.
    """

    def __init__(self, config: SokobanConfig, num_envs: int, workers: int = 0):
        """In this process whatever `workers` says: a step takes less than handing it over would."""
        self.config, self.num_envs, self.observation_shape = config, num_envs, config.observation_shape
        self.action_names = config.action_names
        self.choice = Choice(config)
        self._boards = np.zeros((num_envs, config.rows, config.columns), np.uint8)
        self._obs = np.empty((num_envs, *self.observation_shape), np.uint8)
        self._players = np.zeros((num_envs, 2), np.int64)
        self._level, self._seeds, self._left, self._steps, self._limit, self._episode = (
            np.zeros(num_envs, np.int64) for _ in range(6)
        )
        self._ended, self._seed = np.ones(num_envs, bool), 0

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._seed = seed
        self._episode[:] = -1
        self._ended[:] = True
        self._begin()
        return self._obs.copy()

    def _begin(self) -> None:
        """Start the next episode where one has ended."""
        ended = np.flatnonzero(self._ended)
        self._episode[ended] += 1
        for i in ended:
            random = episode_seed(self._seed, int(i), int(self._episode[i]))
            self._seeds[i] = self.choice.seed(random, self._seed, int(self._episode[i]) * self.num_envs + int(i))
        self.start(self._seeds[ended], ended)

    def start(self, seeds: NDArray[np.int64], where: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Begin the episodes of these seeds in some of the environments; returns all observations."""
        levels, limits = self.choice.levels(seeds), self.choice.limits(seeds)
        self._put(where, levels[0])
        self._seeds[where], self._level[where], self._limit[where] = seeds, levels[1], limits
        return self._obs.copy()

    def set_state(self, levels: Levels, steps: int = 0) -> NDArray[np.uint8]:
        """Go on from N given boards after so many steps, with the largest limit; returns observations.

        The info's `seed` and `level` are then -1. Later episodes are drawn again.

        Raises:
            UserError: another number of boards, or other sizes.
        """
        if levels.boards.shape != self._boards.shape:
            raise UserError(f"boards {levels.boards.shape} given for {self._boards.shape}; give one for each board.")
        self._put(np.arange(self.num_envs), levels.boards)
        self._seeds[:], self._level[:], self._limit[:], self._steps[:] = -1, -1, self.config.max_steps, steps
        return self._obs.copy()

    def _put(self, where: NDArray[np.integer], boards: NDArray[np.uint8]) -> None:
        self._boards[where], self._players[where] = boards, players(boards)
        self._obs[where] = rules.observe(boards, self.observation_shape[0])
        self._left[where] = boxes_left(boards)
        self._steps[where], self._ended[where] = 0, False

    @property
    def boards(self) -> NDArray[np.uint8]:
        """`[N, H, W]`: the boards as they stand, each cell an index of `KINDS`."""
        return self._boards.copy()

    def send(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        self._sent = actions

    def recv(self) -> Step:
        first, reward = self._ended, np.zeros(self.num_envs, np.float32)
        before = self._boards.copy() if self.config.guidance else None
        rules.step(self._sent, first, self._boards, self._players, self._left, self._steps, reward, self._obs)
        terminated = ~first & (self._left == 0)
        if before is not None:
            nearer, dead = judge(before, self._boards)
            reward += self.config.guidance * nearer
            terminated |= dead
        truncated = ~first & ~terminated & (self._steps >= self._limit)
        if first.any():
            self._ended = first.copy()
            self._begin()
        self._ended = terminated | truncated
        return Step(self._obs.copy(), reward, terminated, truncated, first, self.info())

    def info(self) -> dict[str, NDArray[Any]]:
        """Of the boards as they stand, as in `Step.info`."""
        info = {"seed": self._seeds, "level": self._level, "steps": self._steps, "boxes_left": self._left}
        return {name: values.copy() for name, values in (info | {"player": self._players}).items()}

    def scene(self) -> NDArray[np.uint8]:
        return self._obs.copy()

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain numbers."""
        return {"seed": self._seed, "arrays": {name: getattr(self, name).tolist() for name in _SAVED}}

    def restore(self, state: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Go on from where `state` was taken; returns the observations `[N, ...]`."""
        self._seed = state["seed"]
        for name, values in state["arrays"].items():
            array = getattr(self, name)
            array[...] = np.array(values, array.dtype).reshape(array.shape)
        self._obs[:] = rules.observe(self._boards, self.observation_shape[0])
        return self._obs.copy()

    def close(self) -> None:
        pass


_SAVED = ("_boards", "_players", "_level", "_seeds", "_left", "_steps", "_limit", "_episode", "_ended")
