"""A training's checkpoints as a table and as curves."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_interp.analysis.history.checkpoints import Checkpoint
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.stats import Estimate
from rl_interp.core.tables import markdown

PROBES = "probes (AUROC or R²)"
_LABELLED = 8
"""Curves whose names go into their panel; of more, these have a place of their own."""
_LOWEST = -0.25
"""R² below which a probe is as good as none: the axis ends there."""


def _curves(checkpoints: Sequence[Checkpoint]) -> dict[str, dict[str, list[Any]]]:
    """By picture, the curves in it: a value, or None, for each checkpoint."""

    def of(*keys: str) -> list[Any]:
        found = []
        for each in checkpoints:
            value: Any = each.figures
            for key in keys:
                value = None if value is None else value.get(key)
            found.append(value)
        return found

    names = {name for each in checkpoints for name in each.figures["probes"]}
    curves: dict[str, dict[str, list[Any]]] = {
        "return": {"mean": of("return")},
        "actions and likeness": {
            "same action as at the end": of("same_action"), "CKA with the end": of("likeness_to_end"),
            "CKA with the one before": of("likeness_to_previous"),
            "CKA with an untrained network of another seed": of("likeness_by_chance"),
        },
        "distance to the end's actions": {"share of their variance": of("action_error")},
        "effective rank": {"directions": of("effective_rank")},
        "dormant units": {"share": of("dormant")},
        "saliency maps": {
            "like those at the end": of("maps", "like_the_end"), "by chance": of("maps", "by_chance"),
            "more than those at the start": of("maps", "gained"),
        },
        PROBES: {name: of("probes", name) for name in sorted(names)},
        "dictionary": {
            "FVU": of("dictionary", "fvu"), "dead": of("dictionary", "dead_fraction"),
            "found by another seed": of("dictionary", "found_by_seed", "value"),
            "found before": of("dictionary", "found_before", "value"),
            "found before, by chance": of("dictionary", "found_before", "by_chance"),
        },
        "crosscoder": {
            "features that are here": of("crosscoder", "present"), "that begin here": of("crosscoder", "born"),
            "of those, here at the end": of("crosscoder", "stay"), "FVU": of("crosscoder", "fvu"),
        },
    }  # fmt: skip
    kept = {
        title: {n: c for n, c in of_title.items() if any(v is not None for v in c)}
        for title, of_title in curves.items()
    }
    return {title: of_title for title, of_title in kept.items() if of_title}


def history_table(checkpoints: Sequence[Checkpoint]) -> str:
    """A row a checkpoint, in Markdown; of the probes their mean."""
    curves = _curves(checkpoints)
    probes = curves.pop(PROBES, {})
    columns = {
        f"{title}: {name}" if len(of) > 1 else title: each for title, of in curves.items() for name, each in of.items()
    }
    if probes:
        columns["mean of the probes"] = [
            float(np.mean([each.value for each in row if each is not None]))
            for row in zip(*probes.values(), strict=True)
        ]
    rows = [
        [f"{each.step:,}", *(_shown(column[number]) for column in columns.values())]
        for number, each in enumerate(checkpoints)
    ]
    return markdown(["step", *columns], rows)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value.shown(".3g") if isinstance(value, Estimate) else f"{value:.3g}"


def draw(checkpoints: Sequence[Checkpoint], path: Path, title: str) -> Path:
    """All curves against the step, with intervals where there are some."""
    from matplotlib import colormaps

    curves = _curves(checkpoints)
    rows = (len(curves) + any(len(of) > _LABELLED for of in curves.values()) + 1) // 2
    figure, axes = new_figure(rows, 2, 11, 3.2 * rows, sharex=True)
    first = next((each.step for each in checkpoints if each.step), 1)
    powers = [10**i for i in range(12) if first <= 10**i <= checkpoints[-1].step]
    for axis, (name, of) in zip(axes.flat, curves.items(), strict=False):
        if len(of) > _LABELLED:
            axis.set_prop_cycle(color=colormaps["tab20"](range(20)))
        for label, values in of.items():
            _line(axis, checkpoints, values, label if len(of) > 1 else None)
        axis.set_title(name, fontsize=10)
        axis.set_xscale("symlog", linthresh=first, linscale=0.3)
        axis.set_xticks([0, *powers])
        axis.grid(alpha=0.3)
        if name == PROBES:
            axis.set_ylim(max(_LOWEST, axis.get_ylim()[0]), 1.05)
        if 1 < len(of) <= _LABELLED:
            axis.legend(fontsize=7, framealpha=0.6)
        elif len(of) > 1:  # in the free place, so that it hides nothing
            free = axes.flat[len(curves)]
            free.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="upper left", title=name, ncols=2)
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    for axis in axes.flat[max(0, len(curves) - 2) : len(curves)]:  # the last of each column
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("environment steps")
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)
    return path


def _line(axis: Any, checkpoints: Sequence[Checkpoint], values: Sequence[Any], label: str | None) -> None:
    known = [(each.step, value) for each, value in zip(checkpoints, values, strict=True) if value is not None]
    steps = [step for step, _ in known]
    line = axis.plot(steps, [_value(value) for _, value in known], marker="o", markersize=3, linewidth=1, label=label)[
        0
    ]
    bounded = list(_bounded(known))
    if bounded:
        axis.fill_between(*zip(*bounded, strict=True), alpha=0.15, color=line.get_color())


def _value(value: Any) -> float:
    return value.value if isinstance(value, Estimate) else value


def _bounded(known: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, float, float]]:
    for step, value in known:
        if isinstance(value, Estimate) and value.interval is not None:
            yield step, *value.interval
