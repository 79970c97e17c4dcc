"""Ms. Pac-Man's ground truth, read from the console's 128 bytes of RAM.

Positions, dots, score and lives are the AtariARI set (Anand et al. 2019, arXiv 1906.08226). The rest is
not in that set; it was found by comparing the RAM before and after, by writing it and looking at the
screen, and by playing on from restored states. The tests repeat every one of these checks against the
emulator. Three of the set's bytes say less than their names: 19 ("number of ghosts") stays at 3
throughout, 123 counts the lives left besides this one, and 56 ("player direction") is 255, which reads
as left, in frames at walls and corners: where the player heads is in byte 5 always.

The game stops for its animations: before each life, when a ghost is eaten, a maze is cleared or the player
is caught. RAM 39 tells which, counting up by one every eighth frame; what the stick does then changes
nothing. A life is taken from `lives` at the end of its animation only, 17 to 21 steps after the
collision.

In 18% of the steps of the reference agent no action can make a difference. The label `controllable` was checked on
2,500 steps, each played on from its restored state with five actions, and agreed in all of them. Fits, probes and
hypotheses leave such steps out: what a layer holds during an animation takes part in no choice.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import Concept

GHOSTS = ("sue", "inky", "pinky", "blinky")
"""In the order of RAM 6-9 (x), 12-15 (y) and 1-4 (bit 7: edible; else bit 6 without bit 4: eaten, on its way home)."""

X_OFFSET, Y_OFFSET = -8.4, 5.6
"""A sprite's centre on the screen, in pixels, is its RAM position plus this."""

NEAR = 24
"""Pixels of city-block distance within which something is near: two tiles of the maze."""

PILLS = {2: (150.0, 149.5), 3: (150.0, 17.5), 4: (10.0, 150.5), 5: (10.0, 18.5)}
"""Bit of RAM 117 to the screen position of the power pill that it stands for."""

PILLS_LEFT, LIVES_LEFT, EDIBLE = 117, 123, 128
"""Bytes of the RAM: a bit a power pill, and, in its lower half, the lives besides this one; and the bit of a ghost's
byte that says that it is edible."""

HORIZON = 15
"""Steps of `dies_soon`: one second of play at frame skip 4."""

_DIRECTIONS = ("up", "right", "down", "left")
"""Of the lowest two bits of RAM 5, from 0."""

_PLAYING, _DYING = 255, range(73, 84)
"""RAM 39 while the game goes on, and while the player, who was caught, dies."""
_RESUMES = (33, 49, 53)
"""Its last values before the game goes on: at the start, with the next life or maze, and after a ghost was eaten. That
is on the frame that makes RAM 30, which counts frames, a multiple of 8."""

# What a concept means is part of a store's checksum of its labels, so the texts stay as they are.
CONCEPTS: dict[str, Concept] = {
    "ghost_near": Concept(f"a ghost that kills (neither edible nor on its way home) within {NEAR} px"),
    **{f"ghost_near_{side}": Concept(f"the nearest such ghost is near, and mostly {side}") for side in _DIRECTIONS},
    **{f"{ghost}_near": Concept(f"{ghost.capitalize()}, in whatever state, within {NEAR} px") for ghost in GHOSTS},
    "ghost_edible": Concept("at least one ghost is edible"),
    "edible_ghost_near": Concept(f"an edible ghost within {NEAR} px"),
    "power_pill_near": Concept(f"a power pill that is left within {NEAR} px"),
    "fruit_present": Concept("a fruit is in the maze"),
    "left_half": Concept("the player is in the left half of the maze"),
    "top_half": Concept("the player is in the top half of the maze"),
    **{f"moving_{side}": Concept(f"the player heads {side}, if no wall stops it") for side in _DIRECTIONS},
    "controllable": Concept("actions act: the game does not stand still for an animation"),
    "dying": Concept("a ghost has caught the player, whose death is shown; actions do nothing"),
    "dies_soon": Concept(f"a ghost catches the player within {HORIZON} decisions, and actions still act"),
    "player_x": Concept("the player's column, px", "number"),
    "player_y": Concept("the player's row, px", "number"),
    "ghost_distance": Concept("city-block distance to the nearest ghost that kills, px", "number"),
    "power_pills": Concept("power pills left, 0 to 4", "number"),
    "dots_eaten": Concept("dots eaten in this maze", "number"),
    "score": Concept("the score on the screen", "number"),
}

_FAR = 400.0
"""Stands for the distance to a thing that is not there: more than the screen's width plus height."""


def labels(ram: NDArray[np.uint8], frames: int = 4) -> dict[str, float]:
    """The concepts of one state, from its RAM uint8 `[128]`; booleans are 0 or 1.

    Args:
        frames: for which an action is held. It acts if the game goes on within them; with 1, every other frame's does,
            as the game reads the stick on odd frames only.
    """
    byte = ram.tolist()
    x, y = byte[10] + X_OFFSET, byte[16] + Y_OFFSET
    distance = [abs(byte[6 + i] - byte[10]) + abs(byte[12 + i] - byte[16]) for i in range(4)]
    edible = [byte[1 + i] >> 7 for i in range(4)]
    harmful = [i for i in range(4) if not edible[i] and byte[1 + i] >> 4 & 5 != 4]
    threat = min(harmful, key=distance.__getitem__, default=None)
    ghost_distance = _FAR if threat is None else float(distance[threat])
    near = ghost_distance <= NEAR
    side = _side(byte[6 + threat] - byte[10], byte[12 + threat] - byte[16]) if near and threat is not None else None
    pills = [place for bit, place in PILLS.items() if byte[117] >> bit & 1]
    return {
        "ghost_near": near,
        **{f"ghost_near_{name}": side == name for name in _DIRECTIONS},
        **{f"{ghost}_near": distance[i] <= NEAR for i, ghost in enumerate(GHOSTS)},
        "ghost_edible": any(edible),
        "edible_ghost_near": any(edible[i] and distance[i] <= NEAR for i in range(4)),
        "power_pill_near": any(abs(px - x) + abs(py - y) <= NEAR for px, py in pills),
        "fruit_present": byte[11] > 0,
        "left_half": x < 80,
        "top_half": y < 86,
        **{f"moving_{name}": byte[5] & 3 == i for i, name in enumerate(_DIRECTIONS)},
        "controllable": byte[39] == _PLAYING or (byte[39] in _RESUMES and byte[30] % 8 + frames >= 8),
        "dying": byte[39] in _DYING,
        "player_x": x,
        "player_y": y,
        "ghost_distance": ghost_distance,
        "power_pills": float(len(pills)),
        "dots_eaten": float(byte[119]),
        "score": float(sum(_bcd(byte[120 + i]) * 100**i for i in range(3))),
    }


def hindsight(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    """`dies_soon` for each step of a whole episode, from its columns `dying` and `controllable`, both before each
    step. Counted back from the collision; where the episode is cut off, no later one is known and none counts."""
    dying = np.asarray(columns["dying"]) > 0
    caught = dying & ~np.concatenate([[False], dying[:-1]])
    ahead = np.lib.stride_tricks.sliding_window_view(np.concatenate([caught[1:], np.zeros(HORIZON, bool)]), HORIZON)
    return {"dies_soon": ahead.any(1) & (np.asarray(columns["controllable"]) > 0)}


def _side(dx: float, dy: float) -> str:
    if abs(dx) >= abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def _bcd(byte: int) -> int:
    return (byte >> 4) * 10 + (byte & 15)
