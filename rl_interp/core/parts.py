"""A tensor within what a module gives: tuples, lists and dicts, one in the other, and places along a first axis."""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor

from rl_interp.core.errors import HookError

Path = tuple[int | str, ...]
Element = int | str | Path | None


def path_of(element: Element) -> Path:
    """An element as a path: indices and keys, from the outside in."""
    if element is None:
        return ()
    return element if isinstance(element, tuple) else (element,)


def part(whole: Any, path: Path, name: str) -> Tensor:
    """The tensor at a path within tuples, lists, dicts and tensors' first axes.

    Raises:
        HookError: there is none, or no tensor.
    """
    found = whole
    for key in path:
        try:
            found = found[key]
        except (TypeError, KeyError, IndexError):
            raise HookError(
                f"hook point {name!r} is element {key!r} of {_what(found)}, which has none; name one that is there."
            ) from None
    if not isinstance(found, Tensor):
        such = {tuple: "0", list: "0", dict: repr(next(iter(found), ""))}.get(type(found)) if found else None
        advice = f"name the element that is meant, as in HookPoint(..., element={such})" if such else "name another"
        raise HookError(f"the value at {name!r} is {_what(found)}; a hook point must be a tensor: {advice}.")
    return found


def with_part(whole: Any, path: Path, new: Tensor) -> Any:
    """A copy of tuples, lists, dicts and tensors that differs from `whole` in the part at a path."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    changed = with_part(whole[key], rest, new)
    if isinstance(whole, Tensor):
        return torch.stack([changed if i == int(key) % len(whole) else each for i, each in enumerate(whole.unbind())])
    if isinstance(whole, tuple):
        values = [changed if i == int(key) % len(whole) else each for i, each in enumerate(whole)]
        return type(whole)(*values) if hasattr(whole, "_fields") else tuple(values)
    other = copy(whole)
    other[key] = changed
    return other


def leaves(whole: Any) -> Iterator[tuple[Path, Tensor]]:
    """The tensors within tuples, lists and dicts, with their paths."""
    if isinstance(whole, Tensor):
        yield (), whole
    elif isinstance(whole, Mapping | tuple | list):
        for key, value in whole.items() if isinstance(whole, Mapping) else enumerate(whole):
            yield from (((key, *path), tensor) for path, tensor in leaves(value))


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(repr, value))}"
    return f"a {type(value).__name__}"
