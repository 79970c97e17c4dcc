"""A layer followed through training, on episodes that all checkpoints see.

<run>/analyses/history/<hook>/  result.json  table.md  curves.png  film.mp4
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.history.checkpoints import Checkpoint, Settings
from rl_interp.analysis.history.curves import draw, history_table
from rl_interp.analysis.history.dictionaries import crosscode, fit_dictionaries
from rl_interp.analysis.history.maps import agreement, can_map, film, map_states
from rl_interp.analysis.playing import collect_store, score
from rl_interp.analysis.probes.regression import probe
from rl_interp.analysis.representations import cka, dormant, effective_rank
from rl_interp.core.agent import Agent
from rl_interp.core.config import to_plain
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import last_layer, run_with_cache
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.replay import Episode, replay
from rl_interp.core.stats import Estimate, bootstrap, mean, plain
from rl_interp.core.store import ActivationStore

_FEWEST = 2
_EPSILON = 0.05
_MOST = 2_000_000_000
"""Bytes of activations of all checkpoints together, at most."""


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
    if len(steps) < _FEWEST:
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
        fit_dictionaries(checkpoints, episodes, settings, progress)
    return crosscode(checkpoints, episodes, settings, progress) if settings.crosscoder else None


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
