"""Crafter with its ground truth."""

from collections.abc import Callable
from typing import Any

import numpy as np
from crafter import constants, objects
from numpy.typing import NDArray

import rl_interp.core.envs.crafter.edits as edits
from rl_interp.core.envs.crafter.config import CrafterConfig
from rl_interp.core.envs.crafter.game import CrafterGame
from rl_interp.core.envs.crafter.render import Renderer
from rl_interp.core.envs.editing import EditableGame, Editing
from rl_interp.core.envs.labelled import Cells, Concept

_ITEMS: tuple[str, ...] = tuple(constants.items)  # pyright: ignore[reportAttributeAccessIssue]
_RESTED: int = constants.items["energy"]["max"]  # pyright: ignore[reportAttributeAccessIssue]
_COLUMNS, _ROWS = 9, 7
_MATERIALS, _CREATURES = edits.MATERIALS, edits.CREATURES

CONCEPTS: dict[str, Concept] = {
    **{name: Concept(f"how much {name.replace('_', ' ')} the player has", "number") for name in _ITEMS},
    **{f"{name}_seen": Concept(f"{name} is in view") for name in (*_MATERIALS, *_CREATURES)},
    **{f"{name}_ahead": Concept(f"{name} is in the cell that the player faces") for name in (*_MATERIALS, *_CREATURES)},
    "enemy_near": Concept("a zombie or skeleton is at most 3 cells away"),
    "sleeping": Concept("the player sleeps"),
    "controllable": Concept("actions act: the player is awake, or wakes now because it is rested"),
    "dark": Concept("daylight is below a half"),
    "daylight": Concept("from 0 to 1", "number"),
    "x": Concept("the player's column, of 64", "number"),
    "y": Concept("the player's row, of 64", "number"),
    "unlocked": Concept("achievements unlocked in this episode, of 22", "number"),
}


class CrafterLabelled(EditableGame):
    """One Crafter world, equal to its vector form in every observation."""

    concepts = CONCEPTS
    game: CrafterGame

    def __init__(self, config: CrafterConfig):
        super().__init__(config, CrafterGame(config))
        self._large = Renderer(unit=42)

    def labels(self) -> dict[str, float]:
        world, player = self.game.env._world, self.game.env._player
        x, y = (int(each) for each in player.pos)
        left, right, top, bottom = max(0, x - 4), x + 5, max(0, y - 3), y + 4
        seen = {world._mat_names[code] for code in np.unique(world._mat_map[left:right, top:bottom])}
        indices = world._obj_map[left:right, top:bottom]
        things = [world._objects[index] for index in indices[indices > 0]]
        material, thing = world[player.pos + np.array(player.facing)]
        enemies = [each for each in things if isinstance(each, objects.Zombie | objects.Skeleton)]
        return {
            **{name: float(player.inventory[name]) for name in _ITEMS},
            **{f"{name}_seen": float(name in seen) for name in _MATERIALS},
            **{f"{name}_seen": float(_any_is(things, kind)) for name, kind in _CREATURES.items()},
            **{f"{name}_ahead": float(material == name and thing is None) for name in _MATERIALS},
            **{f"{name}_ahead": float(_any_is([thing], kind)) for name, kind in _CREATURES.items()},
            "enemy_near": float(any(player.distance(each) <= 3 for each in enemies)),
            "sleeping": float(player.sleeping),
            "controllable": float(not player.sleeping or player.inventory["energy"] >= _RESTED),
            "dark": float(world.daylight < 0.5),
            "daylight": float(world.daylight),
            "x": float(x),
            "y": float(y),
            "unlocked": float(sum(count > 0 for count in player.achievements.values())),
        }

    def cells(self) -> Cells:
        """The 7 rows of 9 cells around the player, -1 beyond the world's edge."""
        world, (x, y) = self.game.env._world, (int(each) for each in self.game.env._player.pos)
        material = np.full((_ROWS, _COLUMNS), -1)
        thing = np.full((_ROWS, _COLUMNS), -1)
        for row, column in np.ndindex(_ROWS, _COLUMNS):
            at = (x + column - _COLUMNS // 2, y + row - _ROWS // 2)
            name, found = world[at]
            if name is not None:
                material[row, column] = _MATERIALS.index(name)
                kinds = [
                    i
                    for i, kind in enumerate((type(None), objects.Player, *_CREATURES.values()))
                    if isinstance(found, kind)
                ]
                thing[row, column] = kinds[0] if kinds else -1
        return {"material": (material, _MATERIALS), "thing": (thing, ("nothing", "player", *_CREATURES))}

    def render(self) -> NDArray[np.uint8]:
        """The observation at six times its size."""
        return self.game.picture(self._large)

    def editing(self) -> Editing:
        large = self._large
        return edits.editing(self.game, large.unit, (large.size - 9 * large.unit) // 2)

    def make(self, edit: str) -> None:
        edits.make(self.game, edit)

    def keep(self) -> Callable[[], None]:
        return edits.keep(self.game)


def _any_is(things: list[Any], kind: type) -> bool:
    return any(isinstance(thing, kind) for thing in things)
