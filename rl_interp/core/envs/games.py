"""Environments written in Python: several games stepped one after another, and one with ground truth.

A game's episode is determined by its seed and its actions. So the state of many games is saved as
seeds and actions, small and readable, and brought back exactly by playing them again.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.envs.vector import Step


class Game(Protocol):
    """One environment, whose episodes follow from seed and actions alone."""

    def reset(self, seed: int) -> None: ...

    def step(self, action: Any) -> tuple[float, bool, bool]:
        """Reward, terminated, truncated, for an int, or float32 `[D]` where actions are continuous."""
        ...

    def observe(self, out: NDArray[Any]) -> None:
        """Write the observation; looking changes nothing."""
        ...

    def scene(self, out: NDArray[Any]) -> None:
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
        self._dtype = config.observation_dtype
        self._action = int if config.action_kind == "discrete" else _floats

    def reset(self, seed: int) -> NDArray[Any]:
        self._seed = seed
        self._episode = [-1] * self.num_envs
        self._actions: list[list[Any]] = [[] for _ in self.games]
        self._ended = np.zeros(self.num_envs, bool)
        for i in range(self.num_envs):
            self._begin(i)
        return self._observe()

    def _begin(self, i: int) -> None:
        self._episode[i] += 1
        self._actions[i] = []
        self.games[i].reset(episode_seed(self._seed, i + self._offset, self._episode[i]))

    def _observe(self) -> NDArray[Any]:
        obs = np.empty((self.num_envs, *self.observation_shape), self._dtype)
        for i, game in enumerate(self.games):
            game.observe(obs[i])
        return obs

    def send(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        self._sent = actions

    def recv(self) -> Step:
        first, reward = self._ended, np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for i, game in enumerate(self.games):
            if first[i]:
                self._begin(i)
            else:
                action = self._action(self._sent[i])
                reward[i], terminated[i], truncated[i] = game.step(action)
                self._actions[i].append(action)
        self._ended = terminated | truncated
        infos = [game.info() for game in self.games]
        info = {name: np.stack([each[name] for each in infos]) for name in infos[0]}
        return Step(self._observe(), reward, terminated, truncated, first, info)

    def scene(self) -> NDArray[Any]:
        scenes = np.empty((self.num_envs, *self.config.scene_shape), self._dtype)
        for i, game in enumerate(self.games):
            game.scene(scenes[i])
        return scenes

    def state(self) -> dict[str, Any]:
        """What `restore` needs: seeds, and the actions of the episodes under way."""
        return {
            "seed": self._seed,
            "episode": list(self._episode),
            "actions": [np.asarray(actions).tolist() for actions in self._actions],
            "ended": self._ended.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> NDArray[Any]:
        """Play the episodes under way again up to where `state` was taken; returns the observations `[N, ...]`."""
        self._seed = state["seed"]
        self._episode = [number - 1 for number in state["episode"]]
        self._actions = [[] for _ in self.games]
        self._ended = np.array(state["ended"])
        for i, game in enumerate(self.games):
            self._begin(i)
            self._actions[i] = [self._action(action) for action in state["actions"][i]]
            for action in self._actions[i]:
                game.step(action)
        return self._observe()

    def close(self) -> None:
        pass


def _floats(action: Any) -> NDArray[np.float32]:
    return np.array(action, np.float32)


class LabelledGame(gymnasium.Env):
    """A game as a Gymnasium environment with the suite's observations, and `info` with `labels` beside the game's."""

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"
    concepts: Mapping[str, Concept]

    def __init__(self, config: EnvConfig, game: Game):
        self.config, self.game = config, game
        self.action_names = config.action_names
        discrete, pixels = config.action_kind == "discrete", config.observation_dtype is np.uint8
        count, bound = len(self.action_names), 255 if pixels else np.inf
        self.action_space = (
            gymnasium.spaces.Discrete(count) if discrete else gymnasium.spaces.Box(-np.inf, np.inf, (count,))
        )
        self.observation_space = gymnasium.spaces.Box(
            0 if pixels else -np.inf, bound, config.observation_shape, config.observation_dtype
        )
        self._action = int if discrete else _floats

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.game.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        reward, terminated, truncated = self.game.step(self._action(action))
        return self._observe(), reward, terminated, truncated, self._info()

    def _observe(self) -> NDArray[Any]:
        out = np.empty(self.config.observation_shape, self.config.observation_dtype)
        self.game.observe(out)
        return out

    def _info(self) -> dict[str, Any]:
        return {"labels": self.labels(), **self.game.info()}

    @abstractmethod
    def labels(self) -> dict[str, float]:
        """Each concept's value now."""

    @abstractmethod
    def cells(self) -> Cells:
        """What is true of each cell in view now."""

    @abstractmethod
    def render(self) -> NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the agent sees, as a picture for people, uint8 RGB `[H, W, 3]`."""

    def replay(
        self, seed: int, actions: Sequence[int] | NDArray[np.integer], steps: Collection[int]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        self.game.reset(seed)
        at = 0
        for step in steps:
            for action in actions[at:step]:
                self.game.step(self._action(action))
            at = step
            yield step, self._observe()

    def hindsight(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {}
