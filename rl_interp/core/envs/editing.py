"""Edits of an environment's state, written as texts such as `remove:3,4`, and what an editor needs to offer them.

Counterfactuals, the entities of a saliency map and the explorer's editors all make them by this.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.games import LabelledGame
from rl_interp.core.envs.labelled import LabelledEnv
from rl_interp.core.errors import UserError

Cell = tuple[int, int]
"""Column and row."""


@dataclass(frozen=True)
class Tool:
    """One kind of edit, for a person to make."""

    name: str
    form: str
    """Of the edit: `{at}` is the place that is pointed at, `{from}` the key of the thing that is dragged there,
    `{value}` a number, and each of `choices` by its name."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    value: tuple[int, int, int] | None = None
    """Smallest, largest, and as it is."""


@dataclass(frozen=True)
class Thing:
    """What can be dragged."""

    name: str
    key: str
    """What edits call it, or its place."""
    x: float
    """Of its centre, in pixels of the screen."""
    y: float


@dataclass(frozen=True)
class Grid:
    """Cells on the screen: places are then `COLUMN,ROW`, and else pixels `X,Y`."""

    left: float
    top: float
    side: float
    """Pixels."""
    columns: int
    rows: int
    first: Cell = (0, 0)
    """The cell that is shown at the top left."""


@dataclass(frozen=True)
class Editing:
    """A state, to be edited on its screen."""

    tools: tuple[Tool, ...]
    things: tuple[Thing, ...]
    grid: Grid | None = None
    lead: int = 0
    """How many steps earlier an edit must be made for the observation to show it as if it had always been so."""
    caveat: str = ""


@runtime_checkable
class Editable(Protocol):
    """An environment at play whose state can be edited."""

    def editing(self) -> Editing:
        """What can be edited in the state as it is."""
        ...

    def edit(self, edits: Sequence[str]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Make edits, one after the other; returns the observation and `info` of what results.

        Raises:
            UserError: one is of another form, or can't be made; then none is.
        """
        ...


def require_editable(env: LabelledEnv, config: EnvConfig) -> Editable:
    """An environment as one that can be edited.

    Raises:
        UserError: it can't be.
    """
    if isinstance(env, Editable):
        return env
    raise UserError(
        f"the state of {config.id} can't be edited; that of MiniGrid, Crafter, Sokoban and Ms. Pac-Man can, and "
        "mazes are edited where an episode starts."
    )


class EditableGame(LabelledGame):
    """A game whose state can be edited."""

    @abstractmethod
    def editing(self) -> Editing: ...

    @abstractmethod
    def make(self, edit: str) -> None:
        """Make one edit; raises as `edit` does, and may then have made a part of it."""

    @abstractmethod
    def keep(self) -> Callable[[], None]:
        """What brings back the state as it is now."""

    def edit(self, edits: Sequence[str]) -> tuple[NDArray[Any], dict[str, Any]]:
        bring_back = self.keep()
        try:
            for each in edits:
                self.make(each)
        except UserError:
            bring_back()
            raise
        return self._observe(), self._info()

    def seen_with(self, edits: Sequence[str]) -> NDArray[Any]:
        """The observation after edits, which are taken back; raises as `edit` does."""
        bring_back = self.keep()
        try:
            for each in edits:
                self.make(each)
            return self._observe()
        finally:
            bring_back()


def read_edit(edit: str, forms: Mapping[str, str]) -> tuple[str, list[str]]:
    """The name of an edit, and its parts.

    Args:
        forms: name to its form, in which `X` and `Y` are whole numbers, and other words in capitals are words.

    Raises:
        UserError: it is of none of these forms.
    """
    name, _, rest = edit.partition(":")
    pattern = re.sub("[A-Z]+", lambda word: _PARTS.get(word[0], r"(\w{1,40})"), forms.get(name, ""))
    found = re.fullmatch(pattern, rest, re.ASCII) if name in forms else None
    if found is None:
        listed = ", ".join(f"{name}:{form}" for name, form in forms.items())
        raise UserError(f"edit {edit[:60]!r} given; it has one of the forms {listed}.")
    return name, list(found.groups())


_PARTS = {"X": r"(\d{1,3})", "Y": r"(\d{1,3})", "N": r"(\d{1,2})"}
