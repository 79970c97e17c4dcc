"""The tests of saliency methods as a table, and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from rl_interp.core.stats import shown
from rl_interp.core.tables import markdown


def table(result: Mapping[str, Any]) -> str:
    """A row a method and control, in Markdown, and the sentence."""
    substrates = list(next(iter(result["controls"].values()))["deletion"])
    head = [
        "map", *(f"deletion, {each}" for each in substrates), *(f"insertion, {each}" for each in substrates),
        "counterfactual, action", "counterfactual, value", "agreement", "all layers shuffled",
    ]  # fmt: skip
    rows = []
    for kind in ("methods", "controls"):
        for name, row in result[kind].items():
            cells = [row[test][each] for test in ("deletion", "insertion") for each in substrates]
            cells += [row["counterfactual"]["action"], row["counterfactual"]["value"], row["agreement"]]
            last = _cell(row["randomisation"]) if "randomisation" in row else ""
            rows.append([name if kind == "methods" else f"*{name}*", *map(_cell, cells), last])
    left_out = "".join(f"- {name}: {why}\n" for name, why in result["refused"].items())
    return "\n".join(
        [
            markdown(head, rows), result["sentence"], "",
            _LEGEND,
            *(["", "Left out:", "", left_out] if left_out else []),
        ]
    )  # fmt: skip


_LEGEND = (
    "Deletion and insertion: how far the target moves, of what the substrate alone moves it; large is good for "
    "deletion, small for insertion. Counterfactual: share of states in which the thing that the map weighs most "
    "changes the agent more than the one it weighs least; chance is 0.5. Agreement: rank correlation with the other "
    "methods' maps. Shuffled: rank correlation with the map of the agent without what it has learned, in up to ten "
    "states; of so few the interval, over their episodes, is too narrow, and where the picture says what can matter at "
    "all, as of symbols, it is high for any method. Controls, in italics, know nothing of the agent."
)


def sentence(result: Mapping[str, Any], name: str) -> str:
    """Which methods beat every control on this agent, and how far that can be trusted."""
    best, tests = result["beats_all_controls"], len(result["tests"])
    most = max((len(each) for each in result["beats_all_controls_in"].values()), default=0)
    if best:
        first = (
            f"On {name}, {_listed(best)} beat{'s' * (len(best) == 1)} every control in deletion and insertion on every "
            "substrate."
        )
    elif most:
        near = [method for method, each in result["beats_all_controls_in"].items() if len(each) == most]
        first = (
            f"On {name}, no method beats every control in deletion and insertion on every substrate; {_listed(near)} "
            f"come{'s' * (len(near) == 1)} nearest, in {most} of {tests} tests."
        )
    else:
        first = f"On {name}, no method beats every control in any test."
    edits = [
        method
        for method, each in result["beats_all_controls_in"].items()
        if any(test.startswith("counterfactual") for test in each)
    ]
    if any(test.startswith("counterfactual") for test in result["tests"]):
        words = f"{_listed(edits)} tell{'s' * (len(edits) == 1)}" if edits else "No method tells"
        second = f" {words} what an edit of the game will change better than every control."
    else:
        second = " Too few things can be edited here for counterfactuals."
    agree = result["substrates_agree"]
    third = (
        f" The order of all maps agrees across substrates with rank correlation {_number(agree['deletion'])} in "
        f"deletion and {_number(agree['insertion'])} in insertion."
    )
    return first + second + third


def _cell(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return ""
    ends = f" {shown(estimate['interval'], '.2f')}" if estimate["interval"] else ""
    return f"{estimate['value']:.2f}{ends}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
