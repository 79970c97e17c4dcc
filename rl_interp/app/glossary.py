"""The terms of a command's result, each with its line, for `--explain`."""

from collections.abc import Iterator
from typing import Any

from rl_interp.app.terms import INTERVAL, TERMS

NAMES = {
    "ablated": 1,
    "achievements": 1,
    "achievements_intervals": 1,
    "active": 1,
    "bad": 1,
    "bad_in_states": 1,
    "beats_all_controls_in": 1,
    "bits": 1,
    "by_concept": 1,
    "by_hook": 2,
    "by_link": 1,
    "by_side": 1,
    "circuits": 1,
    "conditions": 1,
    "controls": 1,
    "controls_intervals": 1,
    "correlation_by_node": 1,
    "counterfactual": 1,
    "deletion": 1,
    "dictionaries": 2,
    "differences": 1,
    "doses": 1,
    "edges_cut_by_link": 1,
    "enables": 1,
    "enough": 1,
    "extras": 1,
    "faithfulness_by_ranking": 1,
    "fast_paths": 1,
    "futures": 1,
    "good": 1,
    "held_out": 1,
    "information": 3,
    "insertion": 1,
    "kept": 1,
    "kinds": 1,
    "leak": 1,
    "means": 1,
    "methods": 1,
    "pictures": 1,
    "played": 1,
    "policy_mean": 1,
    "rank_correlation": 2,
    "refused": 1,
    "regression": 1,
    "returns": 1,
    "scores": 1,
    "searches": 1,
    "seconds_per_map": 1,
    "substrates_agree": 1,
    "summary": 1,
    "temperature": 1,
    "units": 1,
    "vectors": 3,
    "ways": 1,
}
"""Keys whose values go by names, such as those of conditions or concepts: in how many levels, before terms follow."""

SETTINGS = {"protocol", "of", "made_from", "versions", "git", "hardware", "interventions", "hook_points"}
"""Keys of what is not explained one by one."""


def explained(result: Any) -> Iterator[tuple[str, str | None]]:
    """Each term of a result, once, in its order, and its line; None for one that the glossary lacks."""
    for term in dict.fromkeys(_terms(result)):
        yield term, _line(term)


def _line(term: str) -> str | None:
    if term in TERMS:
        return TERMS[term]
    of = term.removesuffix("_interval")
    return INTERVAL.format(of) if of != term and of in TERMS else None


def _terms(result: Any, names: int = 0) -> Iterator[str]:
    """Keys at any depth, but for `names` levels of names."""
    if isinstance(result, list):
        for each in result:
            yield from _terms(each, names)
    elif isinstance(result, dict):
        for key, value in result.items():
            if names:
                yield from _terms(value, names - 1)
                continue
            yield key
            if key not in SETTINGS:
                yield from _terms(value, NAMES.get(key, 0))
