"""Edits of a Sokoban board. Each leaves one that can be played, if not always solved."""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.editing import Editing, Grid, Thing, Tool, read_edit
from rl_interp.core.envs.sokoban.draw import TILE
from rl_interp.core.envs.sokoban.kinds import (
    A_BOX,
    BOX_ON_TARGET,
    FLOOR,
    KINDS,
    PLAYER,
    PLAYER_ON_TARGET,
    TARGET,
    WALL,
)
from rl_interp.core.envs.sokoban.levels import fault, playable
from rl_interp.core.envs.sokoban.truth import plan_of
from rl_interp.core.errors import UserError

FORMS = {"move": "X,Y:X,Y", "wall": "X,Y", "floor": "X,Y"}
"""By name: the player, the box, or else the target of a cell elsewhere; a wall where the floor is free; and floor in
the place of a wall."""
_ON_TARGET = {FLOOR: TARGET, A_BOX: BOX_ON_TARGET, PLAYER: PLAYER_ON_TARGET}
_OFF_TARGET = {on: off for off, on in _ON_TARGET.items()}
"""What stands on a cell, if it is a target."""


def edited(board: NDArray[np.uint8], edit: str) -> NDArray[np.uint8]:
    """A board `[H, W]` after one edit.

    Raises:
        UserError: it is of none of `FORMS`, outside the board, at or onto what is in its way, or leaves a board that
            can't be played.
    """
    name, parts = read_edit(edit, FORMS)
    new, cell = board.copy(), _cell(board, parts[:2])
    if name == "move":
        _move(new, cell, _cell(board, parts[2:]))
    else:
        before, after = (FLOOR, WALL) if name == "wall" else (WALL, FLOOR)
        if new[cell] != before:
            wanted = "free floor" if name == "wall" else "a wall"
            raise UserError(f"edit {edit!r} given, and there is {_named(new[cell])}; choose {wanted}.")
        new[cell] = after
    if not playable(new[None])[0]:
        raise UserError(f"edit {edit!r} gives a board that {fault(new)}.")
    return new


def editing(board: NDArray[np.uint8]) -> Editing:
    """What can be edited, on the board's picture; and whether it can be solved, as far as a search finds out."""
    things = [
        Thing(KINDS[kind], f"{column},{row}", TILE * (column + 0.5), TILE * (row + 0.5))
        for (row, column), kind in np.ndenumerate(board)
        if kind not in (WALL, FLOOR)
    ]
    tools = (
        Tool("drag the player, a box or a target", "move:{from}:{at}"),
        Tool("put up a wall", "wall:{at}"),
        Tool("clear a wall away", "floor:{at}"),
    )
    rows, columns = board.shape
    solvable = plan_of(board).solvable
    caveat = "No play solves this board, as a search proves; it can be played on." if solvable is False else ""
    return Editing(tools, tuple(things), Grid(0, 0, TILE, columns, rows), caveat=caveat)


def _move(board: NDArray[np.uint8], cell: tuple[int, int], to: tuple[int, int]) -> None:
    """The player or a box; where there is neither, the target."""
    if cell == to:
        return
    kind, there = int(board[cell]), int(board[to])
    if kind in (WALL, FLOOR):
        raise UserError(f"there is {_named(kind)} at {cell[1]},{cell[0]}; choose the player, a box or a target.")
    if kind == TARGET:
        if there not in _ON_TARGET:
            raise UserError(f"a target can't be put on {_named(there)}; choose a cell that is none and no wall.")
        board[cell], board[to] = FLOOR, _ON_TARGET[there]
        return
    if there not in (FLOOR, TARGET):
        raise UserError(f"{to[1]},{to[0]} has {_named(there)}; choose a free cell.")
    thing = _OFF_TARGET.get(kind, kind)
    board[cell] = TARGET if kind in _OFF_TARGET else FLOOR
    board[to] = _ON_TARGET[thing] if there == TARGET else thing


def _cell(board: NDArray[np.uint8], parts: list[str]) -> tuple[int, int]:
    """Row and column."""
    column, row = map(int, parts)
    if not (row < board.shape[0] and column < board.shape[1]):
        raise UserError(f"cell {column},{row} given of a board of {board.shape[1]} x {board.shape[0]} cells.")
    return row, column


def _named(kind: int) -> str:
    article = {FLOOR: "", PLAYER: "the ", PLAYER_ON_TARGET: "the "}.get(kind, "a ")
    return article + KINDS[kind]
