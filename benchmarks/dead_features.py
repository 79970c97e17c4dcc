"""Do dead features tell how good an agent is? Dictionaries of every checkpoint that runs kept, in the published setting
and in the suite's own: dead latents, features that another seed finds again, and the agent's return.

    for seed in 0 1 2; do
      rl-interp train dqn --env ALE/MsPacman-v5 --seed $seed --agent-steps 200000 --keep-checkpoints 6 \
        --keep-spacing even --epsilon-steps 80000 --replay-capacity 200000 --name dqn$seed \
        --clip-reward --reward-scale 1 --no-rescale --no-dueling --priority 0 --learning-rate 1.5e-4 --adam-eps 1.5e-4
      python -m benchmarks.dead_features measure runs/dqn$seed      # resumes; 8 minutes of one core
    done
    python -m benchmarks.dead_features report                       # tables and the picture

DuPlessie 2026 (PMLR 322:385-397) counts dead features of dictionaries on Q-networks' hidden layer, each on states that
its own network plays. The published setting is that of DuPlessie & Gritsevskiy 2024 as far as it is known.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.playing import collect_store, score
from rl_interp.analysis.representations import dormant, effective_rank
from rl_interp.analysis.sae.runs import LoadedSAE, load_sae
from rl_interp.analysis.sae.stability import Agreement, stability
from rl_interp.analysis.sae.sweep import FIGURES, fit_group, name_of
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json
from rl_interp.core.hooks import last_layer
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.read import read_json
from rl_interp.core.tables import markdown
from rl_interp.sae import ArrayActivations, SAEConfig, evaluate, fit

OUT = Path(__file__).parents[1] / "docs" / "results" / "dead-features"
LATENTS, SAMPLES, EPISODES, SEEDS = 2_048, 20_000, 30, 2
SETTINGS = {
    "ours": SAEConfig(latents=LATENTS, k=32, policy_weight=0),
    "published": SAEConfig(
        latents=LATENTS, k=50, policy_weight=0, shuffle=False, centre=False, ridge=np.inf, aux_k=0, resample=False,
        start="random", learning_rate=1e-3,
    ),
}  # fmt: skip
"""For activations alone; the published one neither centres nor whitens, shuffles or revives."""


def measure(run: str) -> None:
    """Write `<run>.json`, checkpoint by checkpoint."""
    newest = load_agent(run)
    path = OUT / f"{newest.run.path.name}.json"
    found = read_json(path) if path.exists() else {"run": newest.run.path.name, "checkpoints": {}}
    for step in newest.run.history_steps():
        if str(step) not in found["checkpoints"]:
            found["checkpoints"][str(step)] = _checkpoint(load_agent(run, step))
            write_json(path, found)
            print(run, step, "done", flush=True)


def _checkpoint(loaded: Loaded) -> dict[str, Any]:
    returns = score(loaded, EPISODES, seed=1_000, epsilon=0.001).returns
    with tempfile.TemporaryDirectory() as folder:
        store = collect_store(loaded, last_layer(loaded.agent), SAMPLES, Path(folder) / "store", 0, 0.01, "float32")
        fits: dict[str, list[LoadedSAE]] = {}
        figures: dict[str, Any] = {}
        for name, setting in SETTINGS.items():
            path, configs = Path(folder) / name, [replace(setting, seed=seed) for seed in range(SEEDS)]
            fit_group(loaded, store, configs, path, episodes=0)
            fits[name] = [load_sae(path / name_of(store.hook, config), opened=(loaded, store)) for config in configs]
            # Behind one whitening: in raw activations, with a mean and a loud direction, any two samples are alike.
            agreements, controls = stability(fits[name], behind=fits["ours"][0])
            figures[name] = {"fits": [_figures(fit, each) for fit, each in zip(fits[name], agreements, strict=True)]}
            figures[name] |= {"stability_of": controls}
        first = fits["ours"][0]
        values = store.read(first.rows)
        fitted = np.flatnonzero(np.isin(first.rows, first.train_rows))
        noise = _gaussian(values)
        for name, setting in SETTINGS.items():
            figures[name]["gaussian"] = _dead(noise, fitted, setting)
        figures["published"]["shuffled"] = _dead(values, fitted, replace(SETTINGS["published"], shuffle=True))
    return figures | {
        "returns": returns.tolist(), "samples": len(values), "effective_rank": effective_rank(values),
        "dormant": dormant(values), "silent_units": int((values.max(0) <= 0).sum()),
    }  # fmt: skip


def _gaussian(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Noise with the mean and the covariance of activations `[N, D]`: as many directions, and no features. The control
    of what a count of dead latents tells."""
    mean, covariance = values.mean(0, dtype=np.float64), np.cov(values, rowvar=False, dtype=np.float64)
    rng = np.random.default_rng(0)
    return rng.multivariate_normal(mean, covariance, len(values), method="eigh").astype(np.float32)


def _dead(values: NDArray[np.float32], fitted: NDArray[np.integer], setting: SAEConfig) -> float:
    """Share of latents that fire in none of all rows, fitted to some, as a run's are."""
    data = ArrayActivations(values)
    return evaluate(fit(data, setting, fitted), data, np.arange(len(values))).dead_fraction


def _figures(fit: LoadedSAE, agreement: Agreement) -> dict[str, Any]:
    figures = read_json(fit.run.path / FIGURES)
    wanted = ("dead_fraction", "ultra_rare_fraction", "fvu", "l0", "action_agreement", "q_nmse")
    return {name: figures[name] for name in wanted} | asdict(agreement)


def report() -> None:
    """Print the tables and draw the picture."""
    runs = [read_json(path) for path in sorted(OUT.glob("*.json"))]
    if not runs:
        raise UserError(f"{OUT} holds no results; measure first.")
    columns = {"dead": ".1%", "dead of noise": ".1%"}
    heads = {"return": ",.0f", "effective rank": ".1f"}
    again = {"stability": ".2f", "of samples": ".2f", "of random directions": ".2f", "found again": ".1%"}
    counts = [(of, "ours", form) for of, form in heads.items()]
    counts += [(of, name, form) for name in ("published", "ours") for of, form in columns.items()]
    print(_table(runs, [*counts, ("dead, shuffled", "published", ".1%")]))
    print(_table(runs, [(of, name, form) for name in ("published", "ours") for of, form in again.items()]))
    for name in SETTINGS:
        for what in ("dead", "dead of noise", "stability", "found again", "effective rank"):
            print(f"{name}: return and {what}, rank correlation within runs: {_within(runs, name, what)}")
        same = []
        for run in runs:
            every = list(run["checkpoints"].values())
            same.append(_rank_correlation(_of(every, name, "dead"), _of(every, name, "dead of noise")))
        print(f"{name}: dead of the layer and of noise: {', '.join(f'{each:.2f}' for each in same)}")
    _picture(runs)


def _table(runs: list[dict[str, Any]], columns: list[tuple[str, str, str]]) -> str:
    """A line for each step, of all runs; columns are what is shown, in which setting, and how."""
    steps = sorted({int(step) for run in runs for step in run["checkpoints"]})
    rows = []
    for step in steps:
        each = [run["checkpoints"][str(step)] for run in runs if str(step) in run["checkpoints"]]
        cells = [", ".join(format(value, form) for value in _of(each, name, what)) for what, name, form in columns]
        rows.append([f"{step:,}", *cells])
    heads = [what if what in _OF_AGENTS else f"{what}, {name}" for what, name, _ in columns]
    return markdown(["steps", *heads], rows)


def _within(runs: list[dict[str, Any]], name: str, what: str) -> str:
    """Over the checkpoints of each run after the first, whose agent has learned nothing. Checkpoints of a run are not
    independent, so that there is no interval: the runs are what can agree."""
    found = []
    for run in runs:
        every = [figures for step, figures in run["checkpoints"].items() if int(step)]
        values = _of(every, name, what)
        returns = _of(every, name, "return")
        found.append(f"{_rank_correlation(returns, values):.2f}" if len(set(values)) > 1 else "–")
    return ", ".join(found)


def _rank_correlation(one: list[float], other: list[float]) -> float:
    """Spearman's."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


_OF_AGENTS: dict[str, Callable[[dict[str, Any]], float]] = {
    "return": lambda figures: float(np.mean(figures["returns"])),
    "effective rank": lambda figures: figures["effective_rank"],
}
_OF_SETTINGS: dict[str, Callable[[dict[str, Any]], float]] = {
    "dead": lambda figures: _mean(figures, "dead_fraction"),
    "dead of noise": lambda figures: figures["gaussian"],
    "dead, shuffled": lambda figures: figures["shuffled"],
    "stability": lambda figures: _mean(figures, "cosine"),
    "of samples": lambda figures: figures["stability_of"]["samples"],
    "of random directions": lambda figures: figures["stability_of"]["random"],
    "found again": lambda figures: _mean(figures, "found_again"),
}


def _of(every: list[dict[str, Any]], name: str, what: str) -> list[float]:
    """A figure of each checkpoint; what is the agent's own is the same in every setting."""
    if what in _OF_AGENTS:
        return [_OF_AGENTS[what](figures) for figures in every]
    return [_OF_SETTINGS[what](figures[name]) for figures in every]


def _mean(figures: dict[str, Any], what: str) -> float:
    """Over the fits."""
    return float(np.mean([each[what] for each in figures["fits"] if each[what] is not None]))


def _picture(runs: list[dict[str, Any]]) -> None:
    figure, axes = new_figure(1, 3, 13.5, 4.2)
    left, *others = axes.flat
    for i, run in enumerate(runs):
        every = list(run["checkpoints"].values())
        returns = _of(every, "ours", "return")
        left.plot([int(step) / 1000 for step in run["checkpoints"]], returns, ".-", color=f"C{i}", label=run["run"])
        for axis, name in zip(others, ("published", "ours"), strict=True):
            axis.plot(returns, _of(every, name, "dead"), ".", color=f"C{i}", markersize=9)
            axis.plot(returns, _of(every, name, "dead of noise"), "x", color=f"C{i}")
            axis.set_title({"published": "the published setting", "ours": "the suite's setting"}[name])
            axis.set_xlabel("return")
    left.set_xlabel("steps, thousands")
    left.set_ylabel(f"return, {EPISODES} episodes")
    left.legend()
    others[0].set_ylabel("share of latents that are dead")
    others[0].plot([], [], ".", color="0.4", markersize=9, label="of the layer")
    others[0].plot([], [], "x", color="0.4", label="of noise, same covariance")
    others[0].legend()
    save_figure(figure, OUT / "dead.png")


def main() -> None:
    """Measure runs, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("measure").add_argument("runs", nargs="+")
    what.add_parser("report")
    asked = parser.parse_args()
    for run in asked.runs if asked.what == "measure" else ():
        measure(run)
    if asked.what == "report":
        report()


if __name__ == "__main__":
    main()
