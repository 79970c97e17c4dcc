"""One board with its ground truth."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rl_interp.core.envs.sokoban.edits as edits
from rl_interp.core.envs.editing import EditableGame, Editing
from rl_interp.core.envs.labelled import Cells
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.draw import picture
from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.sokoban.truth import CONCEPTS, cells, labels
from rl_interp.core.envs.sokoban.vector import SokobanVector
from rl_interp.core.errors import UserError, unknown


class SokobanGame:
    """One board as a `Game`."""

    def __init__(self, config: SokobanConfig):
        self.config, self.vector = config, SokobanVector(config, 1)
        self.vector.reset(0)

    def reset(self, seed: int) -> None:
        self._obs = self.vector.start(np.array([seed]), np.array([0]))
        self._info = self.vector.info()

    def set_state(self, level: Levels, steps: int) -> None:
        self._obs = self.vector.set_state(level, steps)
        self._info = self.vector.info()

    def keep(self) -> Callable[[], None]:
        """What brings back the state as it is now."""
        state, obs, info = self.vector.state(), self._obs, self._info

        def bring_back() -> None:
            self.vector.restore(state)
            self._obs, self._info = obs, info

        return bring_back

    def step(self, action: int) -> tuple[float, bool, bool]:
        self.vector.send(np.array([action]))
        step = self.vector.recv()
        self._obs, self._info = step.obs, step.info
        return float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0])

    def observe(self, out: NDArray[np.uint8]) -> None:
        out[:] = self._obs[0]

    def scene(self, out: NDArray[np.uint8]) -> None:
        self.observe(out)

    def info(self) -> Mapping[str, Any]:
        return {name: values[0] for name, values in self._info.items()}


class SokobanLabelled(EditableGame):
    """One board, equal to its vector form in every observation; `gymnasium.make("rl_interp/Sokoban-v0")`."""

    concepts = CONCEPTS
    game: SokobanGame

    def __init__(self, config: SokobanConfig):
        super().__init__(config, SokobanGame(config))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """A level by chance, or with `options={"level": "unfiltered:17"}` that of the set, by its id.

        Raises:
            UserError: no level of that id.
        """
        if "level" in (options or {}):
            seed = self._seed_of((options or {})["level"])
        return super().reset(seed=seed)

    def _seed_of(self, level_id: Any) -> int:
        levels = self.game.vector.choice.set
        if levels is None:
            raise UserError(f"level {level_id!r} given, and these are generated: give a seed, or a set of levels.")
        if level_id not in levels.ids:
            raise UserError(unknown("level", level_id, levels.ids))
        return levels.ids.index(level_id)

    def set_state(self, level: Levels, steps: int = 0) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Go on from a board, such as `env.level` changed, after so many steps."""
        self.game.set_state(level, steps)
        return self._observe(), self._info()

    def editing(self) -> Editing:
        return edits.editing(self.board)

    def make(self, edit: str) -> None:
        board = edits.edited(self.board, edit)
        self.game.set_state(Levels(board[None], ("edited",)), int(self.game.info()["steps"]))

    def keep(self) -> Callable[[], None]:
        return self.game.keep()

    @property
    def board(self) -> NDArray[np.uint8]:
        """`[H, W]`: the board as it stands, each cell an index of `KINDS`."""
        return self.game.vector.boards[0]

    @property
    def level_id(self) -> str:
        """What the level is called that is being played."""
        return self.game.vector.choice.level_id(int(self.game.info()["level"]))

    def labels(self) -> dict[str, float]:
        return labels(self.board, int(self.game.info()["steps"]))

    def cells(self) -> Cells:
        return cells(self.board)

    def render(self) -> NDArray[np.uint8]:
        """The board in tiles of 32 pixels, `[32 H, 32 W, 3]`."""
        return picture(self.board)


def make(**options: Any) -> SokobanLabelled:
    """What Gymnasium calls: `options` are those of a `SokobanConfig`."""
    options.pop("render_mode", None)  # there is one
    return SokobanLabelled(SokobanConfig(**options))
