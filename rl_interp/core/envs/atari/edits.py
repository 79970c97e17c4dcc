"""Edits of Ms. Pac-Man, by its RAM. The screen shows them from the next frame on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.atari.config import AtariConfig, rom_name
from rl_interp.core.envs.atari.labelled import AtariLabelled
from rl_interp.core.envs.atari.mspacman import EDIBLE, GHOSTS, LIVES_LEFT, PILLS, PILLS_LEFT, X_OFFSET, Y_OFFSET
from rl_interp.core.envs.editing import Editing, Thing, Tool, read_edit
from rl_interp.core.errors import UserError, unknown

Bytes = dict[int, int]
"""To be written: number in the RAM to value."""
FORMS = {"ghost": "GHOST:X,Y", "edible": "GHOST:N", "pill": "N:N", "lives": "N"}
"""By name: a ghost at a pixel of the screen, whether it is edible (0 or 1), whether power pill 1 to 4 is there, and the
lives left, this one included."""
MOST_LIVES = 4
_CAVEAT = (
    "This is written into the console's RAM as many steps ago as the agent sees, and the same actions are played again "
    "from there: ghosts have moved on since, and one that is put into a wall goes straight on through walls, even off "
    "the screen, until it meets a way. "
    "How long ghosts stay edible is up to the game. Such states may be ones that the game never comes to."
)


def labelled(config: AtariConfig) -> AtariLabelled:
    """One game; Ms. Pac-Man can be edited."""
    return MsPacmanLabelled(config) if rom_name(config.id) == "ms_pacman" else AtariLabelled(config)


class MsPacmanLabelled(AtariLabelled):
    """Ms. Pac-Man, whose state can be edited."""

    def editing(self) -> Editing:
        ram = self.ram.astype(int)
        things = [Thing(ghost, ghost, *screen_place(ram[6 + i], ram[12 + i])) for i, ghost in enumerate(GHOSTS)]
        edible = [
            Tool(f"{ghost} is edible", f"edible:{ghost}:{{value}}", value=(0, 1, int(ram[1 + i]) >> 7))
            for i, ghost in enumerate(GHOSTS)
        ]
        pills = [
            Tool(f"power pill {bit - 1}", f"pill:{bit - 1}:{{value}}", value=(0, 1, int(ram[PILLS_LEFT]) >> bit & 1))
            for bit in PILLS
        ]
        lives = Tool("lives", "lives:{value}", value=(1, MOST_LIVES, min(MOST_LIVES, int(ram[LIVES_LEFT] & 15) + 1)))
        drag = Tool("drag a ghost", "ghost:{from}:{at}")
        return Editing((drag, *edible, *pills, lives), tuple(things), None, self.config.frame_stack, _CAVEAT)

    def edit(self, edits: Sequence[str]) -> tuple[NDArray[Any], dict[str, Any]]:
        ram, written = self.ram, {}
        for each in edits:
            made = _bytes(ram, each)
            written |= made
            ram[list(made)] = list(made.values())
        self.write(written)
        return self._stack.copy(), self._info()


def screen_place(x: int, y: int) -> tuple[float, float]:
    """Where a sprite's centre is on the screen, in pixels, from its place in the RAM."""
    return x + X_OFFSET, y + Y_OFFSET


def ghost_at(ram: NDArray[np.uint8], ghost: int, x: int, y: int, heading: int | None = None) -> Bytes:
    """A ghost, by its number in `GHOSTS`, at a place as the RAM has it."""
    turned = {} if heading is None else {1 + ghost: int(ram[1 + ghost]) & ~3 | heading}
    return {6 + ghost: x, 12 + ghost: y} | turned


def edible(ram: NDArray[np.uint8], ghost: int, yes: bool) -> Bytes:
    """A ghost that can be eaten, or one that kills."""
    return {1 + ghost: int(ram[1 + ghost]) & ~EDIBLE | (EDIBLE if yes else 0)}


def pill(ram: NDArray[np.uint8], bit: int, there: bool) -> Bytes:
    """A power pill, by its bit in `PILLS`, there or eaten."""
    return {PILLS_LEFT: int(ram[PILLS_LEFT]) & ~(1 << bit) | there << bit}


def _bytes(ram: NDArray[np.uint8], edit: str) -> Bytes:
    name, parts = read_edit(edit, FORMS)
    if name == "lives":
        count = _within("lives", parts[0], 1, MOST_LIVES)
        return {LIVES_LEFT: int(ram[LIVES_LEFT]) & ~15 | count - 1}
    if name == "pill":
        number = _within("power pill", parts[0], 1, len(PILLS))
        return pill(ram, number + 1, bool(_within("is it there", parts[1], 0, 1)))
    if parts[0] not in GHOSTS:
        raise UserError(unknown("ghost", parts[0], GHOSTS))
    ghost = GHOSTS.index(parts[0])
    if name == "edible":
        return edible(ram, ghost, bool(_within("is it edible", parts[1], 0, 1)))
    x, y = round(int(parts[1]) - X_OFFSET), round(int(parts[2]) - Y_OFFSET)
    return ghost_at(ram, ghost, min(255, max(0, x)), min(255, max(0, y)))


def _within(what: str, given: str, low: int, high: int) -> int:
    if not low <= int(given) <= high:
        raise UserError(f"{what} {given} given; it is {low} to {high}.")
    return int(given)
