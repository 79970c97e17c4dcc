"""An agent as it learned: the checkpoints that were kept of its training, all following the same recorded episodes.

<run>/analyses/history/<hook>/  result.json  table.md  curves.png  film.mp4
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.history_maps import agreement, can_map, film, map_states
from rl_interp.analysis.playing import collect_store, score
from rl_interp.analysis.probes.regression import probe
from rl_interp.analysis.representations import cka, dormant, effective_rank
from rl_interp.core.agent import Agent
from rl_interp.core.config import to_plain
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError, require_numbers
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import last_layer, run_with_cache
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.replay import Episode, replay
from rl_interp.core.stats import Estimate, bootstrap, mean, plain
from rl_interp.core.store import ActivationStore
from rl_interp.core.tables import markdown
from rl_interp.sae import ArrayActivations, SAEConfig, fit_crosscoder, side_by_side, split_by_episode
from rl_interp.sae.encoding import encode_rows
from rl_interp.sae.evaluation.features import Features
from rl_interp.sae.evaluation.matching import match
from rl_interp.sae.evaluation.metrics import evaluate
from rl_interp.sae.training.trainer import fit

FEWEST = 2
_EPSILON = 0.05
_MOST = 2_000_000_000
"""Bytes of activations of all checkpoints together, at most."""


@dataclass(frozen=True)
class Settings:
    """What is measured of each checkpoint."""

    samples: int = 20_000
    """Number of steps to play, by the agent as it is at the end, that all checkpoints follow."""
    episodes: int = 30
    """Number of whole episodes that each checkpoint plays itself."""
    maps: int = 24
    """Number of states whose saliency maps are compared, where what the agent sees has places; 0 for none."""
    latents: int = 0
    """Width of a dictionary that is fitted to each checkpoint; 0 for none."""
    crosscoder: int = 0
    """Width of one dictionary of all checkpoints together, with a decoder for each; 0 for none."""
    k: int = 16
    """Latents that are active in one sample."""
    epochs: float = 8.0
    """Passes over the samples."""
    seed: int = 0
    """Seed of the episodes, the probes and the dictionaries."""

    def __post_init__(self) -> None:
        require_numbers(
            self, at_least_1=("samples", "k"), at_least_0=("episodes", "maps", "latents", "crosscoder", "seed"),
            positive=("epochs",),
        )  # fmt: skip
        for width in (self.latents, self.crosscoder):
            if 0 < width <= self.k:
                raise UserError(f"k={self.k} given for {width} latents; fewer than all must be active: lower k.")


@dataclass
class Checkpoint:
    """One of them, on the states that all follow; N states, D units."""

    step: int
    values: NDArray[np.float32]
    """`[N, D]`"""
    actions: NDArray[np.int64]
    """`[N]`: the greedy ones."""
    figures: dict[str, Any] = field(default_factory=dict)


def study_history(
    loaded: Loaded, hook: str | None = None, settings: Settings | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Follow a layer through training: return, what linear probes read of the ground truth, effective rank, dormant
    units, likeness to the end and to the checkpoint before, actions in common with the end, saliency maps and how alike
    they are to those at the end, and dictionaries: one of each, or one of all.

    The first checkpoint, that of step 0, is the control: whatever it has was not learned.

    Args:
        loaded: the agent at its end; of a run trained with `--keep-checkpoints`.
        hook: hook point to look at; by default the last layer.

    Raises:
        UserError: fewer than two checkpoints were kept, or they do not fit into memory together.
    """
    settings, hook = settings or Settings(), hook or last_layer(loaded.agent)
    steps = loaded.run.history_steps()
    if len(steps) < FEWEST:
        raise UserError(
            f"{loaded.run.path} has kept {len(steps)} checkpoints of its training; train with --keep-checkpoints 12."
        )
    agents = {step: load_agent(loaded.run.path, step, str(loaded.agent.device)) for step in steps}
    with tempfile.TemporaryDirectory() as folder:
        store = collect_store(
            loaded, hook, settings.samples, Path(folder) / "store", settings.seed, _EPSILON, progress=progress
        )
        if (size := 4 * store.samples * store.width * len(steps)) > _MOST:
            raise UserError(
                f"{store.samples} samples of {store.width} activations in {len(steps)} checkpoints are "
                f"{size / 1e9:.1f} GB; give at most --samples {settings.samples * _MOST // size}."
            )
        checkpoints = _followed({step: each.agent for step, each in agents.items()}, loaded, hook, store, progress)
        crosscoder = _measure(checkpoints, loaded, store, settings, progress)
    for each in checkpoints:
        if settings.episodes:
            returns = score(agents[each.step], settings.episodes, settings.seed, 0.0, progress).returns
            each.figures["return"] = bootstrap([returns], mean)
    written: dict[str, Any] = {"crosscoder": crosscoder} if crosscoder else {}
    count = settings.maps if can_map(loaded) else 0
    if states := map_states(agents, loaded, count, settings.seed, progress):
        for each in checkpoints:
            value, by_chance = agreement(states, each.step, steps[-1])
            each.figures["maps"] = {"like_the_end": value, "by_chance": by_chance}
        written["film"] = str(film(loaded, states, _folder(loaded, hook) / "film.mp4", progress))
    return _written(checkpoints, loaded, hook, settings, written)


def _followed(
    agents: Mapping[int, Agent], loaded: Loaded, hook: str, store: ActivationStore, progress: Progress
) -> list[Checkpoint]:
    parts: dict[int, list[tuple[NDArray[np.float32], NDArray[np.int64]]]] = {step: [] for step in agents}
    done = 0
    with progress.bar("Following the episodes", store.samples, "steps") as update:
        for episode in replay(loaded.env, store):
            for step, agent in agents.items():
                parts[step].append(_follow(agent, episode, hook))
            done += len(episode.actions)
            update(done)
    found = []
    for step in agents:
        values, actions = zip(*parts.pop(step), strict=True)
        found.append(Checkpoint(step, np.concatenate(values), np.concatenate(actions)))
    return found


@torch.no_grad()
def _follow(agent: Agent, episode: Episode, hook: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Activations `[T, D]` and greedy actions `[T]` as an agent follows an episode."""
    obs = torch.from_numpy(episode.obs)[:, None].to(agent.device)
    actions = torch.from_numpy(episode.actions)[:, None].to(agent.device)
    out, cache = run_with_cache(agent, obs, names=[hook], actions=actions, unroll=True)
    values = cache[hook].float().reshape(len(obs), -1)
    return values.cpu().numpy(), out.preferences[:, 0].argmax(-1).cpu().numpy()


def _measure(
    checkpoints: Sequence[Checkpoint],
    loaded: Loaded,
    store: ActivationStore,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any] | None:
    """Fill in what is measured on the states that all follow; returns what is said of all checkpoints together."""
    concepts, episodes, last = make_labelled(loaded.env).concepts, store.column("episode"), checkpoints[-1]
    labels = {name: store.column(name) for name in concepts}
    with progress.bar("Measuring", len(checkpoints), "checkpoints") as update:
        for number, each in enumerate(checkpoints):
            before = checkpoints[max(0, number - 1)]
            each.figures |= {
                "effective_rank": effective_rank(each.values),
                "dormant": dormant(each.values),
                "likeness_to_end": cka(each.values, last.values),
                "likeness_to_previous": cka(each.values, before.values) if number else None,
                "same_action": float((each.actions == last.actions).mean()),
                "probes": probe(each.values, labels, concepts, episodes, settings.seed) if concepts else {},
            }
            update(number + 1)
    if settings.latents:
        _fit_dictionaries(checkpoints, episodes, settings, progress)
    return _crosscode(checkpoints, episodes, settings, progress) if settings.crosscoder else None


def _crosscode(
    checkpoints: Sequence[Checkpoint], episodes: NDArray[np.int64], settings: Settings, progress: Progress
) -> dict[str, Any] | None:
    """One dictionary of all checkpoints: in which of them its features are, and from which on. The control is one of
    the same checkpoints out of step with each other, in which no feature can be shared."""
    varied = [each for each in checkpoints if np.ptp(each.values, 0).any()]
    if len(varied) < FEWEST:
        progress.warn("no crosscoder: the layer is silent in all checkpoints but one.")
        return None
    config = SAEConfig(latents=settings.crosscoder, k=settings.k, epochs=settings.epochs, seed=settings.seed)
    fitted, held_out = split_by_episode(episodes, config.held_out, settings.seed)
    with progress.bar("Fitting a crosscoder", 2, "fits") as update:
        sources = [each.values for each in varied]
        coder = fit_crosscoder(sources, config, fitted)
        update(1)
        turns = len(episodes) // len(varied)
        apart = fit_crosscoder([np.roll(each, n * turns, 0) for n, each in enumerate(sources)], config, fitted)
        update(2)
    together = side_by_side(sources)
    encoding = encode_rows(coder.sae, together, held_out)
    living = encoding.density() > 0
    parts = coder.split(coder.sae.decode_sparse(*encoding.padded()).detach())
    present = coder.shares[:, living] >= 0.5 * coder.shares[:, living].max(0)
    born = present.argmax(0)
    for number, (each, part) in enumerate(zip(varied, parts, strict=True)):
        truth = each.values[held_out]
        error = np.square(truth - part.numpy()).sum(dtype=np.float64)
        each.figures["crosscoder"] = {
            "fvu": float(error / np.square(truth - truth.mean(0)).sum(dtype=np.float64)),
            "present": float(present[number].mean()),
            "born": float((born == number).mean()),
            "stay": float(present[-1, born == number].mean()) if (born == number).any() else None,
        }
    return {
        "latents": settings.crosscoder, "living": int(living.sum()), "l0": len(encoding.latents) / len(encoding),
        "spread": float(np.median(coder.spread()[living])), "spread_by_chance": float(np.median(apart.spread())),
    }  # fmt: skip


def _fit_dictionaries(
    checkpoints: Sequence[Checkpoint], episodes: NDArray[np.int64], settings: Settings, progress: Progress
) -> None:
    """A dictionary of each, its figures on held-out episodes, and how many of its features are found again: in the
    checkpoint before, and by another seed on the same activations, without which the first says little."""
    config = SAEConfig(latents=settings.latents, k=settings.k, epochs=settings.epochs, seed=settings.seed)
    reseeded = replace(config, seed=config.seed + 1)
    fitted, held_out = split_by_episode(episodes, config.held_out, settings.seed)
    before: Features | None = None  # those of the checkpoint before
    with progress.bar("Fitting dictionaries", len(checkpoints), "checkpoints") as update:
        for number, each in enumerate(checkpoints):
            try:
                features, figures = _dictionary(each, config, fitted, held_out)
                again, _ = _dictionary(each, reseeded, fitted, held_out)
            except UserError as error:  # a layer that is silent, as before any learning, has no variance to explain
                progress.warn(f"no dictionary of step {each.step}: {error}")
                before = None
                continue
            figures["found_by_seed"] = _found_again(features, again)
            figures["found_before"] = _found_again(features, before) if before is not None else None
            each.figures["dictionary"], before = figures, features
            update(number + 1)


def _dictionary(
    checkpoint: Checkpoint, config: SAEConfig, fitted: NDArray[np.integer], held_out: NDArray[np.integer]
) -> tuple[Features, dict[str, Any]]:
    rows = ArrayActivations(checkpoint.values)
    sae = fit(rows, config, fitted)
    encoding = encode_rows(sae, rows, held_out)
    metrics = evaluate(sae, rows, held_out, encoding=encoding)
    return Features(encoding), {"fvu": metrics.fvu, "dead_fraction": metrics.dead_fraction}


def _found_again(features: Features, others: Features) -> dict[str, float]:
    """Share of the living features whose activations correlate by at least 0.7 with one of the others, and what that
    share is by chance."""
    matching = match(features, others)
    best, by_chance = (float((each >= ALIKE).mean()) for each in (matching.best(0), matching.best_by_chance(0)))
    return {"value": best, "by_chance": by_chance}


ALIKE = 0.7
"""Correlation from which on two features count as the same."""


# -- what is written -------------------------------------------------------------------------------


def _folder(loaded: Loaded, hook: str) -> Path:
    return loaded.run.outputs / "analyses" / "history" / hook


def _written(
    checkpoints: Sequence[Checkpoint], loaded: Loaded, hook: str, settings: Settings, more: Mapping[str, Any]
) -> dict[str, Any]:
    """`more` is said of all checkpoints together."""
    folder = _folder(loaded, hook)
    rows = [{"step": each.step, **_plain(each.figures)} for each in checkpoints]
    result = loaded.source | {"hook": hook, **to_plain(settings), "checkpoints": rows, **more}
    write_json(folder / "result.json", result)
    write_text(folder / "table.md", history_table(checkpoints))
    plot = draw(checkpoints, folder / "curves.png", f"{loaded.run.path.name}, {hook}")
    paths = {"table": folder / "table.md", "plot": plot, "result": folder / "result.json"}
    return loaded.source | {"hook": hook, "checkpoints": rows, **more} | {n: str(path) for n, path in paths.items()}


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(figures)
    if isinstance(score := figures.get("return"), Estimate):
        found |= {"return": score.value, "interval": plain(score)}
    if (maps := figures.get("maps")) and maps["like_the_end"] is not None:
        found["maps"] = {**maps, "like_the_end": maps["like_the_end"].value, "interval": plain(maps["like_the_end"])}
    return found | {"probes": {name: vars(each) for name, each in figures["probes"].items()}}


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
        },
        "effective rank": {"directions": of("effective_rank")},
        "dormant units": {"share": of("dormant")},
        "saliency maps": {"like those at the end": of("maps", "like_the_end"), "by chance": of("maps", "by_chance")},
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


PROBES = "probes (AUROC or R²)"
_LABELLED = 8
"""Curves whose names go into their panel; of more, these have a place of their own."""
_LOWEST = -0.25
"""R² below which a probe is as good as none: the axis ends there."""


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
