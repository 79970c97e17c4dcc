"""Do dead features tell how good an agent is? Dictionaries of every checkpoint that runs kept, in the published setting
and in the suite's own: dead latents, features that another seed finds again, and the agent's return.

    for seed in 0 1 2; do
      rl-interp train dqn --env ALE/MsPacman-v5 --seed $seed --agent-steps 200000 --keep-checkpoints 6 \
        --keep-spacing even --epsilon-steps 80000 --replay-capacity 200000 --name dqn$seed
      python -m benchmarks.dead_features measure runs/dqn$seed      # resumes; 25 minutes of one core
    done
    python -m benchmarks.dead_features report                       # tables and the picture

DuPlessie 2026 (PMLR 322:385-397) counts dead features of dictionaries on Q-networks' hidden layer, each on states that
its own network plays. The published setting is that of DuPlessie & Gritsevskiy 2024 as far as it is known.
"""

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.playing import collect_store, score
from rl_interp.analysis.representations import dormant, effective_rank
from rl_interp.analysis.sae.runs import LoadedSAE, load_sae
from rl_interp.analysis.sae.stability import Agreement, stability
from rl_interp.analysis.sae.sweep import FIGURES, fit_group, name_of
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
        values = store.read(np.flatnonzero(store.column("controllable")))  # those that are fitted
        figures = {
            "returns": returns.tolist(), "samples": len(values), "effective_rank": effective_rank(values),
            "dormant": dormant(values), "silent_units": int((values.max(0) <= 0).sum()),
        }  # fmt: skip
        fits: dict[str, list[LoadedSAE]] = {}
        for name, setting in SETTINGS.items():
            configs = [replace(setting, seed=seed) for seed in range(SEEDS)]
            fit_group(loaded, store, configs, path := Path(folder) / name, episodes=0)
            fits[name] = [load_sae(path / name_of(store.hook, config), opened=(loaded, store)) for config in configs]
            # Behind one whitening: in raw activations, with a mean and a loud direction, any two samples are alike.
            agreements, controls = stability(fits[name], behind=fits["ours"][0])
            figures[name] = {"fits": [_figures(fit, each) for fit, each in zip(fits[name], agreements, strict=True)]}
            figures[name] |= {"stability_of": controls, "gaussian": _of_noise(values, setting)}
    return figures


def _of_noise(values: NDArray[np.float32], setting: SAEConfig) -> dict[str, float]:
    """Of a dictionary fitted to Gaussian noise with the mean and the covariance of activations `[N, D]`, which has as
    many directions and no features: the control of what a count of dead latents tells."""
    rng = np.random.default_rng(0)
    mean, covariance = values.mean(0, dtype=np.float64), np.cov(values, rowvar=False, dtype=np.float64)
    noise = rng.multivariate_normal(mean, covariance, len(values), method="eigh").astype(np.float32)
    data = ArrayActivations(noise)
    metrics = evaluate(fit(data, setting), data, np.arange(len(noise)))
    return {"dead_fraction": metrics.dead_fraction, "fvu": metrics.fvu}


def _figures(fit: LoadedSAE, agreement: Agreement) -> dict[str, Any]:
    figures = read_json(fit.run.path / FIGURES)
    wanted = ("dead_fraction", "ultra_rare_fraction", "fvu", "l0", "action_agreement", "q_nmse")
    return {name: figures[name] for name in wanted} | asdict(agreement)


def report() -> None:
    """Print the tables and draw the picture."""
    runs = [read_json(path) for path in sorted(OUT.glob("*.json"))]
    rows = []
    for at in zip(*(run["checkpoints"].items() for run in runs), strict=True):
        each = [figures for _, figures in at]
        cells = [_both(f"{np.mean(figures['returns']):,.0f}" for figures in each)]
        cells += [_both(f"{figures['effective_rank']:.1f}" for figures in each)]
        for name in SETTINGS:
            cells += [_both(f"{_mean(figures, name, 'dead_fraction'):.1%}" for figures in each)]
            cells += [_both(f"{figures[name]['gaussian']['dead_fraction']:.1%}" for figures in each)]
            cells += [_both(f"{_mean(figures, name, 'cosine'):.2f}" for figures in each)]
            cells += [_both(f"{figures[name]['stability_of']['samples']:.2f}" for figures in each)]
            cells += [_both(f"{_mean(figures, name, 'found_again'):.1%}" for figures in each)]
        rows.append([f"{int(at[0][0]):,}", *cells])
    heads = [
        f"{of}, {name}" for name in SETTINGS for of in ("dead", "of noise", "stability", "of samples", "found again")
    ]
    print(markdown(["steps", "return", "effective rank", *heads], rows))
    every = [figures for run in runs for step, figures in run["checkpoints"].items() if step != "0"]
    returns = np.array([np.mean(figures["returns"]) for figures in every])
    for name in SETTINGS:
        for what, values in _candidates(every, name).items():
            correlation = spearmanr(returns, values)
            print(f"{name}: return and {what}: Spearman {correlation.statistic:.2f}, p {correlation.pvalue:.3f}")
    _picture(runs)


def _candidates(every: list[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """What might go with the return, of each checkpoint."""
    return {
        "dead": [_mean(figures, name, "dead_fraction") for figures in every],
        "dead of noise": [figures[name]["gaussian"]["dead_fraction"] for figures in every],
        "stability": [_mean(figures, name, "cosine") for figures in every],
        "effective rank": [figures["effective_rank"] for figures in every],
    }


def _mean(figures: dict[str, Any], name: str, what: str) -> float:
    return float(np.mean([each[what] for each in figures[name]["fits"]]))


def _both(cells: Iterable[str]) -> str:
    return ", ".join(cells)


def _picture(runs: list[dict[str, Any]]) -> None:
    figure, axes = new_figure(1, 3, 13.5, 4.2)
    left, *others = axes.flat
    for i, run in enumerate(runs):
        steps = [int(step) for step in run["checkpoints"]]
        every = list(run["checkpoints"].values())
        returns = [np.mean(figures["returns"]) for figures in every]
        left.plot(steps, returns, ".-", color=f"C{i}", label=f"seed {i}")
        for axis, name in zip(others, ("published", "ours"), strict=True):
            dead, noise = (values for what, values in _candidates(every, name).items() if what.startswith("dead"))
            axis.plot(returns, dead, ".", color=f"C{i}", markersize=9)
            axis.plot(returns, noise, "x", color=f"C{i}")
            axis.set_title(f"{name} setting")
            axis.set_xlabel("return")
    left.set_xlabel("steps")
    left.set_ylabel("return, 30 episodes")
    left.legend()
    others[0].set_ylabel("share of latents that are dead")
    others[0].plot([], [], ".", color="0.4", markersize=9, label="of the layer")
    others[0].plot([], [], "x", color="0.4", label="of noise, same covariance")
    others[0].legend()
    save_figure(figure, OUT / "dead.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "report"))
    parser.add_argument("runs", nargs="*")
    arguments = parser.parse_args()
    if arguments.what == "report":
        report()
    for run in arguments.runs:
        measure(run)


if __name__ == "__main__":
    main()
