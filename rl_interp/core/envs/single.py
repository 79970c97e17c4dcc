"""One game with ground truth: the `LabelledEnv` of environments written in Python."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import Game
from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.vector import EnvConfig


class LabelledGame(gymnasium.Env):
    """A game as a Gymnasium environment: uint8 observations, and `info` with `labels` beside the game's own."""

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"
    concepts: Mapping[str, Concept]

    def __init__(self, config: EnvConfig, game: Game):
        self.config, self.game = config, game
        self.action_names = config.action_names
        self.action_space = gymnasium.spaces.Discrete(len(self.action_names))
        self.observation_space = gymnasium.spaces.Box(0, 255, config.observation_shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.game.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._observe(), self._info()

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        reward, terminated, truncated = self.game.step(int(action))
        return self._observe(), reward, terminated, truncated, self._info()

    def _observe(self) -> NDArray[np.uint8]:
        out = np.empty(self.config.observation_shape, np.uint8)
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
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        self.game.reset(seed)
        at = 0
        for step in steps:
            for action in actions[at:step]:
                self.game.step(int(action))
            at = step
            yield step, self._observe()

    def hindsight(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {}
