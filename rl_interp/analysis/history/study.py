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
from torch import Tensor

from rl_interp.agents.load import Loaded, load_agent, untrained
from rl_interp.analysis.history.checkpoints import Checkpoint, Settings
from rl_interp.analysis.history.curves import draw, history_table
from rl_interp.analysis.history.dictionaries import check_dictionaries, crosscode, fit_dictionaries
from rl_interp.analysis.history.maps import agreement, can_map, film, gain, map_states
from rl_interp.analysis.playing import collect_store, score
from rl_interp.analysis.probes.regression import probe
from rl_interp.analysis.representations import cka, dormant, effective_rank
from rl_interp.core.agent import Agent, HookPoint
from rl_interp.core.config import to_plain
from rl_interp.core.device import trim_memory
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import hook_point, last_layer, run_with_cache
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.replay import Episode, replay
from rl_interp.core.stats import Estimate, bootstrap, mean, plain
from rl_interp.core.store import ActivationStore
from rl_interp.sae import action_agreement, q_nmse

_FEWEST = 2
_EPSILON = 0.05
_PIECE = 128
"""Steps that an agent without a memory sees at once."""
_MOST = 2_000_000_000
"""Bytes of activations of all checkpoints together, at most."""
Followed = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Activations `[N, P, D]` and preferences `[N, A]`, as `Checkpoint` has them."""


def study_history(
    loaded: Loaded, hook: str | None = None, settings: Settings | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Follow a layer through training: return, what linear probes read of the ground truth, effective rank, dormant
    units, likeness to the end and to the checkpoint before, actions in common with the end, saliency maps and how alike
    they are to those at the end, and dictionaries: one of each, or one of all.

    The first checkpoint, that of step 0, is the control: whatever it has was not learned. That of likeness is an
    untrained network of another seed: whatever all networks share of a layer's geometry was not learned either.

    Args:
        loaded: the agent at its end; of a run trained with `--keep-checkpoints`.
        hook: hook point to look at; by default the last layer.

    Raises:
        UserError: fewer than two checkpoints were kept, they do not fit into memory together, or there are too few
            samples or too many activations for the dictionaries.
    """
    settings, hook = settings or Settings(), hook or last_layer(loaded.agent)
    steps = loaded.run.history_steps()
    if len(steps) < _FEWEST:
        raise UserError(
            f"{loaded.run.path} has kept {len(steps)} checkpoints of its training; train with --keep-checkpoints 12."
        )
    _check_size(loaded, hook, len(steps), settings)
    agents = {step: load_agent(loaded.run.path, step, str(loaded.agent.device)) for step in steps}
    with tempfile.TemporaryDirectory() as folder:
        store = collect_store(
            loaded, hook, settings.samples, Path(folder) / "store", settings.seed, _EPSILON, progress=progress
        )
        # Beside the checkpoints a network that no training has touched, which shows what all networks have in common.
        fresh = untrained(agents[steps[0]], loaded.run.meta["seed"] + 1)
        followed = _followed([*(each.agent for each in agents.values()), fresh], loaded, hook, store, progress)
        checkpoints = [Checkpoint(step, *each) for step, each in zip(agents, followed, strict=False)]
        crosscoder = _measure(checkpoints, followed[-1][0], loaded, store, settings, progress)
    for each in checkpoints:
        if settings.episodes:
            returns = score(agents[each.step], settings.episodes, settings.seed, 0.0, progress).returns
            each.figures["return"] = bootstrap([returns], mean)
    written: dict[str, Any] = {"crosscoder": crosscoder} if crosscoder else {}
    count = settings.maps if can_map(loaded) else 0
    if states := map_states(agents, loaded, count, settings.seed, progress):
        for each in checkpoints:
            value, by_chance = agreement(states, each.step, steps[-1])
            gained = gain(states, each.step, steps[0], steps[-1]) if each.step != steps[0] else None
            each.figures["maps"] = {"like_the_end": value, "by_chance": by_chance, "gained": gained}
        written["film"] = str(film(loaded, states, _folder(loaded, hook) / "film.mp4", progress))
    return _written(checkpoints, loaded, hook, settings, written)


def _check_size(loaded: Loaded, hook: str, checkpoints: int, settings: Settings) -> None:
    """What can be known before the agent plays, and raises a `UserError` then."""
    positions, units = _shape(loaded, hook)
    size = 4 * settings.samples * positions * units * (checkpoints + 1)
    if size > _MOST:
        raise UserError(
            f"{settings.samples} samples of {positions * units:,} activations in {checkpoints} checkpoints and an "
            f"untrained network are {size / 1e9:.1f} GB; give at most --samples {settings.samples * _MOST // size}."
        )
    check_dictionaries(positions * units, settings)


def _shape(loaded: Loaded, hook: str) -> tuple[int, ...]:
    """Positions and units of a layer."""
    obs, _ = make_labelled(loaded.env).reset(seed=0)
    with torch.no_grad():
        _, cache = run_with_cache(loaded.agent, torch.from_numpy(obs[None]).to(loaded.agent.device), names=[hook])
    return _by_unit(cache[hook], hook_point(loaded.agent, hook), 1).shape[1:]


def _followed(
    agents: Sequence[Agent], loaded: Loaded, hook: str, store: ActivationStore, progress: Progress
) -> list[Followed]:
    """What each agent makes of the stored episodes."""
    found: list[Followed] = []
    done = 0
    with progress.bar("Following the episodes", store.samples, "steps") as update:
        for episode in replay(loaded.env, store):
            parts = [_follow(agent, episode, hook) for agent in agents]
            if not found:  # whole from the start: from pieces put together, the C library would keep the pieces' memory
                found = [
                    (_room_for(values, store.samples), _room_for(preferences, store.samples))
                    for values, preferences in parts
                ]
            steps = slice(done, done + len(episode.actions))
            for whole, part in zip(found, parts, strict=True):
                for array, piece in zip(whole, part, strict=True):
                    array[steps] = piece
            done = steps.stop
            update(done)
    trim_memory()
    return found


def _room_for(part: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    return np.empty((samples, *part.shape[1:]), part.dtype)


@torch.no_grad()
def _follow(agent: Agent, episode: Episode, hook: str) -> Followed:
    obs = torch.from_numpy(episode.obs)[:, None].to(agent.device)
    actions = torch.from_numpy(episode.actions)[:, None].to(agent.device)
    # Without a memory in pieces: PyTorch keeps what it prepares for each size of a convolution's input, and episodes
    # are of all lengths.
    size = len(obs) if agent.initial_state(1) else _PIECE
    parts = []
    for piece, taken in zip(obs.split(size), actions.split(size), strict=True):
        out, cache = run_with_cache(agent, piece, names=[hook], actions=taken, unroll=True)
        parts.append((_by_unit(cache[hook], hook_point(agent, hook), len(piece)), out.preferences[:, 0].float().cpu()))
    values, preferences = zip(*parts, strict=True)
    return np.concatenate(values), np.concatenate(preferences)


def _by_unit(cached: Tensor, point: HookPoint, steps: int) -> NDArray[np.float32]:
    """`[T, P, D]`: a layer's units last, behind their positions in a picture or a sequence; of ticks the last, as in a
    store."""
    last = cached[:, -1] if point.has_ticks else cached
    units = last.float().movedim(point.feature_axis, -1)
    return units.reshape(steps, -1, units.shape[-1]).cpu().numpy()


def _measure(
    checkpoints: Sequence[Checkpoint],
    fresh: NDArray[np.float32],
    loaded: Loaded,
    store: ActivationStore,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any] | None:
    """Fill in what is measured on the states that all follow; returns what is said of all checkpoints together. `fresh`
    are an untrained network's activations `[N, P, D]`."""
    concepts, episodes, last = make_labelled(loaded.env).concepts, store.column("episode"), checkpoints[-1]
    labels = {name: store.column(name) for name in concepts}
    with progress.bar("Measuring", len(checkpoints), "checkpoints") as update:
        for number, each in enumerate(checkpoints):
            before = checkpoints[max(0, number - 1)]
            each.figures |= {
                "effective_rank": effective_rank(each.flat),
                "dormant": dormant(each.values),
                "likeness_to_end": cka(each.flat, last.flat),
                "likeness_to_previous": cka(each.flat, before.flat) if number else None,
                "likeness_by_chance": cka(each.flat, fresh.reshape(len(fresh), -1)),
                **_of_actions(each, last, loaded.agent.continuous),
                "probes": probe(each.flat, labels, concepts, episodes, settings.seed) if concepts else {},
            }
            update(number + 1)
    trim_memory()
    if settings.latents:
        fit_dictionaries(checkpoints, episodes, settings, progress)
    return crosscode(checkpoints, episodes, settings, progress) if settings.crosscoder else None


def _of_actions(checkpoint: Checkpoint, end: Checkpoint, continuous: bool) -> dict[str, float | None]:
    """How far it decides as at the end."""
    here, there = (torch.from_numpy(each.preferences) for each in (checkpoint, end))
    if not continuous:
        return {"same_action": action_agreement(there, here)}
    error = q_nmse(there, here)
    return {"action_error": error if np.isfinite(error) else None}  # at the end it may always do the same


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
    if maps := figures.get("maps"):
        alike, gained = maps["like_the_end"], maps["gained"]
        found["maps"] = {
            "like_the_end": alike and alike.value, "interval": plain(alike), "by_chance": maps["by_chance"],
            "gained": gained and gained.value, "gained_interval": plain(gained),
        }  # fmt: skip
    return found | {"probes": {name: vars(each) for name, each in figures["probes"].items()}}
