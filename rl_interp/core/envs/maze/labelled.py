"""A maze with its ground truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import LabelledGame
from rl_interp.core.envs.labelled import Cells
from rl_interp.core.envs.maze.config import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import CONCEPTS, cells, labels
from rl_interp.core.envs.maze.vector import MazeVector
from rl_interp.core.errors import UserError


class MazeGame:
    """One maze as a `Game`."""

    def __init__(self, config: MazeConfig):
        self.config, self.vector = config, MazeVector(config, 1)
        self.vector.reset(0)

    def reset(self, seed: int) -> None:
        self.start(Mazes.draw(self.config, [seed]))

    def start(self, maze: Mazes) -> None:
        self._obs = self.vector.start(maze)

    def step(self, action: int) -> tuple[float, bool, bool]:
        self.vector.send(np.array([action]))
        step = self.vector.recv()
        self._obs = step.obs
        return float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0])

    def observe(self, out: NDArray[np.uint8]) -> None:
        out[:] = self._obs[0]

    def scene(self, out: NDArray[np.uint8]) -> None:
        self.observe(out)

    def info(self) -> Mapping[str, Any]:
        return {}


class MazeLabelled(LabelledGame):
    """One maze, equal to its vector form in every observation; `gymnasium.make("rl_interp/Maze-v0")`."""

    concepts = CONCEPTS
    game: MazeGame

    def __init__(self, config: MazeConfig):
        super().__init__(config, MazeGame(config))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """A random maze, or with `options={"maze": Mazes}` that one.

        Raises:
            UserError: other than one maze.
        """
        seen = super().reset(seed=seed)
        maze = (options or {}).get("maze")
        if maze is None:
            return seen
        if not isinstance(maze, Mazes):
            raise UserError(f"options={{'maze': {type(maze).__name__}}} given; it must be a Mazes of one maze.")
        self.game.start(maze)
        return self._observe(), self._info()

    @property
    def maze(self) -> Mazes:
        """The maze as it stands; `reset` takes what its `edit` returns."""
        return self.game.vector.mazes

    def labels(self) -> dict[str, float]:
        return labels(self.maze)[0]

    def cells(self) -> Cells:
        return {name: (classes[0], names) for name, (classes, names) in cells(self.maze).items()}

    def render(self) -> NDArray[np.uint8]:
        """The observation at eight times its size, `[512, 512, 3]`, with a mouse and a cheese."""
        return self.maze.picture()


def make(**options: Any) -> MazeLabelled:
    """What Gymnasium calls: `options` are those of a `MazeConfig`."""
    options.pop("render_mode", None)  # there is one
    return MazeLabelled(MazeConfig(**options))
