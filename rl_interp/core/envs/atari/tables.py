"""Ground truth by table: where a game keeps its objects, and what else it knows, in the console's 128 bytes of RAM."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import Concept

Ram = Sequence[int]
"""The console's 128 bytes, each from 0 to 255."""

ABSENT = -1.0
"""The position of an object that is not there."""


@dataclass(frozen=True)
class Byte:
    """A position in RAM: `scale` times the byte at `index`, plus `offset`, in pixels."""

    index: int
    offset: float
    scale: float = 1.0

    def __call__(self, ram: Ram) -> float:
        return self.scale * ram[self.index] + self.offset


Position = Byte | Callable[[Ram], float] | float
"""Along one axis, in pixels from the left or the top; a number where it never changes."""


@dataclass(frozen=True)
class Object:
    """Something on the screen, by the centre of what is drawn when all of it is in view."""

    what: str
    """As it stands in a sentence, e.g. `the ball`."""
    x: Position
    y: Position
    present: Callable[[Ram], bool] | None = None
    """Whether it is there; None for what always is."""

    def centre(self, ram: Ram) -> tuple[float, float] | None:
        """Its x and y on the screen, or None while it is not there."""
        if self.present is not None and not self.present(ram):
            return None
        x, y = (axis(ram) if callable(axis) else axis for axis in (self.x, self.y))
        return x, y

    @property
    def moving(self) -> tuple[bool, bool]:
        """Whether its x, and its y, ever changes."""
        return callable(self.x), callable(self.y)


@dataclass(frozen=True)
class Reading:
    """Anything else that RAM tells of a state."""

    concept: Concept
    read: Callable[[Ram], float]


@dataclass(frozen=True)
class GroundTruth:
    """What a labelled environment asks of a game."""

    concepts: Mapping[str, Concept]
    labels: Callable[[NDArray[np.uint8], int], dict[str, float]]
    """The concepts of one state, from its RAM uint8 `[128]` and the frames for which an action is held; booleans are 0
    or 1."""
    hindsight: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]] = lambda columns: {}
    """What only the rest of an episode tells, from the columns `[steps]` of a whole one."""


@dataclass(frozen=True)
class Game:
    """A game's table, from which its concepts and their labels follow.

    An object gives the numbers `<name>_x` and `<name>_y`, as far as they change, and, where it comes and goes, the
    boolean `<name>_present`.
    """

    objects: Mapping[str, Object]
    readings: Mapping[str, Reading]
    listening: str
    """When the game listens, as it stands in a sentence after "actions act: "."""
    listens: Callable[[Ram, int], bool]
    """Whether an action that is held for some frames can make a difference: the concept `controllable`."""

    def ground_truth(self) -> GroundTruth:
        return GroundTruth(self.concepts(), self.labels)

    def labels(self, ram: NDArray[np.uint8], frames: int = 4) -> dict[str, float]:
        """See `GroundTruth.labels`."""
        byte = ram.tolist()
        labels: dict[str, float] = {}
        for name, thing in self.objects.items():
            centre = thing.centre(byte)
            if thing.present is not None:
                labels[f"{name}_present"] = centre is not None
            for axis, moves, at in zip("xy", thing.moving, centre or (ABSENT, ABSENT), strict=True):
                if moves:
                    labels[f"{name}_{axis}"] = at
        labels |= {name: reading.read(byte) for name, reading in self.readings.items()}
        return labels | {"controllable": self.listens(byte, frames)}

    def concepts(self) -> dict[str, Concept]:
        concepts: dict[str, Concept] = {}
        for name, thing in self.objects.items():
            if thing.present is not None:
                concepts[f"{name}_present"] = Concept(f"{thing.what} is there")
            otherwise = "" if thing.present is None else f"; {ABSENT:g} while it is not there"
            for axis, line, moves in zip("xy", ("column", "row"), thing.moving, strict=True):
                if moves:
                    concepts[f"{name}_{axis}"] = Concept(f"the {line} of {thing.what}, px{otherwise}", "number")
        concepts |= {name: reading.concept for name, reading in self.readings.items()}
        return concepts | {"controllable": Concept(f"actions act: {self.listening}")}


def yes_or_no(meaning: str, read: Callable[[Ram], bool]) -> Reading:
    return Reading(Concept(meaning), read)


def number(meaning: str, read: Callable[[Ram], float]) -> Reading:
    return Reading(Concept(meaning, "number"), lambda ram: float(read(ram)))


def decimal(*parts: int) -> int:
    """Bytes of two decimal digits each (BCD), the highest first, as one number."""
    return sum(((part >> 4) * 10 + (part & 15)) * 100**i for i, part in enumerate(reversed(parts)))
