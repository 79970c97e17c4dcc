"""Edits of a Crafter world, of which its frames and its rules are then."""

from collections.abc import Callable
from typing import Any

import numpy as np
from crafter import constants, objects

from rl_interp.core.envs.crafter.game import CrafterGame
from rl_interp.core.envs.editing import Cell, Editing, Grid, Thing, Tool, read_edit
from rl_interp.core.errors import UserError, unknown

FORMS = {"material": "X,Y:MATERIAL", "place": "X,Y:KIND", "remove": "X,Y", "move": "X,Y:X,Y", "item": "ITEM:N"}
"""By name: another material in a cell, a creature there, none there, it (or the player) elsewhere, and how much of an
item the player has."""
CREATURES = {"cow": objects.Cow, "zombie": objects.Zombie, "skeleton": objects.Skeleton, "plant": objects.Plant}
MATERIALS: tuple[str, ...] = tuple(constants.materials)  # pyright: ignore[reportAttributeAccessIssue]
_ITEMS: dict[str, Any] = constants.items  # pyright: ignore[reportAttributeAccessIssue]
_WALKABLE: list[str] = constants.walkable  # pyright: ignore[reportAttributeAccessIssue]
_COLUMNS, _ROWS = 9, 7


def make(game: CrafterGame, edit: str) -> None:
    """Make one edit.

    Raises:
        UserError: it is of none of `FORMS`, outside the world, or at or onto what is in its way.
    """
    name, parts = read_edit(edit, FORMS)
    world, player = game.env._world, game.env._player
    if name == "item":
        _give(game, parts[0], int(parts[1]))
        return
    cell = _cell(world, parts[:2])
    if name == "material":
        if parts[2] not in MATERIALS:
            raise UserError(unknown("material", parts[2], MATERIALS))
        if cell == _at(player) and parts[2] not in _WALKABLE:
            raise UserError(f"the player stands at {cell[0]},{cell[1]}, and can't on {parts[2]}; choose another cell.")
        world[cell] = parts[2]
    elif name == "place":
        if parts[2] not in CREATURES:
            raise UserError(unknown("creature", parts[2], CREATURES))
        _free(world, cell)
        with_player = (player,) if parts[2] in ("zombie", "skeleton") else ()
        world.add(CREATURES[parts[2]](world, cell, *with_player))
    elif name == "remove":
        creature = _creature(world, cell)
        if creature is player:
            raise UserError("the player can't be taken away; choose a creature.")
        world.remove(creature)
    else:
        _move(world, _creature(world, cell), _cell(world, parts[2:]))


def keep(game: CrafterGame) -> Callable[[], None]:
    """What brings back the world as it is now."""
    env, world = game.env, game.env._world
    maps, listed = (world._mat_map.copy(), world._obj_map.copy()), list(world._objects)
    chunks = {key: list(each) for key, each in world._chunks.items()}
    places = [(each, each.pos) for each in listed if each]
    inventory, health = dict(env._player.inventory), env._last_health

    def bring_back() -> None:
        world._mat_map[:], world._obj_map[:] = maps
        world._objects[:] = listed
        world._chunks.clear()
        for key, held in chunks.items():
            for each in held:
                world._chunks[key].add(each)
        for each, place in places:
            each.pos, each.removed = place, False
        env._player.inventory.update(inventory)
        env._last_health = health

    return bring_back


def editing(game: CrafterGame, unit: int, border: int) -> Editing:
    """What can be edited, on a frame whose cells are `unit` pixels along a side and lie within a border."""
    world, player = game.env._world, game.env._player
    left, top = _at(player)[0] - _COLUMNS // 2, _at(player)[1] - _ROWS // 2
    things = []
    for each in [player, *(each for each in world.objects if each is not player)]:
        column, row = _at(each)[0] - left, _at(each)[1] - top
        if 0 <= column < _COLUMNS and 0 <= row < _ROWS:
            x, y = (border + unit * (place + 0.5) for place in (column, row))
            things.append(Thing(type(each).__name__.lower().strip("_"), f"{_at(each)[0]},{_at(each)[1]}", x, y))
    return Editing(
        (
            Tool("drag a creature, or the player", "move:{from}:{at}"),
            Tool("material", "material:{at}:{material}", {"material": MATERIALS}),
            Tool("creature", "place:{at}:{creature}", {"creature": tuple(CREATURES)}),
            Tool("take a creature away", "remove:{at}"),
            *(
                Tool(name.replace("_", " "), f"item:{name}:{{value}}", value=(0, info["max"], player.inventory[name]))
                for name, info in _ITEMS.items()
            ),
        ),
        tuple(things),
        Grid(border, border, unit, _COLUMNS, _ROWS, (left, top)),
    )


def _give(game: CrafterGame, item: str, amount: int) -> None:
    """The health that is given is no reward."""
    if item not in _ITEMS:
        raise UserError(unknown("item", item, _ITEMS))
    least, most = int(item == "health"), _ITEMS[item]["max"]
    if not least <= amount <= most:
        raise UserError(f"{amount} of {item} given; a player has {least} to {most}.")
    game.env._player.inventory[item] = amount
    if item == "health":
        game.env._last_health = amount


def _move(world: Any, creature: Any, to: Cell) -> None:
    if _at(creature) == to:
        return
    _free(world, to)
    if not creature.is_free(to):
        raise UserError(
            f"{type(creature).__name__.strip('_')} can't be on {world[to][0]} at {to[0]},{to[1]}; choose another cell."
        )
    world.move(creature, to)


def _at(thing: Any) -> Cell:
    return int(thing.pos[0]), int(thing.pos[1])


def _cell(world: Any, parts: list[str]) -> Cell:
    x, y = map(int, parts)
    if not (x < world.area[0] and y < world.area[1]):
        raise UserError(f"cell {x},{y} given of a world of {world.area[0]} x {world.area[1]} cells.")
    return x, y


def _creature(world: Any, cell: Cell) -> Any:
    found = world[np.array(cell)][1]
    if found is None:
        raise UserError(f"there is no creature at {cell[0]},{cell[1]}; choose a cell with one.")
    return found


def _free(world: Any, cell: Cell) -> None:
    if (there := world[np.array(cell)][1]) is not None:
        raise UserError(f"{cell[0]},{cell[1]} holds a {type(there).__name__.strip('_')}; choose a free cell.")
