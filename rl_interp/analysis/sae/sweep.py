"""A sweep: dictionaries of many sizes on one agent, fitted from few passes over the data, evaluated and compared.

<sweep>/<hook>-<variant>-<latents>-k<k>-seed<seed>/   one dictionary's run; sae.json in it, its figures
        result.json  table.md  pareto.png

Fits that are equally far along share one pass over the data; others, after a kill or when a sweep is extended, go
group by group. A kill loses about the last five minutes.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_interp.agents.load import Loaded, load_agent, new_run_path
from rl_interp.analysis.playing import store_path
from rl_interp.analysis.sae.evaluation import RECOVERED, metrics_json, play_spliced
from rl_interp.analysis.sae.fitting import fit_runs, newest_step, note_activity, require_held_out
from rl_interp.analysis.sae.runs import load_sae, parent_of
from rl_interp.analysis.sae.stability import stability
from rl_interp.core import stats, tables
from rl_interp.core.cluster import connect
from rl_interp.core.errors import RunError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.locks import writing
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import numbers, read_json, require
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore
from rl_interp.sae import SAEConfig

FIGURES = "sae.json"


def grid(
    config: SAEConfig, variants: Sequence[str], latents: Sequence[int], ks: Sequence[int], seeds: int
) -> list[SAEConfig]:
    """`config` with every combination of these."""
    combined = itertools.product(variants, latents, ks, range(seeds))
    return [replace(config, variant=variant, latents=f, k=k, seed=s) for variant, f, k, s in combined]  # pyright: ignore[reportArgumentType]


def name_of(hook: str, config: SAEConfig) -> str:
    return f"{hook}-{config.variant}-{config.latents}-k{config.k}-seed{config.seed}"


def sweep(
    loaded: Loaded,
    hooks: Sequence[str],
    configs: Sequence[SAEConfig],
    name: str | None,
    episodes: int = 0,
    ray: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Fit and evaluate every configuration at every hook point; write figures, table and plot.

    Args:
        name: of the sweep, or a path; None for one made of the agent's.
        episodes: whole episodes played through each dictionary; 0 for none.
        ray: address of a Ray cluster, "local" for one on this machine, None to stay in this process.

    Raises:
        UserError: no cluster answers at the address.
    """
    for config in configs:
        require_held_out(config)
    stores = [ActivationStore(store_path(loaded.run, hook)) for hook in hooks]
    path = new_run_path(name or f"{loaded.run.path.name}-sweep")
    with writing(path):
        if ray is None:
            for store in stores:
                fit_group(loaded, store, configs, path, episodes, progress)
        else:
            _on_ray(loaded, stores, configs, path, episodes, ray, progress)
        planned = [(store.hook, config) for store in stores for config in configs]
        found = rows(path, planned, [loaded, *stores], progress)
        for (hook, config), row in zip(planned, found, strict=True):
            note_activity(name_of(hook, config), config, row["l0"], progress)
        write_json(path / "result.json", found)
        write_text(path / "table.md", markdown(found))
        plot = pareto(found, path / "pareto.png")
    return {"run": str(path), "table": str(path / "table.md"), "plot": str(plot), "result": found}


def fit_group(
    loaded: Loaded,
    store: ActivationStore,
    configs: Sequence[SAEConfig],
    path: Path,
    episodes: int,
    progress: Progress = SILENT,
) -> None:
    """Fit `configs` on one store side by side and evaluate each; what is there already is left as it is.

    Args:
        episodes: whole episodes played through each dictionary; 0 for none.
    """
    planned = {path / name_of(store.hook, config): config for config in configs}
    parent = parent_of(loaded, store, None)
    missing = {at: config for at, config in planned.items() if not _is_evaluated(at, config, parent, episodes)}
    if missing:
        fit_runs(loaded, store, missing, progress=progress)
    known: dict[str, np.ndarray] = {}  # what does not depend on the dictionary is played once
    for at in missing:
        fitted = load_sae(at, opened=(loaded, store), progress=progress)
        figures = metrics_json(fitted, in_memory=False) | {"made_from": fitted.made_from}
        if episodes:
            figures |= play_spliced(fitted, episodes, 1_000, 0.001, known, progress)
            known = {name: np.array(v) for name, v in figures["returns"].items() if name != "spliced"}
        write_json(at / FIGURES, figures)


def _is_evaluated(at: Path, config: SAEConfig, parent: dict[str, Any], episodes: int) -> bool:
    """Whether the figures of this very fit are there, of so many episodes.

    Raises:
        RunError: a different fit is there.
    """
    step = newest_step(at, config, parent)
    if not step or not (at / FIGURES).exists():
        return False
    figures = _read_figures(at / FIGURES)
    digest = Run(at).weights_sha256(step)
    if figures.get("made_from", {}).get("dictionary_sha256", digest) != digest:  # earlier versions did not record it
        return False
    played = figures.get("returns", {}).get("original", ())
    return not episodes or len(played) == episodes


def _on_ray(
    loaded: Loaded,
    stores: Sequence[ActivationStore],
    configs: Sequence[SAEConfig],
    path: Path,
    episodes: int,
    address: str,
    progress: Progress,
) -> None:
    """One task for each store and as many of the configurations as make every core busy. The run, the stores and the
    sweep are read and written at the same absolute paths on every machine of the cluster."""
    import ray
    from ray.exceptions import RayTaskError

    connect(address)
    try:
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        parts = min(len(configs), -(-cores // len(stores)))
        task = ray.remote(_fit_group_at).options(num_cpus=1, max_retries=2)
        places = [(store.path.absolute(), configs[part::parts]) for store in stores for part in range(parts)]
        agent = str(loaded.run.path.absolute())
        arguments = [(agent, loaded.step, store, each, path.absolute(), episodes) for store, each in places]
        waiting = [task.remote(*each) for each in arguments]
        with progress.bar("Fitting on the cluster", len(places), "parts") as update:
            while waiting:
                finished, waiting = ray.wait(waiting)
                ray.get(finished)
                update(len(places) - len(waiting))
    except RayTaskError as error:
        raise RunError(f"a part of the sweep failed: {str(error.cause).splitlines()[0]}") from None
    finally:
        ray.shutdown()


def _fit_group_at(run: str, step: int, store: Path, configs: Sequence[SAEConfig], path: Path, episodes: int) -> None:
    fit_group(load_agent(run, step, "cpu"), ActivationStore(store), configs, path, episodes)


def rows(
    path: Path,
    planned: Sequence[tuple[str, SAEConfig]],
    opened: Iterable[Loaded | ActivationStore] = (),
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """The figures of every dictionary; where a size has several seeds, their stability too, beside that of what
    nothing was fitted to."""
    found = []
    for hook, config in planned:
        at = path / name_of(hook, config)
        size = {"hook": hook, "variant": config.variant, "latents": config.latents, "k": config.k, "seed": config.seed}
        found.append(size | {"run": str(at)} | _read_figures(at / FIGURES))
    for of_size in _sizes(found).values():
        if len(of_size) > 1:
            agreements, controls = stability(
                [load_sae(row["run"], opened=opened, progress=progress) for row in of_size]
            )
            for row, agreement in zip(of_size, agreements, strict=True):
                row |= {"stability": agreement.cosine, "found_again": agreement.found_again}
                row |= {f"stability_of_{name}": value for name, value in controls.items()}
    return found


def _read_figures(path: Path) -> dict[str, Any]:
    remedy = "remove the file to measure again"
    figures = read_json(path, remedy)
    require(figures, path, remedy, fvu=float, l0=float, dead_fraction=float)
    if "made_from" in figures:
        require(figures, path, remedy, made_from=dict)
    for name in RECOVERED:
        if figures.get(name) is not None:
            require(figures, path, remedy, **{name: float}, returns=dict)
            if figures.get(f"{name}_interval") is not None:
                numbers(figures, f"{name}_interval", path, remedy)
            for condition in figures["returns"]:
                numbers(figures["returns"], condition, path, remedy)
    return figures


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """A table, a line for each size: means over seeds."""
    columns = {
        "fvu": "FVU", "l0": "L0", "dead_fraction": "dead", "action_agreement": "same action", "stability": "stability",
        "stability_of_samples": "of samples", "stability_of_random": "of random directions",
        "found_again": "found again",
        "return_recovered": "return recovered from zero [95%]",
        "return_recovered_mean": "from mean [95%]", "return_recovered_resample": "from resample [95%]",
    }  # fmt: skip
    shown = [name for name in columns if any(row.get(name) is not None for row in found)]
    heads = ["hook", "variant", "latents", "k", "seeds", *(columns[name] for name in shown)]
    rows = []
    for size, of_size in _sizes(found).items():
        cells = [*map(str, size), str(len(of_size))]
        for name in shown:
            known = [row for row in of_size if row.get(name) is not None]
            cell = f"{np.mean([row[name] for row in known]):.3g}" if known else ""
            if name in RECOVERED and known:
                interval = _interval([row["returns"] for row in known], RECOVERED[name])
                cell += f" {stats.shown(interval.interval, '.2f')}"
            cells.append(cell)
        rows.append(cells)
    return tables.markdown(heads, rows)


def _interval(returns: Sequence[dict[str, Sequence[float]]], ablation: str) -> stats.Estimate:
    """Of the mean over seeds of the return recovered, by drawing seeds anew and each one's episodes: wide rather than
    narrow, since the seeds' means differ by their episodes as well. The agent as trained and with its layer ablated
    played the same episodes for all, which count once."""
    seeds = np.random.default_rng(0)

    def share(original: np.ndarray, *others: np.ndarray) -> float:
        *spliced, ablated = (each.mean() for each in others)
        lost = original.mean() - ablated
        return float((seeds.choice(spliced, len(spliced)).mean() - ablated) / lost) if lost else 0.0

    first = returns[0]
    return stats.bootstrap([first["original"], *(of_seed["spliced"] for of_seed in returns), first[ablation]], share)


def _sizes(found: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    sizes: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found:
        sizes.setdefault((row["hook"], row["variant"], row["latents"], row["k"]), []).append(row)
    return sizes


def pareto(found: Sequence[dict[str, Any]], path: Path) -> Path:
    """FVU, and the return recovered where it was measured, against L0: a line for each variant and size."""
    names = {"fvu": "variance unexplained (FVU)", "return_recovered": "share of the return recovered"}
    shown = [name for name in names if any(row.get(name) is not None for row in found)]
    figure, axes = new_figure(1, len(shown), 5.4 * len(shown), 4)
    lines = list(dict.fromkeys((row["hook"], row["variant"], row["latents"]) for row in found))
    for panel, name in zip(axes[0], shown, strict=True):
        for number, line in enumerate(lines):
            of_line = [r for r in found if (r["hook"], r["variant"], r["latents"]) == line and r.get(name) is not None]
            aside = 1.03 ** (number - (len(lines) - 1) / 2)  # so that intervals do not lie on one another
            at = np.array([row["l0"] for row in of_line]) * aside
            colour, label = f"C{number}", " ".join(map(str, line))
            style = {"fmt": "o", "markersize": 4, "linewidth": 1, "capsize": 2, "alpha": 0.6}
            panel.errorbar(at, [row[name] for row in of_line], _spread(of_line, name), color=colour, **style)
            means = {k: np.mean([(r["l0"] * aside, r[name]) for r in of_line if r["k"] == k], 0) for k in _ks(of_line)}
            panel.plot(*zip(*means.values(), strict=True), color=colour, linewidth=1.6, label=label)
        panel.set(xlabel="latents active in a sample (L0)", ylabel=names[name], xscale="log")
        panel.set_xticks(_ks(found), [str(k) for k in _ks(found)])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
        if name == "return_recovered":
            panel.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
    axes[0][0].legend(frameon=False, fontsize=8)
    return save_figure(figure, path)


def _ks(found: Sequence[dict[str, Any]]) -> list[int]:
    return sorted({row["k"] for row in found})


def _spread(of_line: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Below and above each point: the return's interval over episodes; none for what has no such interval."""
    ends = [row.get(f"{name}_interval") or (row[name], row[name]) for row in of_line]
    return [row[name] - low for row, (low, _) in zip(of_line, ends, strict=True)], [
        high - row[name] for row, (_, high) in zip(of_line, ends, strict=True)
    ]
