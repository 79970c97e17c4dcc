"""The suite's errors: one sentence that says what was given, what was wanted and what to do."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from math import inf


class UserError(ValueError):
    """Something the caller can mend. The command line prints its sentence without a traceback.

    What files say may be quoted in it: what would break the line, or can't be printed, is escaped.
    """

    def __init__(self, sentence: str = ""):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in str(sentence)))


class HookError(UserError):
    """A hook that could not be placed, that never fired, or that changed what it must not change."""


class NotFiniteError(UserError):
    """Values of an agent that are NaN or infinite."""

    def __init__(self, what: str):
        super().__init__(
            f"{what} are NaN or infinite, so no result follows from them; look at the agent's weights and inputs."
        )


class RunError(UserError):
    """A run directory that is missing, altered, or not of the kind asked for."""


class ShapeError(RunError):
    """Weights whose shapes are not those of the agent that they are to be loaded into.

    Attributes:
        have, want: the shapes of the first tensor that differs, in the file and in the agent; None where it has none.
    """

    def __init__(self, sentence: str, have: tuple[int, ...] | None, want: tuple[int, ...] | None):
        super().__init__(sentence)
        self.have, self.want = have, want


def unknown(what: str, given: object, known: Iterable[object]) -> str:
    """The sentence for a name that is not among `known`: the nearest ones first, then those that there are."""
    names = list(dict.fromkeys(map(str, known)))
    listed = ", ".join(names[:_LISTED]) or "none"
    if len(names) > _LISTED:
        listed += f" and {len(names) - _LISTED} more"
    near = _nearest(str(given), names)
    if not near:
        return f"unknown {what} {given!r}; known: {listed}."
    return f"unknown {what} {given!r}. Did you mean {' or '.join(map(repr, near))}? Known: {listed}."


def _nearest(given: str, names: list[str]) -> list[str]:
    """At most three: those with the fewest differences, whatever their case, and then those that contain it."""
    folded = {name.casefold(): name for name in reversed(names)}
    near = difflib.get_close_matches(given.casefold(), folded, n=3, cutoff=0.8)
    near += sorted((each for each in folded if given and given.casefold() in each), key=len)
    near = near or difflib.get_close_matches(given.casefold(), folded, n=1)
    return [folded[each] for each in dict.fromkeys(near)][:3]


_LISTED = 30
"""Names that are listed, where there are many, such as environments."""


def at_least_one(**numbers: int) -> None:
    """Raise a `UserError` that names the first of `numbers` below 1."""
    require_numbers(numbers, at_least_1=tuple(numbers))


def require_numbers(given: object, **wanted: tuple[str, ...]) -> None:
    """Raise a `UserError` that names the first number that is not as it must be; NaN never is.

    Args:
        given: a dataclass, or numbers by name. A tuple counts as each of its numbers; None and what is no number
            are passed over.
        wanted: names of numbers, by what they must be: `at_least_0`, `at_least_1`, `positive`, `share` or `seed`.
            Those that `given` does not have are passed over.
    """
    values = given if isinstance(given, Mapping) else vars(given)
    for kind, names in wanted.items():
        fits, sentence = _NUMBERS[kind]
        for name in names:
            value = values.get(name)
            numbers = value if isinstance(value, tuple) else (value,)
            # What is no number is not checked here, such as a checkpoint that is given as a path.
            if not all(fits(number) for number in numbers if isinstance(number, int | float)):
                raise UserError(f"{name}={value} given; it must {sentence}.")


MAX_SEED = 1 << 30
"""Environments take seeds of 31 bits, and episodes get the next ones."""
_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "at_least_0": (lambda number: 0 <= number < inf, "be at least 0 and finite"),
    "at_least_1": (lambda number: 1 <= number < inf, "be at least 1"),
    "positive": (lambda number: 0 < number < inf, "be above 0 and finite"),
    "share": (lambda number: 0 <= number <= 1, "lie in [0, 1]"),
    "seed": (lambda number: 0 <= number <= MAX_SEED, f"be at least 0 and at most {MAX_SEED}"),
}
