"""Levels with two ways to one end: the short one, and the long one that is left when a wall closes the short one.

In the levels of Bush et al. 2025 (arXiv 2504.01871, §6) the player, or a box, can take either. Both are found here with
the solver, in any level.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.sokoban.kinds import A_BOX, FLOOR, MOVES, WALL
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.envs.sokoban.rules import push
from rl_interp.core.envs.sokoban.solve import solve

_BOARDS = 20_000
"""Boards that the solver looks at, at most."""

Cell = tuple[int, int]
Step = tuple[Cell, int]
"""A cell, and from which side the player steps onto it, or which way a box is pushed off it."""


@dataclass(frozen=True)
class Routes:
    """The two ways, where they differ."""

    short: tuple[Step, ...]
    """Of the short way alone, in its order. Whoever is on the last of its cells has taken it."""
    long: tuple[Step, ...]
    """Of the long way alone."""
    start: Cell
    """Where the player, or that box, is at the beginning."""

    def symmetric(self, turns: int, mirrored: bool, rows: int, columns: int) -> "Routes":
        """On a board of this size that is turned and mirrored as `Levels.symmetric` does."""

        def moved(cell: Cell) -> Cell:
            (row, column), width, height = cell, columns, rows
            for _ in range(turns):
                row, column, width, height = width - 1 - column, row, height, width
            return row, width - 1 - column if mirrored else column

        def turned(direction: int) -> int:
            down, right = MOVES[direction]
            for _ in range(turns):
                down, right = -right, down
            return MOVES.index((down, -right if mirrored else right))

        short, long = (
            tuple((moved(cell), turned(direction)) for cell, direction in way) for way in (self.short, self.long)
        )
        return Routes(short, long, moved(self.start))


class _Choice(NamedTuple):
    """What there is if a cell of the short way is closed."""

    cost: int
    """How bad a choice it is."""
    closed: Cell
    length: int
    """Of the whole long way."""
    routes: Routes


def routes(board: NDArray[np.uint8], of: Literal["agent", "box"]) -> Routes | None:
    """The ways of the player to its first push, or of a box to its target; None where there is one way alone. The wall
    is put where the player's ways are apart for longest, and where the box that goes round it has the fewest pushes
    more. The short way ends where it could last be closed to the same effect: no short way leads by."""
    found = list(_walks(board) if of == "agent" else _pushes(board))
    if not found:
        return None
    best = min(found, key=lambda each: each.cost)
    same = (best.routes.start, best.length)
    gates = {each.closed for each in found if (each.routes.start, each.length) == same}
    short = best.routes.short
    end = max(number for number, (cell, _) in enumerate(short) if cell in gates)
    return replace(best.routes, short=short[: end + 1])


def _walks(board: NDArray[np.uint8]) -> Iterator[_Choice]:
    short, start = _walk(board)
    for cell, _ in short:
        closed = _closed(board, cell)
        if closed is None:
            continue
        long, _ = _walk(closed)
        alone, other = _apart(short, long), _apart(long, short)
        if alone and other and len(long) >= len(short):
            cost = len(long) - 100 * len(alone)
            yield _Choice(cost, cell, len(long), Routes(tuple(alone), tuple(other), start))


def _walk(board: NDArray[np.uint8]) -> tuple[list[Step], Cell]:
    """The cells that the player steps onto before its first push, with directions, in a solution with the fewest steps;
    and where it begins."""
    start = _player(board)
    plan = solve(board, _BOARDS, "steps")
    found: list[Step] = []
    now, at = board.copy(), start
    for action in [] if plan.actions is None else plan.actions:
        down, right = MOVES[action]
        if push(now, at[0], at[1], down, right):
            break
        at = at[0] + down, at[1] + right
        found.append((at, int(action)))
    return found, start


def _pushes(board: NDArray[np.uint8]) -> Iterator[_Choice]:
    """Of each box."""
    for start, short in _ways(board).items():
        for cell, _ in short[1:]:
            closed = _closed(board, cell)
            long = _ways(closed).get(start, []) if closed is not None else []
            if not long or len(long) <= len(short):
                continue
            alone, other = _apart(short[1:], long), _until(long, short[1:])
            if alone and other:
                cost = len(long) - len(short)
                yield _Choice(cost, cell, len(long), Routes(tuple(alone), tuple(other), start))


def _ways(board: NDArray[np.uint8]) -> dict[Cell, list[Step]]:
    """By where a box begins, the cells that it is pushed off, with directions, in a solution with the fewest pushes."""
    plan = solve(board, _BOARDS)
    found: dict[Cell, list[Step]] = {}
    began = {(int(row), int(column)): (int(row), int(column)) for row, column in np.argwhere(board == A_BOX)}
    now, at = board.copy(), _player(board)
    for action in [] if plan.actions is None else plan.actions:
        down, right = MOVES[action]
        pushed = push(now, at[0], at[1], down, right)
        at = at[0] + down, at[1] + right
        if pushed and at in began:
            start = began.pop(at)
            began[at[0] + down, at[1] + right] = start
            found.setdefault(start, []).append((at, int(action)))
    return found


def _player(board: NDArray[np.uint8]) -> Cell:
    row, column = players(board[None])[0]
    return int(row), int(column)


def _closed(board: NDArray[np.uint8], cell: Cell) -> NDArray[np.uint8] | None:
    """The board with a wall there; None if the cell is not free, or the level can then not be solved."""
    if board[cell] != FLOOR:
        return None
    closed = board.copy()
    closed[cell] = WALL
    return closed if solve(closed, _BOARDS).actions is not None else None


def _apart(way: list[Step], other: list[Step]) -> list[Step]:
    """What of a way is not of the other."""
    cells = {cell for cell, _ in other}
    return [each for each in way if each[0] not in cells]


def _until(way: list[Step], other: list[Step]) -> list[Step]:
    """What of a way comes before the other is met again."""
    cells = {cell for cell, _ in other}
    return way[: next((i for i, (cell, _) in enumerate(way) if cell in cells), len(way))]
