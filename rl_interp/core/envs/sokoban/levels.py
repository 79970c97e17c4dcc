"""Levels as values: to read, generate, look at and change, many at once.

Shape letters: N levels of H x W cells; cells are (row, column) from the top left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.kinds import (
    A_BOX,
    BOX_ON_TARGET,
    KINDS,
    MOVES,
    PLAYER,
    PLAYER_ON_TARGET,
    SIGNS,
    TARGET,
    WALL,
)
from rl_interp.core.envs.splitmix import mixed
from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class Levels:
    """N levels, each with one player, with as many boxes as targets, and within walls.

    Raises:
        UserError: one that is not so, or that is solved as it begins.
    """

    boards: NDArray[np.uint8]
    """`[N, H, W]`: each cell's kind, an index of `KINDS`."""
    ids: tuple[str, ...]
    """What each is called: by default its file and its number there."""

    def __post_init__(self) -> None:
        if self.boards.dtype != np.uint8 or self.boards.ndim != 3 or len(self.boards) != len(self.ids):
            raise UserError(
                f"boards {self.boards.dtype} {self.boards.shape} given with {len(self.ids)} ids; they are uint8 "
                "[levels, rows, columns], with an id for each level."
            )
        for i in np.flatnonzero(~playable(self.boards))[:1]:
            raise UserError(f"level {self.ids[i]} {fault(self.boards[i])}.")

    def __len__(self) -> int:
        return len(self.boards)

    def __getitem__(self, index: slice | Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> "Levels":
        """Some of them."""
        chosen = np.arange(len(self))[index]
        return Levels(self.boards[chosen], tuple(self.ids[i] for i in chosen))

    @property
    def players(self) -> NDArray[np.int64]:
        """`[N, 2]`."""
        return players(self.boards)

    @property
    def boxes(self) -> NDArray[np.bool_]:
        """`[N, H, W]`."""
        return (self.boards == A_BOX) | (self.boards == BOX_ON_TARGET)

    @property
    def targets(self) -> NDArray[np.bool_]:
        """`[N, H, W]`."""
        return (self.boards == TARGET) | (self.boards == BOX_ON_TARGET) | (self.boards == PLAYER_ON_TARGET)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """`[N]`: equal for levels that are mirror images or turns of each other."""
        return np.array([canonical(board) for board in self.boards], np.uint64)

    def text(self, index: int = 0) -> str:
        """One of them, a line a row."""
        return "\n".join("".join(SIGNS[kind] for kind in row) for row in self.boards[index])

    def symmetric(self, turns: int, mirrored: bool = False) -> "Levels":
        """All of them turned counterclockwise by as many quarters, and then mirrored left to right."""
        turned = np.rot90(self.boards, turns, (1, 2))
        return Levels(np.ascontiguousarray(turned[..., ::-1] if mirrored else turned), self.ids)


def players(boards: NDArray[np.uint8]) -> NDArray[np.int64]:
    """`[N, 2]`: where the one player of each of `boards [N, H, W]` is."""
    there = (boards == PLAYER) | (boards == PLAYER_ON_TARGET)
    return np.argwhere(there)[:, 1:]


def boxes_left(boards: NDArray[np.uint8]) -> NDArray[np.int64]:
    """`[N]`: how many boxes are not on a target."""
    return (boards == A_BOX).sum((1, 2))


def playable(boards: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`[N]`: which of `boards [N, H, W]` have no fault."""
    out = np.empty(len(boards), bool)
    _playable(boards, out)
    return out


def fault(board: NDArray[np.uint8], line: int | None = None) -> str:
    """What is wrong with a board that is not playable, as the end of a sentence; with the line of the file that it
    begins in, places are given by line."""
    counts = np.bincount(board.ravel(), minlength=len(KINDS))
    here, boxes = counts[PLAYER] + counts[PLAYER_ON_TARGET], counts[A_BOX] + counts[BOX_ON_TARGET]
    targets = counts[TARGET] + counts[BOX_ON_TARGET] + counts[PLAYER_ON_TARGET]
    if len(counts) > len(KINDS):
        return f"has a cell of kind {len(counts) - 1}; kinds go from 0 to {len(KINDS) - 1}"
    if here != 1:
        return f"has {_count(here, 'player', 'players') if here else 'no player'}; it must have one"
    if boxes != targets:
        return f"has {_count(boxes, 'box', 'boxes')} and {_count(targets, 'target', 'targets')}; there must be as many"
    if not boxes:
        return "has no box; it must have one at least"
    row, column = way_out(board)
    if row >= 0:
        place = f"row {row + 1}" if line is None else f"line {line + row}"
        return f"is not closed: the player can walk out at {place}, column {column + 1}; put a wall there"
    return "is solved as it begins: a box must be off its target"


def way_out(board: NDArray[np.uint8]) -> tuple[int, int]:
    """The cell of the edge nearest to the player to which it could walk if there were no boxes; (-1, -1) if none."""
    return _way_out(board, *players(board[None])[0])


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


@compiled()
def _playable(boards: NDArray[np.uint8], out: NDArray[np.bool_]) -> None:
    for i in range(len(boards)):
        here, boxes, targets, left = 0, 0, 0, 0
        at_row, at_column = 0, 0
        known = True
        for row in range(boards.shape[1]):
            for column in range(boards.shape[2]):
                kind = boards[i, row, column]
                if kind in (PLAYER, PLAYER_ON_TARGET):
                    here += 1
                    at_row, at_column = row, column
                boxes += kind in (A_BOX, BOX_ON_TARGET)
                targets += kind in (TARGET, BOX_ON_TARGET, PLAYER_ON_TARGET)
                left += kind == A_BOX
                known &= kind <= PLAYER_ON_TARGET
        out[i] = known and here == 1 and left > 0 and boxes == targets
        out[i] = out[i] and _way_out(boards[i], at_row, at_column)[0] < 0


@compiled()
def _way_out(board: NDArray[np.uint8], row: int, column: int) -> tuple[int, int]:
    height, width = board.shape
    seen = np.zeros((height, width), np.bool_)
    queue = np.empty((height * width, 2), np.int64)
    queue[0, 0], queue[0, 1], seen[row, column] = row, column, True
    read, written = 0, 1
    while read < written:
        r, c = queue[read, 0], queue[read, 1]
        read += 1
        if r == 0 or c == 0 or r == height - 1 or c == width - 1:
            return r, c
        for down, right in MOVES:
            y, x = r + down, c + right
            if board[y, x] != WALL and not seen[y, x]:
                queue[written, 0], queue[written, 1], seen[y, x] = y, x, True
                written += 1
    return -1, -1


@compiled()
def canonical(board: NDArray[np.uint8]) -> np.uint64:
    """The smallest of the hashes of a board's eight mirror images and turns."""
    height, width = board.shape
    least = np.uint64(0xFFFFFFFFFFFFFFFF)
    for symmetry in range(8):
        rows, columns = (width, height) if symmetry & 4 else (height, width)
        value = mixed(np.uint64(rows))
        for row in range(rows):
            for column in range(columns):
                y, x = (column, row) if symmetry & 4 else (row, column)
                y = height - 1 - y if symmetry & 1 else y
                x = width - 1 - x if symmetry & 2 else x
                value = value * np.uint64(0x100000001B3) ^ np.uint64(board[y, x])
        least = min(least, mixed(value))
    return least
