"""A MiniGrid task with its ground truth."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import rl_interp.core.envs.minigrid.edits as edits
from rl_interp.core.envs.editing import EditableGame, Editing
from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.minigrid.config import VIEW, MiniGridConfig, view_on_grid
from rl_interp.core.envs.minigrid.game import MiniGridGame
from rl_interp.core.envs.observed import Observed

_THINGS = {"wall": 2, "door": 4, "key": 5, "ball": 6, "box": 7, "goal": 8, "lava": 9}
_SHUT, _LOCKED = 1, 2
_TILE = 32
"""Pixels along a side of a cell, in pictures for people."""

CONCEPTS: dict[str, Concept] = {
    **{f"{name}_ahead": Concept(f"a {name} is in the cell in front of the agent") for name in _THINGS},
    **{f"{name}_seen": Concept(f"a {name} is in view") for name in _THINGS if name != "wall"},
    "locked_door_seen": Concept("a locked door is in view"),
    "open_door_seen": Concept("an open door is in view"),
    "carries_key": Concept("the agent carries a key"),
    "carries": Concept("the agent carries something"),
    "door_open": Concept("some door of the grid is open"),
    "controllable": Concept("actions act, as they always do here"),
    "x": Concept("the agent's column", "number"),
    "y": Concept("the agent's row", "number"),
    "direction": Concept("where it faces: 0 right, 1 down, 2 left, 3 up", "number"),
    "steps_left": Concept("decisions until the episode is cut off", "number"),
}
"""The concepts of every task; one that a task has nothing of is never true there."""


class MiniGridLabelled(EditableGame):
    """The first task of a `MiniGridConfig`, equal to its vector form in every observation."""

    concepts = CONCEPTS
    game: MiniGridGame

    def __init__(self, config: MiniGridConfig):
        super().__init__(config, MiniGridGame(config, config.ids[0]))

    def labels(self) -> dict[str, float]:
        env, symbols = self.game.env, np.empty((3, VIEW, VIEW), np.uint8)
        self.game.symbols(symbols)
        ahead, kinds, states = symbols[0, -2, symbols.shape[2] // 2], symbols[0].copy(), symbols[2]
        kinds[-1, symbols.shape[2] // 2] = 0  # the agent's own cell shows what it carries
        carried = env.carrying.type if env.carrying else None
        doors = self.game.grid[self.game.grid[..., 0] == _THINGS["door"]]
        in_view = kinds == _THINGS["door"]
        return {
            **{f"{name}_ahead": float(ahead == code) for name, code in _THINGS.items()},
            **{f"{name}_seen": float((kinds == code).any()) for name, code in _THINGS.items() if name != "wall"},
            "locked_door_seen": float((in_view & (states == _LOCKED)).any()),
            "open_door_seen": float((in_view & (states < _SHUT)).any()),
            "carries_key": float(carried == "key"),
            "carries": float(carried is not None),
            "door_open": float((doors[:, 2] < _SHUT).any()),
            "controllable": 1.0,
            "x": float(env.agent_pos[0]),
            "y": float(env.agent_pos[1]),
            "direction": float(env.agent_dir),
            "steps_left": float(env.max_steps - env.step_count),
        }

    def cells(self) -> Cells:
        """The cells of the egocentric view, without the agent's own, which shows what is carried."""
        from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

        symbols = np.empty((3, VIEW, VIEW), np.uint8)
        self.game.symbols(symbols)
        kinds, colours = symbols[:2].astype(np.int64)
        colours[np.isin(kinds, [OBJECT_TO_IDX[name] for name in ("unseen", "empty", "wall")])] = -1
        kinds[-1, VIEW // 2] = colours[-1, VIEW // 2] = -1
        return {"object": (kinds, tuple(OBJECT_TO_IDX)), "colour": (colours, tuple(COLOR_TO_IDX))}

    def render(self) -> NDArray[np.uint8]:
        """The egocentric view."""
        return self.game.picture(_TILE)

    def survey(self) -> tuple[NDArray[np.uint8], Observed]:
        """The whole grid from above, and where in it the agent looks."""
        return self.game.env.get_frame(tile_size=_TILE, highlight=False), view_on_grid(self.game.env, _TILE)

    def editing(self) -> Editing:
        return edits.editing(self.game, _TILE)

    def make(self, edit: str) -> None:
        edits.make(self.game, edit)

    def keep(self) -> Callable[[], None]:
        return edits.keep(self.game)
