"""MiniGrid's conventions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.observed import Observed
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.stats import plain, wilson

if TYPE_CHECKING:
    from minigrid.minigrid_env import MiniGridEnv

VIEW = 7
"""Cells along a side of the egocentric view."""
TILE = 8
"""Pixels along a side of a cell, in observations of pixels."""
ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
"""The package's. What a task makes of them is its own: Dynamic-Obstacles knows the first three, and takes every other
for `left`."""
_OTHER_NAMES = {"MiniGrid-Memory": {"pickup": "toggle2"}}
"""Actions that do what another does, in tasks whose ids begin so."""


@dataclass(frozen=True)
class MiniGridConfig(EnvConfig):
    """A MiniGrid task, or several, seen from the agent's place."""

    id: str = "MiniGrid-Unlock-v0"
    """Gymnasium id. Several, joined by commas, take turns: environment i plays the (i mod n)-th."""
    # Rows run from the farthest cells to the agent's own, which shows what it carries.
    observation: Literal["pixels", "symbols"] = "symbols"
    """Object, colour and state of each cell in view as categories, `[3, 7, 7]`, or their picture, `[3, 56, 56]`."""

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
        """Where tasks that take turns make different things of an action, all of them, as in `pickup/toggle2`."""
        names = {env_id: _actions(env_id) for env_id in self.ids}
        if len({*map(len, names.values())}) > 1:
            given = "; ".join(f"{env_id} has {', '.join(each)}" for env_id, each in names.items())
            raise UserError(f"tasks with other actions given ({given}); those that take turns must share them.")
        return tuple("/".join(dict.fromkeys(each)) for each in zip(*names.values(), strict=True))

    @property
    def observation_shape(self) -> tuple[int, ...]:
        side = VIEW if self.observation == "symbols" else VIEW * TILE
        return (3, side, side)

    @property
    def cell_pixels(self) -> tuple[int, int]:
        return (1 if self.observation == "symbols" else TILE), 0

    @property
    def observations_recur(self) -> bool:
        return True

    @property
    def scene_shape(self) -> tuple[int, ...]:
        """The panorama: the views in the four directions (Parisi et al. 2021, §3)."""
        return (4, 3, VIEW, VIEW)

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
    import minigrid  # noqa: F401 - registers the ids
    from minigrid.minigrid_env import MiniGridEnv

    if env_id not in gymnasium.registry:
        raise UserError(unknown("environment", env_id, [i for i in gymnasium.registry if i.startswith("MiniGrid-")]))
    env = gymnasium.make(env_id).unwrapped
    assert isinstance(env, MiniGridEnv)
    return env


def view_on_grid(env: "MiniGridEnv", tile: int) -> Observed:
    """Where the egocentric view lies on the picture of the whole grid, whose cells are `tile` pixels along a side."""
    left, top, right, bottom = env.get_view_exts()
    # The package turns what lies around the agent until the agent faces up.
    return Observed(top * tile, left * tile, bottom * tile, right * tile, turns=(3 - env.agent_dir) % 4)


@lru_cache
def _actions(env_id: str) -> tuple[str, ...]:
    """What those of a task do. It is begun once, so that one that can't be played is refused before a run is made.

    Raises:
        UserError: no such task, or the package lacks something that it needs.
    """
    from gymnasium.spaces import Discrete

    env = make(env_id)
    try:
        env.reset(seed=0)
    except (OSError, ImportError) as error:
        raise UserError(
            f"{env_id} can't be played: the installed minigrid {version('minigrid')} lacks what it needs ({error}); "
            "choose another task, or install the package with all of its files."
        ) from None
    others = next((names for beginning, names in _OTHER_NAMES.items() if env_id.startswith(beginning)), {})
    assert isinstance(env.action_space, Discrete)
    return tuple(others.get(name, name) for name in ACTIONS[: int(env.action_space.n)])
