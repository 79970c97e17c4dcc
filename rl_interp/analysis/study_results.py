"""What a study found: conditions compared over seeds, as a table and as learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_interp.core import tables
from rl_interp.core.errors import UserError
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.stats import bootstrap, iqm, plain, shown

OWN_SCORES = ("crafter_score", "success_rate")


def compare(results: Sequence[dict[str, Any]], base: str) -> list[dict[str, Any]]:
    """Per agent, environment and condition: the IQM over seeds of the final return, with its 95% interval; and for each
    condition but `base` the difference to it, and whether its interval excludes zero. With too few seeds, intervals and
    what they would say are None."""
    rows: list[dict[str, Any]] = []
    for agent, env in _groups(results):
        evaluations = _evaluations(results, agent, env)
        if base not in evaluations:
            raise UserError(f"a study without the condition {base!r} has nothing to compare with.")
        scores = {name: np.array([each["mean"] for each in found]) for name, found in evaluations.items()}
        for name, values in scores.items():
            row = {"agent": agent, "env": env, "condition": name, "seeds": len(values)}
            row |= {"iqm": iqm(values), "interval": plain(bootstrap([values])), **_own_scores(evaluations[name])}
            if name != base:
                difference = bootstrap([values, scores[base]], lambda ours, theirs: iqm(ours) - iqm(theirs))
                row |= {"difference": difference.value, "difference_interval": plain(difference)}
                row["excludes_zero"] = difference.excludes_zero
            rows.append(row)
    return rows


def _groups(results: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Agents and environments, in the order of the results."""
    return list(dict.fromkeys((result["agent"], result["env"]) for result in results))


def _evaluations(results: Sequence[dict[str, Any]], agent: str, env: str) -> dict[str, list[dict[str, Any]]]:
    """Condition to its seeds' evaluations."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if (result["agent"], result["env"]) == (agent, env):
            found.setdefault(result["condition"], []).append(result["evaluation"])
    return found


def _own_scores(evaluations: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The environment's own scores, averaged over seeds."""
    names = [name for name in OWN_SCORES if all(name in each for each in evaluations)]
    return {name: float(np.mean([each[name] for each in evaluations])) for name in names}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison as a table."""
    own = [name for name in OWN_SCORES if any(name in row for row in rows)]
    heads = ["agent", "environment", "condition", "seeds", "final return, IQM [95% interval]", "difference to base"]
    heads += ["excludes zero", *(name.replace("_", " ") for name in own)]
    table = []
    for row in rows:
        difference = excludes = ""
        if "difference" in row:
            difference = f"{row['difference']:+.3g} {shown(row['difference_interval'], '+.3g')}"
            excludes = {True: "yes", False: "no", None: "unknown"}[row["excludes_zero"]]
        score = f"{row['iqm']:.3g} {shown(row['interval'])}"
        cells = [row["agent"], row["env"], row["condition"], str(row["seeds"]), score, difference, excludes]
        table.append([*cells, *(f"{row[name]:.3g}" if name in row else "" for name in own)])
    return tables.markdown(heads, table)


def plot(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Training returns against environment steps: every seed a thin line, the mean over seeds a thick one."""
    from matplotlib.ticker import EngFormatter

    groups = _groups(results)
    colours = dict(
        zip(dict.fromkeys(r["condition"] for r in results), ("0.35", "tab:orange", "tab:blue"), strict=False)
    )
    figure, axes = new_figure(1, len(groups), 5.2 * len(groups), 3.6)
    for panel, (agent, env) in zip(axes[0], groups, strict=True):
        for condition, colour in colours.items():
            group = [r for r in results if (r["agent"], r["env"], r["condition"]) == (agent, env, condition)]
            curves = [r for r in group if r["steps"]]  # in a short training no episode may have ended
            if not curves:
                continue
            grid = np.linspace(0, max(r["steps"][-1] for r in curves), 200)
            every = np.array([np.interp(grid, r["steps"], _smooth(r["returns"])) for r in curves])
            panel.plot(grid, every.T, color=colour, linewidth=0.7, alpha=0.45)
            label = f"{condition} ({len(curves)} seed{'s' * (len(curves) > 1)})"
            panel.plot(grid, every.mean(0), color=colour, linewidth=2, label=label)
        panel.set(title=f"{agent}, {env}", xlabel="environment steps", ylabel="return of training episodes")
        panel.set_xlim(0, None)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))  # 5k, 1M
        low, high = panel.get_ylim()
        panel.set_ylim(low, max(high, low + 0.1))  # where nothing was learned, noise would fill the panel
        panel.legend(frameon=False, loc="best")
        panel.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def _smooth(values: Sequence[float], window: int = 5) -> np.ndarray:
    """Centred running mean, shorter at the ends."""
    padded = np.pad(np.asarray(values, float), window // 2, mode="edge")
    return np.convolve(padded, np.ones(window) / window, "valid")
