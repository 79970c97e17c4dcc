"""A maze in a line of text, short enough for an address."""

import base64
import re

import numpy as np

from rl_interp.core.envs.maze.config import WORLD
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError

_BYTES = -(-WORLD * WORLD // 8)
_CHARACTERS = -(-_BYTES * 8 // 6)
_FORM = re.compile(rf"(\d+)\.(-?\d+)\.(-?\d+)\.(-?\d+)\.(-?\d+)\.([\w-]{{{_CHARACTERS}}})", re.ASCII)


def maze_text(maze: Mazes) -> str:
    """One maze as `SIDE.MOUSE_ROW.MOUSE_COLUMN.CHEESE_ROW.CHEESE_COLUMN.WALLS`, the walls being bits in base 64."""
    bits = base64.urlsafe_b64encode(np.packbits(maze.walls[0]).tobytes()).decode().rstrip("=")
    numbers = (int(maze.side[0]), *maze.mouse[0].tolist(), *maze.cheese[0].tolist())
    return ".".join([*map(str, numbers), bits])


def maze_from_text(text: str) -> Mazes:
    """The maze that `maze_text` wrote.

    Raises:
        UserError: it is of another form, or no maze.
    """
    found = _FORM.fullmatch(text[:1000])
    if found is None:
        raise UserError(
            f"maze {text[:60]!r} given; it has the form SIDE.MOUSE_ROW.MOUSE_COLUMN.CHEESE_ROW.CHEESE_COLUMN.WALLS, as "
            "the editor and `maze_text` write it."
        )
    side, *cells = (int(each[:6]) for each in found.groups()[:5])
    if not (3 <= side <= WORLD and side % 2):
        raise UserError(f"a maze of side {side} given; it is an odd number from 3 to {WORLD}.")
    bits = base64.urlsafe_b64decode(found[6] + "=" * (-_CHARACTERS % 4))
    walls = np.unpackbits(np.frombuffer(bits, np.uint8), count=WORLD * WORLD).reshape(1, WORLD, WORLD).astype(bool)
    return Mazes(walls, np.array([side]), np.array([cells[:2]]), np.array([cells[2:]]))
