"""Levels as text: those that come with the package, and files and folders of others.

A level is a few lines of `#` (wall), `@` (player), `+` (player on a target), `$` (box), `*` (box on a target), `.`
(target) and a space, `-` or `_` (floor). Blank lines and lines that begin with `;` are between levels; `; NAME` before
a level is its name, and else its number in the file, from 0.
"""

import gzip
import zlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from rl_interp.core.envs.sokoban.config import PUBLISHED
from rl_interp.core.envs.sokoban.kinds import FLOOR, SIGNS, WALL
from rl_interp.core.envs.sokoban.levels import Levels, fault, playable
from rl_interp.core.errors import UserError, unknown

_ENDINGS = (".txt", ".xsb", ".txt.gz")
_UNREADABLE = 255
_KIND = np.full(256, _UNREADABLE, np.uint8)
for _number, _sign in enumerate(SIGNS):
    _KIND[ord(_sign)] = _number
_KIND[[ord("-"), ord("_")]] = FLOOR


def load(name: str, rows: int = 0, columns: int = 0) -> Levels:
    """Levels of a set that comes with the package, of a file, or of all files of a folder and those within it.

    Args:
        name: one of `config.PUBLISHED`, or a path.
        rows, columns: size of the boards; smaller levels are set in their middle. 0: the size of the largest.

    Raises:
        UserError: nothing there, a level larger than that, or one that can't be played: what is wrong, and where.
    """
    if name in PUBLISHED:
        return _load(name, rows, columns, 0)
    path = Path(name)
    if not path.exists():
        raise UserError(f"{unknown('set of levels', name, PUBLISHED)[:-1]}; nor is there such a file or folder.")
    return _load(name, rows, columns, max((file.stat().st_mtime_ns for file in _files(path)), default=0))


@lru_cache(8)
def _load(name: str, rows: int, columns: int, changed: int) -> Levels:
    if name in PUBLISHED:
        text = gzip.decompress(
            (files("rl_interp.core.envs.sokoban") / "published" / f"{name}.txt.gz").read_bytes()
        ).decode()
        return parse(text, name, rows, columns)
    path = Path(name)
    found = _files(path)
    if not found:
        raise UserError(f"{name} has no levels: no file in it ends in {', '.join(_ENDINGS)}.")
    sets = [_read(file, _called(file, path), rows, columns) for file in found]
    height, width = (max(of.boards.shape[axis] for of in sets) for axis in (1, 2))
    boards = np.concatenate([_framed(of.boards, height, width) for of in sets])
    return Levels(boards, tuple(name for of in sets for name in of.ids))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.name.endswith(_ENDINGS) and file.is_file())


def _called(file: Path, top: Path) -> str:
    relative = file.name if file == top else file.relative_to(top).as_posix()
    return next((relative.removesuffix(ending) for ending in _ENDINGS[::-1] if relative.endswith(ending)), relative)


def _read(file: Path, name: str, rows: int, columns: int) -> Levels:
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise UserError(f"{file} can't be read as levels ({error}); it must be text.") from None
    return parse(text, name, rows, columns)


def parse(text: str, name: str, rows: int = 0, columns: int = 0) -> Levels:
    """Levels from text, called `name:NUMBER`.

    Raises:
        UserError: as `load` does; lines and columns are counted from 1.
    """
    found, ids = [], []
    lines: list[str] = []
    title = None
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip() and not line.startswith(";"):
            lines.append(line.rstrip())
            continue
        if lines:
            level_id = f"{name}:{len(ids) if title is None else title}"
            found.append(_board(lines, level_id, number - len(lines)))
            ids.append(level_id)
            lines, title = [], None
        if line.startswith(";"):
            title = line[1:].strip() or None
    if not found:
        raise UserError(f"{name} has no levels.")
    height = rows or max(len(board) for board in found)
    width = columns or max(board.shape[1] for board in found)
    for board, level_id in zip(found, ids, strict=True):
        if len(board) > height or board.shape[1] > width:
            raise UserError(
                f"level {level_id} is {len(board)} x {board.shape[1]} cells, larger than {height} x {width}; choose "
                f"larger boards (--env.rows {max(len(board), height)} --env.columns {max(board.shape[1], width)})."
            )
    return Levels(np.concatenate([_framed(board[None], height, width) for board in found]), tuple(ids))


def _board(lines: list[str], level_id: str, start: int) -> NDArray[np.uint8]:
    """The kinds `[H, W]` of a level's lines. What lies outside of the walls is wall too."""
    board = np.full((len(lines), max(map(len, lines))), FLOOR, np.uint8)
    for row, line in enumerate(lines):
        kinds = _KIND[np.frombuffer(line.encode("latin-1", "replace"), np.uint8)]
        if (kinds == _UNREADABLE).any():
            column = int(np.argmax(kinds == _UNREADABLE))
            raise UserError(
                f"level {level_id} has {line[column]!r} in line {start + row}, column {column + 1}; its cells are "
                "# (wall), @ or + (player), $ or * (box), . (target) and space (floor)."
            )
        board[row, : len(kinds)] = kinds
    if not playable(board[None])[0]:
        raise UserError(f"level {level_id} (line {start}) {fault(board, start)}.")
    return _walled_outside(board)


def _walled_outside(board: NDArray[np.uint8]) -> NDArray[np.uint8]:
    edge = np.ones(board.shape, bool)
    edge[1:-1, 1:-1] = False
    if (board[edge] == WALL).all():
        return board
    areas, _ = label(board != WALL)  # pyright: ignore[reportGeneralTypeIssues]
    outside = np.isin(areas, areas[edge]) & (board == FLOOR)
    return np.where(outside, WALL, board).astype(np.uint8)


def _framed(boards: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """`[N, height, width]`: the boards in the middle of walls."""
    down, right = height - boards.shape[1], width - boards.shape[2]
    sides = ((0, 0), (down // 2, down - down // 2), (right // 2, right - right // 2))
    return np.pad(boards, sides, constant_values=WALL)
