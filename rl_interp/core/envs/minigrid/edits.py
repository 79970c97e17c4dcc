"""Edits of a MiniGrid task's state, of which its views and its rules are then."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rl_interp.core.envs.editing import Cell, Editing, Grid, Thing, Tool, read_edit
from rl_interp.core.envs.minigrid.game import MiniGridGame
from rl_interp.core.errors import UserError, unknown

if TYPE_CHECKING:
    from minigrid.core.world_object import WorldObj

FORMS = {
    "remove": "X,Y", "place": "X,Y:KIND:COLOUR", "colour": "X,Y:COLOUR", "move": "X,Y:X,Y", "face": "DIRECTION",
}  # fmt: skip
"""By name: what is at a cell away, a new thing there, another colour of it, it (or the agent) elsewhere, and which way
the agent faces."""
KINDS = ("key", "ball", "box", "door", "open_door", "locked_door", "goal", "lava", "wall")
DIRECTIONS = ("right", "down", "left", "up")
_NAMED = {"door": "shut door"}
_CAVEAT = (
    "A task ends by its own things: the door of Unlock that is dragged elsewhere still counts, one that is placed does "
    "not."
)


def make(game: MiniGridGame, edit: str) -> None:
    """Make one edit.

    Raises:
        UserError: it is of none of `FORMS`, outside the grid, or at or onto what is in its way.
    """
    name, parts = read_edit(edit, FORMS)
    if name == "face":
        if parts[0] not in DIRECTIONS:
            raise UserError(unknown("direction", parts[0], DIRECTIONS))
        game.env.agent_dir = DIRECTIONS.index(parts[0])
        return
    cell = _cell(game, parts[:2])
    if name == "move":
        _move(game, cell, _cell(game, parts[2:]))
    elif name == "place":
        _free(game, cell)
        game.put(cell, _thing(*parts[2:]))
    elif name == "remove":
        _there(game, cell)
        game.put(cell, None)
    else:
        thing = _there(game, cell)
        if thing.type in ("goal", "lava", "wall"):
            raise UserError(f"the {thing.type} at {cell} has one colour; choose a key, ball, box or door.")
        thing.color = _colour(parts[2])
        game.put(cell, thing)


def keep(game: MiniGridGame) -> Callable[[], None]:
    """What brings back the state as it is now."""
    env, codes = game.env, game.grid.copy()
    things = [(thing, thing and (thing.color, thing.cur_pos)) for thing in env.grid.grid]
    agent = env.agent_pos, env.agent_dir

    def bring_back() -> None:
        env.agent_pos, env.agent_dir = agent
        for index, (thing, was) in enumerate(things):
            env.grid.grid[index] = thing
            if thing is not None and was is not None:
                thing.color, thing.cur_pos = was
        game.take_codes(codes)

    return bring_back


def editing(game: MiniGridGame, tile: int) -> Editing:
    """What can be edited, on the picture of the whole grid, whose cells are `tile` pixels along a side."""
    from minigrid.core.constants import COLOR_NAMES

    env, colours = game.env, tuple(COLOR_NAMES)
    x, y = (int(each) for each in env.agent_pos)
    things = [_shown("agent", (x, y), tile)]
    for index, thing in enumerate(env.grid.grid):
        if thing is not None and thing.type not in ("wall", "floor"):
            row, column = divmod(index, env.width)
            things.append(_shown(f"{thing.color} {thing.type}", (column, row), tile))
    return Editing(
        (
            Tool("drag a thing, or the agent", "move:{from}:{at}"),
            Tool("place", "place:{at}:{kind}:{colour}", {"kind": KINDS, "colour": colours}),
            Tool("colour", "colour:{at}:{colour}", {"colour": colours}),
            Tool("take away", "remove:{at}"),
            Tool("face", "face:{direction}", {"direction": DIRECTIONS}),
        ),
        tuple(things),
        Grid(0, 0, tile, env.width, env.height),
        caveat=_CAVEAT,
    )


def _shown(name: str, cell: Cell, tile: int) -> Thing:
    return Thing(name, f"{cell[0]},{cell[1]}", tile * (cell[0] + 0.5), tile * (cell[1] + 0.5))


def _move(game: MiniGridGame, cell: Cell, to: Cell) -> None:
    env = game.env
    if cell == to:
        return
    if cell == tuple(map(int, env.agent_pos)):
        there = env.grid.get(*to)
        if there is not None and not there.can_overlap():
            raise UserError(f"the agent can't be put on the {there.type} at {to}; choose a free cell.")
        env.agent_pos = np.array(to)
        return
    thing = _there(game, cell)
    _free(game, to)
    game.put(cell, None)
    thing.cur_pos = np.array(to)  # pyright: ignore[reportAttributeAccessIssue] - as the package sets it
    game.put(to, thing)


def _thing(kind: str, colour: str) -> "WorldObj":
    from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall

    if kind not in KINDS:
        raise UserError(unknown("thing", kind, KINDS))
    colour = _colour(colour)
    if kind.endswith("door"):
        return Door(colour, is_open=kind == "open_door", is_locked=kind == "locked_door")
    single = {"goal": Goal, "lava": Lava, "wall": Wall}
    return single[kind]() if kind in single else {"key": Key, "ball": Ball, "box": Box}[kind](colour)


def _colour(colour: str) -> str:
    from minigrid.core.constants import COLOR_NAMES

    if colour not in COLOR_NAMES:
        raise UserError(unknown("colour", colour, COLOR_NAMES))
    return colour


def _cell(game: MiniGridGame, parts: list[str]) -> Cell:
    x, y = map(int, parts)
    if not (x < game.env.width and y < game.env.height):
        raise UserError(f"cell {x},{y} given of a grid of {game.env.width} x {game.env.height} cells.")
    return x, y


def _there(game: MiniGridGame, cell: Cell) -> "WorldObj":
    thing = game.env.grid.get(*cell)
    if thing is None:
        raise UserError(f"there is nothing at {cell[0]},{cell[1]}; choose a cell with a thing.")
    return thing


def _free(game: MiniGridGame, cell: Cell) -> None:
    there = game.env.grid.get(*cell)
    if there is not None or cell == tuple(map(int, game.env.agent_pos)):
        name = "agent" if there is None else there.type
        raise UserError(f"{cell[0]},{cell[1]} holds the {name}; choose a free cell.")
