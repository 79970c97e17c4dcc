"""Names and notes that people give to a dictionary's features. They lie in its run, as `names.json`."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from threading import Lock

from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import write_json
from rl_interp.core.read import read_json, require
from rl_interp.core.run import Run

MAX_NAME, MAX_NOTE = 80, 2_000
"""Characters."""
_FILE = "names.json"
_REMEDY = "restore it, or remove it, with the names that it holds"
_ONE_BY_ONE = Lock()
"""Threads of this process; other processes are kept out by the run's lock."""


@dataclass(frozen=True)
class Named:
    """What a person calls a feature, and knows of it."""

    name: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for what, most in (("name", MAX_NAME), ("note", MAX_NOTE)):
            if len(given := getattr(self, what)) > most:
                raise UserError(f"a {what} of {len(given)} characters given; at most {most} are kept.")
            if half := [each for each in given if "\ud800" <= each <= "\udfff"]:
                raise UserError(
                    f"a {what} with {half[0]!r} given, a lone surrogate, which is no character; type it anew."
                )


def names_of(run: Run) -> dict[int, Named]:
    """Feature to its name and note, of those that have one.

    Raises:
        RunError: the file is damaged.
    """
    path = run.outputs / _FILE
    if not path.is_file():
        return {}
    found = read_json(path, _REMEDY)
    named = {}
    for feature, each in found.items():
        if not (feature.isdecimal() and len(feature) < 10 and isinstance(each, dict)):
            raise RunError(f"{path} has {feature[:40]!r} for a feature's number; {_REMEDY}.")
        require(each, f"feature {feature} of {path}", _REMEDY, name=str, note=str)
        try:
            named[int(feature)] = Named(each["name"], each["note"])
        except UserError as error:
            raise RunError(f"feature {feature} of {path}: {str(error).rstrip('.')}; {_REMEDY}.") from None
    return named


def name_feature(run: Run, feature: int, named: Named) -> None:
    """Give a feature a name and a note, in place of those that it has; empty ones take them away."""
    give_names(run, {feature: named})


def give_names(run: Run, given: dict[int, Named]) -> None:
    """Name several features at once, atomically.

    Raises:
        RunError: another command writes the run.
    """
    with _ONE_BY_ONE, run.writing():
        all_ = names_of(run) | given
        kept = {str(feature): asdict(each) for feature, each in sorted(all_.items()) if each != Named()}
        run.outputs.mkdir(parents=True, exist_ok=True)
        write_json(run.outputs / _FILE, kept)


def carry_names(source: Run, target: Run, pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Give the target's features the names of those of the source that they match; one that has its own keeps it.

    Args:
        pairs: features that match, of the source and of the target.

    Returns:
        Which were carried: feature of the target to that of the source.
    """
    names, there = names_of(source), names_of(target)
    carried = {theirs: ours for ours, theirs in pairs if ours in names and theirs not in there}
    if carried:
        give_names(target, {theirs: names[ours] for theirs, ours in carried.items()})
    return carried
