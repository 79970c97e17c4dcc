"""How much each unit of a run's agent matters, by each kind of replacement, and how it plays without those that matter
least."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.coded import Coded
from rl_interp.analysis.circuits.cutting import play_without_half
from rl_interp.analysis.circuits.layers import EACH, NEGLIGIBLE, ImportanceConfig, Layer, measure_layer
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.sae.policy import policy_metric
from rl_interp.circuits.ablation import PartialPasses
from rl_interp.circuits.latents import LATENTS, Components, with_latents
from rl_interp.circuits.replacement import record, replacement, while_playing
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import hook_point, run_with_hooks
from rl_interp.core.interventions import Zero
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.tables import markdown

COMPONENTS, POLICY_COMPONENTS = ("components", "policy_components")
"""What a layer's principal components are called, beside its units and a dictionary's latents."""
_BANK = 2
"""Times the measured states that replacements are made from, of other episodes."""


def importance_run(
    loaded: Loaded, hooks: Sequence[str] = (), config: ImportanceConfig = ImportanceConfig(),  # noqa: B008 - frozen
    progress: Progress = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """Measure every unit of some layers; write a table, a picture and the result to the run's analyses/, and return
    the result.

    Args:
        hooks: names of hook points; by default those after a nonlinearity that decisions depend on, and the memory.

    Raises:
        HookError: no such hook point, or one that can't be run again from.
        UserError: an unknown kind, no states, counterfactuals of an environment that can't be edited, constants that
            diverge, or values that take too much memory.
    """
    hooks = list(dict.fromkeys(hooks))
    for hook in hooks:
        hook_point(loaded.agent, hook)
    for kind in config.kinds:
        replacement(kind)
    if config.cut is not None:
        while_playing(config.cut)
    start = time.perf_counter()
    measured, bank = _states(loaded, config, progress)
    places = {hook: (loaded.agent, hook) for hook in hooks or default_hooks(loaded, measured)}
    if isinstance(loaded, Coded):
        places |= _components(loaded, _others(loaded, config, bank, progress))
    layers = {}
    with progress.bar("Measuring", len(places), "layers") as update:
        for done, (name, (agent, hook)) in enumerate(places.items(), 1):
            layers[name] = measure_layer(agent, hook, measured, bank, config)
            update(done)
    result = loaded.source | summary(layers) | {"seconds": time.perf_counter() - start, "states": config.states}
    of = "" if "sae" not in loaded.source else f"-{Path(loaded.source['sae']).name}"
    path = loaded.run.outputs / "analyses" / f"importance{of}"
    write_text(path / "table.md", importance_table(layers))
    picture = importance_picture(layers, path / "importance.png")
    write_json(path / "result.json", result)  # what was measured stays, whatever becomes of the play
    if config.episodes:
        cut = {name: layers[name] for name in _played(loaded, layers)}
        result |= play_without_half(loaded, cut, config.cut, config.episodes, config.seed, progress)
        write_json(path / "result.json", result)
    files = {"table": path / "table.md", "plot": picture, "result": path / "result.json"}
    return result | {name: str(file) for name, file in files.items()}


def _components(loaded: Coded, states: States) -> dict[str, tuple[Agent, str]]:
    """The layer written in the principal components of its values, and in those by which the policy varies most, each
    with the hook point that they are at. They are fitted, as a dictionary is, on states that nothing is measured on."""
    agent, at = loaded.plain.agent, loaded.at
    recorded = record(agent, states, at)
    values = recorded.values.movedim(recorded.feature_axis, -1).flatten(0, -2)
    found = {COMPONENTS: Components(values), POLICY_COMPONENTS: Components(values, policy_metric(agent, states, at))}
    return {f"{at}.{name}": (with_latents(agent, each, at).eval(), f"{at}.{LATENTS}") for name, each in found.items()}


def _played(loaded: Loaded, layers: Iterable[str]) -> list[str]:
    """The layers that are cut at play: all, but of one that is there in several ways, latents alone."""
    if not isinstance(loaded, Coded):
        return list(layers)
    latents = f"{loaded.at}.{LATENTS}"
    return [name for name in layers if name == latents or not name.startswith(loaded.at)]


@torch.no_grad()
def default_hooks(loaded: Loaded, states: States) -> list[str]:
    """Of the hook points after a nonlinearity and the memory, or of all in an agent that has none of such names, those
    that a decision depends on in the first of the states. Of an agent that names points for its graph, such as a
    transformer's heads and MLPs, these; of one with a dictionary's latents, these and the layer that they stand in."""
    if isinstance(loaded, Coded):
        return [loaded.at, f"{loaded.at}.{LATENTS}"]
    agent = loaded.agent
    points, few, found = agent.hook_points, states[:4], []
    own = run_with_hooks(agent, few.obs, few.memory or None, hooks={}).preferences
    after = [name for name in points if name.endswith((".post", "lstm.h", "lstm.c"))]
    for name in [name for name in agent.graph_points or () if name in points] or after or points:
        cut = run_with_hooks(agent, few.obs, few.memory or None, hooks={name: Zero(name)})
        if not torch.equal(own, cut.preferences):
            found.append(name)
    if not found:
        raise UserError("no decision depends on any of the agent's hook points in these states; name some with hooks.")
    return found


def _states(loaded: Loaded, config: ImportanceConfig, progress: Progress) -> tuple[States, States]:
    """Those to measure on, and others of other episodes."""
    change = config.change if "counterfactual" in config.kinds else None
    measured = play_states(loaded, config.states, config.seed, change, progress)
    return measured, _others(loaded, config, measured, progress)


def _others(loaded: Loaded, config: ImportanceConfig, before: States, progress: Progress) -> States:
    """As many states as replacements are made from, of the episodes after others."""
    assert before.episodes is not None
    return play_states(loaded, _BANK * config.states, int(before.episodes.max()) + 1, progress=progress)


def summary(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """All units together, JSON-ready."""
    kinds, estimates = ([*getattr(next(iter(layers.values())), name)] for name in ("kinds", "estimates"))
    every = {name: np.concatenate([layer.kl(name) for layer in layers.values()]) for name in (*kinds, *estimates)}
    cost = sum((layer.passes for layer in layers.values()), PartialPasses())
    return {
        "hooks": list(layers),
        "units": _rows(layers),
        "kinds": {kind: _figures(every[kind], every.get("optimal")) for kind in kinds},
        "by_hook": {
            hook: {
                kind: _figures(layer.kl(kind), layer.kl("optimal") if "optimal" in kinds else None) for kind in kinds
            }
            for hook, layer in layers.items()
        },
        "kept": {
            hook: {
                "replaced_by": layer.kept.replaced_by,
                "nothing": layer.kept.nothing,
                "counts": layer.kept.counts,
                "faithfulness_by_ranking": layer.kept.faithfulness,
                "enough": {name: layer.kept.enough(name) for name in layer.kept.faithfulness},
            }
            for hook, layer in layers.items()
        },
        "rank_correlation": {a: {b: _rank_correlation(layers, a, b) for b in every if b != a} for a in kinds},
        "temperature": {hook: layer.temperature for hook, layer in layers.items()},
        "forwards": cost.count,
        "forwards_by_arithmetic": cost.arithmetic,
    }


def _rows(layers: Mapping[str, Layer]) -> list[dict[str, Any]]:
    """A row a unit."""
    return [
        {"hook": hook, "unit": unit} | {name: float(layer.kl(name)[unit]) for name in (*layer.kinds, *layer.estimates)}
        for hook, layer in layers.items()
        for unit in range(layer.bank.units)
    ]


def _figures(kl: NDArray[np.float64], optimal: NDArray[np.float64] | None) -> dict[str, float | None]:
    """Of D by one kind, and the median share of it that is left with optimal constants."""
    counted = kl > NEGLIGIBLE
    share = None if optimal is None or not counted.any() else float(np.median(optimal[counted] / kl[counted]))
    return {"mean": float(kl.mean()), "median": float(np.median(kl)), "ratio_of_optimal": share}


def _rank_correlation(layers: Mapping[str, Layer], a: str, b: str) -> float | None:
    """Spearman's, within each layer, averaged over those in which units differ by both."""
    from scipy.stats import spearmanr

    found = [
        float(spearmanr(layer.kl(a), layer.kl(b))[0])  # pyright: ignore[reportArgumentType]
        for layer in layers.values()
        if np.ptp(layer.kl(a)) > 0 and np.ptp(layer.kl(b)) > 0
    ]
    return float(np.mean(found)) if found else None


def importance_table(layers: Mapping[str, Layer]) -> str:
    """A row a unit, the most important of each layer first, in Markdown."""
    first = next(iter(layers.values()))
    names = [*first.kinds, *first.estimates]
    leading, rows = _leading(first), []
    for hook, layer in layers.items():
        for unit in np.argsort(-layer.kl(leading), kind="stable").tolist():
            agreement = float(layer.kinds[leading].action_agreement[unit])
            rows.append([hook, unit, *(f"{layer.kl(name)[unit]:.2e}" for name in names), f"{agreement:.1%}"])
    return markdown(["hook point", "unit", *names, f"action agreement ({leading})"], rows)


def importance_picture(layers: Mapping[str, Layer], path: Path) -> Path:
    """A column a layer. Above, how D falls from the most important unit to the least, by each kind in its own order;
    below that, all kinds in the order of one, so that units whose rank changes stand out. What is negligible lies at
    the foot. At the bottom, how faithful the agent is with the first units of the layer alone."""
    figure, axes = new_figure(3, len(layers), 1 + 3.4 * len(layers), 9.5, sharey="row")
    for (hook, layer), (above, below, foot) in zip(layers.items(), axes.T, strict=True):
        leading = _leading(layer)
        order = np.argsort(-layer.kl(leading), kind="stable")
        ranks = np.arange(1, len(order) + 1)
        for i, kind in enumerate(layer.kinds):
            kl = np.maximum(layer.kl(kind), NEGLIGIBLE)
            look = {"color": "black", "zorder": 3} if kind == leading else {"color": f"C{i}"}
            above.plot(ranks, -np.sort(-kl), label=kind, linewidth=1.5, **look)
            below.plot(ranks, kl[order], "." if kind != leading else "-", markersize=3, **look)
        above.set_title(hook)
        above.set_xlabel("units, in that kind's order")
        below.set_xlabel(f"units, in the order of {leading}")
        for ranking in (leading, *layer.estimates, EACH, "random"):
            look = {leading: {"color": "black"}, "random": {"color": "0.6", "linestyle": "--"}}.get(ranking, {})
            foot.plot(layer.kept.counts, layer.kept.faithfulness[ranking], label=ranking, linewidth=1.5, **look)
        foot.set_xscale("symlog", linthresh=1)
        foot.axhline(0.9, color="0.8", linewidth=0.8, zorder=0)
        foot.set_ylim(-0.25, 1.05)
        foot.set_xlabel("units kept, all others replaced")
    axes[2, 0].set_ylabel("faithfulness")
    axes[2, 0].legend(loc="upper left", fontsize="small")
    for row in axes[:2, 0]:
        row.set_yscale("log")
        row.set_ylabel("D, nats")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(layers) * 2)
    return save_figure(figure, path)


def _leading(layer: Layer) -> str:
    """The kind that tables and pictures are sorted by."""
    return "optimal" if "optimal" in layer.kinds else next(iter(layer.kinds))
