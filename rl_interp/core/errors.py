"""The suite's errors: one sentence that says what was given, what was wanted and what to do."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the caller can mend. The command line prints its sentence without a traceback."""


class HookError(UserError):
    """A hook that could not be placed, never fired, or changed what it must not change."""


class RunError(UserError):
    """A run directory that is missing, altered, or of another kind than asked for."""


def unknown(what: str, given: object, known: Iterable[object]) -> str:
    """The sentence for a name that is not among `known`, with the nearest one suggested."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {given!r}; known: {', '.join(names) or 'none'}.{hint}"


def at_least_one(**numbers: int) -> None:
    """Raise a `UserError` that names the first of `numbers` below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"{name}={number} given; it must be at least 1.")
