"""Environments written in Python behind the vector convention: several games stepped one after another.

A game's episode is determined by its seed and its actions. So the state of many games is saved as
seeds and actions, small and readable, and brought back exactly by playing them again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.vector import EnvConfig, Step


class Game(Protocol):
    """One environment, whose episodes follow from seed and actions alone."""

    def reset(self, seed: int) -> None: ...

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Reward, terminated, truncated."""
        ...

    def observe(self, out: NDArray[np.uint8]) -> None:
        """Write the observation; looking changes nothing."""
        ...

    def scene(self, out: NDArray[np.uint8]) -> None:
        """Write what a change is taken of (see `VectorEnv.scene`)."""
        ...

    def info(self) -> Mapping[str, Any]:
        """What `Step.info` has for it: arrays of the same shapes at every step."""
        ...


class GameVector:
    """Games in this process, behind the suite's vector convention.

    Episode n of game i is seeded by `episode_seed(seed, i + offset, n)`.
    """

    def __init__(self, config: EnvConfig, games: Sequence[Game], offset: int = 0):
        self.config, self.games, self._offset = config, games, offset
        self.num_envs = len(games)
        self.observation_shape, self.action_names = config.observation_shape, config.action_names

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._seed = seed
        self._episode = [-1] * self.num_envs
        self._actions: list[list[int]] = [[] for _ in self.games]
        self._ended = np.zeros(self.num_envs, bool)
        for i in range(self.num_envs):
            self._begin(i)
        return self._observe()

    def _begin(self, i: int) -> None:
        self._episode[i] += 1
        self._actions[i] = []
        self.games[i].reset(episode_seed(self._seed, i + self._offset, self._episode[i]))

    def _observe(self) -> NDArray[np.uint8]:
        obs = np.empty((self.num_envs, *self.observation_shape), np.uint8)
        for i, game in enumerate(self.games):
            game.observe(obs[i])
        return obs

    def send(self, actions: NDArray[np.int64]) -> None:
        self._sent = actions

    def recv(self) -> Step:
        first, reward = self._ended, np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for i, game in enumerate(self.games):
            if first[i]:
                self._begin(i)
            else:
                action = int(self._sent[i])
                reward[i], terminated[i], truncated[i] = game.step(action)
                self._actions[i].append(action)
        self._ended = terminated | truncated
        infos = [game.info() for game in self.games]
        info = {name: np.stack([each[name] for each in infos]) for name in infos[0]}
        return Step(self._observe(), reward, terminated, truncated, first, info)

    def scene(self) -> NDArray[np.uint8]:
        scenes = np.empty((self.num_envs, *self.config.scene_shape), np.uint8)
        for i, game in enumerate(self.games):
            game.scene(scenes[i])
        return scenes

    def state(self) -> dict[str, Any]:
        """What `restore` needs: seeds, and the actions of the episodes under way."""
        return {
            "seed": self._seed,
            "episode": list(self._episode),
            "actions": [list(actions) for actions in self._actions],
            "ended": self._ended.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Play the episodes under way again up to where `state` was taken; returns the observations `[N, ...]`."""
        self._seed = state["seed"]
        self._episode = [number - 1 for number in state["episode"]]
        self._actions = [[] for _ in self.games]
        self._ended = np.array(state["ended"])
        for i, game in enumerate(self.games):
            self._begin(i)
            for action in state["actions"][i]:
                game.step(action)
            self._actions[i] = list(state["actions"][i])
        return self._observe()

    def close(self) -> None:
        pass


def episode_seed(seed: int, game: int, episode: int) -> int:
    """A 31-bit seed of its own for every episode of every game under every seed."""
    return int(np.random.SeedSequence([seed, game, episode]).generate_state(1)[0] >> 1)
