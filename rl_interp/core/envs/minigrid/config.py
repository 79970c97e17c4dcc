"""MiniGrid's conventions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import GameVector
from rl_interp.core.envs.labelled import LabelledEnv
from rl_interp.core.envs.vector import EnvConfig, VectorEnv
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.stats import plain, wilson

if TYPE_CHECKING:
    from minigrid.minigrid_env import MiniGridEnv

VIEW = 7
"""Cells along a side of the egocentric view."""
TILE = 8
"""Pixels along a side of a cell, in observations of pixels."""


@dataclass(frozen=True)
class MiniGridConfig(EnvConfig):
    """A MiniGrid task, or several, seen from the agent's place."""

    id: str = "MiniGrid-Unlock-v0"
    """Gymnasium id. Several, joined by commas, take turns: environment i plays the (i mod n)-th."""
    observation: Literal["pixels", "symbols"] = "symbols"
    """Symbols: object, colour and state of each cell in view as categories, `[3, 7, 7]`; pixels: their picture
    `[3, 56, 56]`. Rows run from the farthest cells to the agent's own, which shows what it carries."""

    def __post_init__(self) -> None:
        if self.observation not in ("pixels", "symbols"):
            raise UserError(f"observation={self.observation!r} given; it is pixels or symbols.")

    @property
    def categories(self) -> tuple[int, ...] | None:
        """Objects, colours and states that a cell can have."""
        return (11, 6, 4) if self.observation == "symbols" else None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.id.split(","))

    @property
    def action_names(self) -> tuple[str, ...]:
        for env_id in self.ids:
            _known(env_id)
        return ("left", "right", "forward", "pickup", "drop", "toggle", "done")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        side = VIEW if self.observation == "symbols" else VIEW * TILE
        return (3, side, side)

    @property
    def cell_pixels(self) -> tuple[int, int]:
        return (1 if self.observation == "symbols" else TILE), 0

    @property
    def scene_shape(self) -> tuple[int, ...]:
        """The panorama: the views in the four directions (Parisi et al. 2021, §3)."""
        return (4, 3, VIEW, VIEW)

    def vector(self, num_envs: int, workers: int) -> VectorEnv:
        """In this process whatever `workers` says: a step takes less than handing it over would."""
        from rl_interp.core.envs.minigrid.game import MiniGridGame

        return GameVector(self, [MiniGridGame(self, self.ids[i % len(self.ids)]) for i in range(num_envs)])

    def labelled(self) -> LabelledEnv:
        from rl_interp.core.envs.minigrid.labelled import MiniGridLabelled

        return MiniGridLabelled(self)

    def picture(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Symbols as the package draws them; the agent's own cell shows the agent."""
        if self.observation == "pixels":
            return super().picture(obs)
        from minigrid.core.grid import Grid

        grid, _ = Grid.decode(obs.transpose(2, 1, 0))
        seen = obs[0].T != 0
        return grid.render(32, (VIEW // 2, VIEW - 1), agent_dir=3, highlight_mask=seen)

    def summary(self, returns: NDArray[np.float64], last: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        return {"success_rate": float((returns > 0).mean()), "success_rate_interval": plain(wilson(returns > 0))}


def make(env_id: str) -> "MiniGridEnv":
    """The package's environment, without its wrappers."""
    import gymnasium
    from minigrid.minigrid_env import MiniGridEnv

    _known(env_id)
    env = gymnasium.make(env_id).unwrapped
    assert isinstance(env, MiniGridEnv)
    return env


@lru_cache
def _known(env_id: str) -> None:
    import gymnasium
    import minigrid  # noqa: F401 - registers the ids

    if env_id not in gymnasium.registry:
        raise UserError(unknown("environment", env_id, [i for i in gymnasium.registry if i.startswith("MiniGrid-")]))
