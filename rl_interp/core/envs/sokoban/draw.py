"""Boards for people: tiles of 16 pixels, drawn twice as large."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.sokoban.kinds import A_BOX, BOX_ON_TARGET, COLOURS, PLAYER, PLAYER_ON_TARGET, TARGET, WALL

TILE = 32
"""Pixels along a cell of a picture."""

_PALETTE = {
    "#": (92, 84, 104), "=": (112, 104, 126), "%": (66, 60, 78), "o": (44, 40, 54),
    ".": (224, 214, 196), ",": (212, 201, 181),
    "t": (206, 86, 80), "u": (232, 158, 140),
    "K": (70, 44, 24), "B": (186, 130, 70), "b": (214, 160, 96), "D": (146, 98, 50),
    "k": (28, 74, 48), "G": (86, 160, 96), "g": (128, 196, 124), "d": (58, 124, 74),
    "h": (196, 60, 56), "H": (150, 40, 42), "s": (244, 204, 164), "S": (222, 172, 130), "e": (38, 30, 40),
    "c": (64, 96, 168), "C": (46, 70, 130), "f": (60, 50, 56), "w": (250, 248, 240),
}  # fmt: skip

_WALL = """
================
===============%
==#####%==#####%
=######%=######%
=######%=######%
=######%=######%
=######%=######%
%%%%%%%%%%%%%%%%
====%===========
###%==#########%
###%=##########%
###%=##########%
###%=##########%
###%=##########%
###%=##########%
%%%%%%%%%%%%%%%%
"""
_FLOOR = """
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
...............,
,,,,,,,,,,,,,,,,
"""
_TARGET = """


      uttu
    utttttu
   utt    ttu
   tt      tt
  ut   tt   tu
  tt  tttt  tt
  tt  tttt  tt
  ut   tt   tu
   tt      tt
   utt    ttu
    uttttttu
      uttu


"""
_BOX = """

 KKKKKKKKKKKKKK
 KbbbbbbbbbbbBK
 KbBBBBBBBBBBDK
 KbBKKKKKKKKBDK
 KbBKbBDDDbKBDK
 KbBKBbBDbBKBDK
 KbBKDBbbBDKBDK
 KbBKDDbbBDKBDK
 KbBKDbBDbBKBDK
 KbBKbBDDDbKBDK
 KbBKKKKKKKKBDK
 KbBBBBBBBBBBDK
 KBDDDDDDDDDDDK
 KKKKKKKKKKKKKK

"""
_PLAYER = """

     hhhhhh
    hhhhhhhh
    HHHHHHHHHH
    sssssssS
    sessseSS
    sessseSS
     sssssS
    cccwwccc
   ccccwwcccc
   sccccccccs
   sccccccccs
     CCCCCC
     CC  CC
     ff  ff
    fff  fff
"""


def picture(kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A board `[H, W]` as RGB `[32 H, 32 W, 3]`."""
    tiles = _tiles()[kinds]
    tiles[_amid_walls(kinds)] = _PALETTE["o"]
    return enlarged(tiles.transpose(4, 0, 2, 1, 3).reshape(3, *(16 * n for n in kinds.shape)), TILE // 16)


def enlarged(rgb: NDArray[np.uint8], times: int = TILE) -> NDArray[np.uint8]:
    """Colours `[3, H, W]` as RGB `[times H, times W, 3]`."""
    return np.ascontiguousarray(rgb.transpose(1, 2, 0).repeat(times, 0).repeat(times, 1))


def kinds_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The kinds `[H, W]` of an observation of colours `[3, H, W]`; None where a colour is of no kind."""
    same = (rgb[:, None] == np.array(COLOURS, np.uint8).T[:, :, None, None]).all(0)
    return same.argmax(0).astype(np.uint8) if same.any(0).all() else None


def _amid_walls(kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Walls that touch nothing else."""
    wall = np.pad(kinds == WALL, 1, constant_values=True)
    height, width = kinds.shape
    return np.all([wall[y : y + height, x : x + width] for y in range(3) for x in range(3)], 0)


@cache
def _tiles() -> NDArray[np.uint8]:
    """`[7, 16, 16, 3]`."""
    floor, target = _over("", _FLOOR), _over(_FLOOR, _TARGET)
    tiles = np.stack([floor] * len(COLOURS))
    tiles[WALL] = _over("", _WALL)
    tiles[[TARGET, PLAYER_ON_TARGET]] = target
    tiles[A_BOX] = _over(_FLOOR, _BOX)
    tiles[BOX_ON_TARGET] = _over(_FLOOR, _BOX.translate(str.maketrans("KBbD", "kGgd")))
    tiles[PLAYER] = _over(_FLOOR, _PLAYER)
    tiles[PLAYER_ON_TARGET] = _over(_FLOOR, _TARGET, _PLAYER)
    return tiles


def _over(*sprites: str) -> NDArray[np.uint8]:
    """Sprites on top of each other, `[16, 16, 3]`."""
    out = np.zeros((16, 16, 3), np.uint8)
    for sprite in sprites:
        for row, line in enumerate(sprite.split("\n")[1:17]):
            for column, sign in enumerate(line):
                if sign != " ":
                    out[row, column] = _PALETTE[sign]
    return out
