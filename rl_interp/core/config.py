"""Configs to and from plain values: frozen dataclasses in code, YAML on disk."""

import reprlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from rl_interp.core.errors import RunError, UserError, unknown
from rl_interp.core.read import RESTORE, fits

T = TypeVar("T")

SUBCLASS: dict[type, Callable[[Mapping[str, Any]], type]] = {}
"""For an abstract config class, a function from plain values with an `id` to the subclass that they describe. The
module that knows the subclasses adds it; it may raise a `UserError`."""


def to_plain(value: Any) -> Any:
    """A tree of dicts, lists, numbers and strings, as YAML and JSON hold it."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def differences(recorded: Any, given: Any) -> str:
    """The settings in which two configs, or trees of plain values, differ, for a message; empty if there are none:
    `env.id is 'A', not 'B' as given, and k is 16, not 32 as given`."""
    theirs, ours = (dict(_leaves(to_plain(each))) for each in (recorded, given))
    found = [
        f"{name} is {reprlib.repr(theirs.get(name))}, not {reprlib.repr(ours.get(name))} as given"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield before + name, value


def from_plain(cls: type[T], values: Mapping[str, Any], source: Path | str) -> T:
    """The dataclass `cls` from what `to_plain` gave; fields that are missing take their default. A class may have
    `RENAMED`, from the names that fields had in earlier versions to those of now.

    Raises:
        RunError: `values` names a field that `cls` does not have, or gives one a value of another type, or one that
            `cls` refuses.
    """
    hints = _hints(cls)
    arguments = {}
    renamed = getattr(cls, "RENAMED", {})
    for name, value in values.items():
        name = renamed.get(name, name)
        if name not in hints:
            raise RunError(f"{source}: {unknown(f'{cls.__name__} field', name, list(hints))}")
        arguments[name] = _field(hints[name], value, f"{source}: {name}")
    try:
        return cls(**arguments)
    except RunError:
        raise
    except UserError as error:  # which does not know where the value comes from
        raise RunError(f"{source}: {error}") from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}  # pyright: ignore[reportArgumentType]


def _field(hint: Any, value: Any, source: str) -> Any:
    """A field's value: of a dataclass, of one of its subclasses (`SUBCLASS` says which), or plain."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for kind in options:
        origin = typing.get_origin(kind)
        if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
            made = from_plain(_concrete(kind, value, source), value, source)
            if isinstance(made, kind):
                return made
        elif origin is tuple and isinstance(value, list):
            return tuple(_field(typing.get_args(kind)[0], each, source) for each in value)
        elif origin is typing.Literal:
            if value in typing.get_args(kind):
                return value
        elif isinstance(kind, type) and fits(value, kind):
            return value
    raise RunError(f"{source} is {reprlib.repr(value)}, where {_words(options)} is wanted; {RESTORE}.")


def _concrete(kind: type, values: Mapping[str, Any], source: str) -> type:
    if kind not in SUBCLASS:
        return kind
    if not isinstance(values.get("id"), str):
        raise RunError(f"{source} has {reprlib.repr(values.get('id'))} for 'id', where a text is wanted; {RESTORE}.")
    try:
        return SUBCLASS[kind](values)
    except UserError as error:
        raise RunError(f"{source}: {error}") from error


def _words(options: tuple[Any, ...]) -> str:
    known = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}
    words = []
    for kind in options:
        of = typing.get_origin(kind)
        values = ", ".join(map(repr, typing.get_args(kind)))
        words.append(f"one of {values}" if of is typing.Literal else "a list" if of is tuple else
                     known.get(kind, f"the fields of {getattr(kind, '__name__', kind)}"))  # fmt: skip
    return " or ".join(words)
