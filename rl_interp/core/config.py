"""Configs to and from plain values: frozen dataclasses in code, YAML on disk."""

import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from rl_interp.core.errors import RunError, unknown

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """A tree of dicts, lists, numbers and strings, as YAML and JSON hold it."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(cls: type[T], values: Mapping[str, Any], source: Path | str) -> T:
    """The dataclass `cls` from what `to_plain` gave; fields that are missing take their default.

    Raises:
        RunError: `values` names a field that `cls` does not have.
    """
    hints = typing.get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # pyright: ignore[reportArgumentType]
    arguments = {}
    for name, value in values.items():
        if name not in names:
            raise RunError(f"{source}: {unknown(f'{cls.__name__} field', name, names)}")
        arguments[name] = _field(hints[name], value, source)
    return cls(**arguments)


def _field(hint: Any, value: Any, source: Path | str) -> Any:
    """A field's value: of a dataclass, of one of its subclasses (`hint.concrete(values)` says which), or plain."""
    kinds = [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type)]
    for kind in kinds:
        if isinstance(value, Mapping) and hasattr(kind, "concrete"):
            kind = kind.concrete(value)
        if isinstance(value, Mapping) and is_dataclass(kind):
            return from_plain(typing.cast(type, kind), value, source)
        if isinstance(value, list) and typing.get_origin(hint) is tuple:
            return tuple(value)
    return value
