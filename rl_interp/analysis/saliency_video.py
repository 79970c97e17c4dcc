"""A film of one episode: the game, the saliency map, and what the agent thinks of its actions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment
from rl_interp.analysis.playing import follow, watch
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.agent import evaluating
from rl_interp.core.envs import LabelledEnv, make_labelled
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.pictures import write_png
from rl_interp.core.progress import SILENT, Progress, Update
from rl_interp.core.video import check_video, write_video
from rl_interp.saliency import (
    Bars,
    Beside,
    Feature,
    Frame,
    Inputs,
    Panel,
    PolicyChange,
    Target,
    ValueChange,
    compose,
    is_signed,
    parse_target,
    randomisation_check,
    saliency_map,
)
from rl_interp.saliency.render import advantages, probabilities
from rl_interp.saliency.targets import evaluate, prepare

CONTROL_FRAMES = 8
"""Frames whose maps are compared with those of the agent with its weights shuffled."""
ACTOR_CRITIC = "actor-critic"
"""The target that is two: the policy's change and the value's."""
CLIP = 20
"""Steps of a highlight."""
WHOLE = 20_000
"""Steps of an episode from which highlights are cut, at most."""
DATA_STEPS = 1000
"""Steps of the episode, from its start, that say what a vector's entries are at other moments."""


def film(
    loaded: Loaded,
    path: Path,
    method: str,
    target: str,
    steps: int,
    skip: int | None,
    seed: int,
    sae: LoadedSAE | None = None,
    progress: Progress = SILENT,
    beside: Sequence[str] = (),
    highlights: int = 0,
) -> dict[str, Any]:
    """Write the film and, beside it, a picture of a frame with a strong map (the 90th percentile of mean |map|).

    Colours are scaled by the 99.5th percentile of |map| over the film, bars by the 99th of the advantages in it. A film
    of a feature or a unit begins where it fires; one that never does in the episode is warned of. The result's control,
    `spearman_with_shuffled_weights`, is near 1 if the maps show the picture rather than what the agent has learned. It
    is the mean over `control_frames` of the film's frames: those in which the agent has a map, and has one too with its
    weights shuffled. There may be none, and no mean, of a feature, which then fires seldom.

    Args:
        steps: length of the film; it ends earlier if the episode does.
        skip: steps to play before it starts; None: those at the start in which no action makes a difference.
        sae: for targets `feature:N`; an autoencoder on this very agent.
        target: as `parse_target` reads it, `feature:N`, or `actor-critic`: the policy's change and the value's, in two
            colours.
        beside: further methods, whose maps are drawn beside the first.
        highlights: clips of `CLIP` steps around the moments of the whole episode at which the actions' preferences lie
            farthest apart, cut together; `steps` is then not asked for.

    Raises:
        UserError: unknown method or target, an autoencoder on a different agent, a name that does not end in .mp4, or
            an episode that ends before the film starts.
    """
    at_least_one(steps=steps)
    check_video(path)
    if sae is not None and not sae.agent.is_same_as(loaded):
        raise UserError(f"{sae.run.path} is an autoencoder on {sae.agent.source}, not on {loaded.source}.")
    env = make_labelled(loaded.env)
    critic = ValueChange() if target == ACTOR_CRITIC else None
    explained = PolicyChange() if critic else target_of(target, env.action_names, sae, [ACTOR_CRITIC])
    if beside and loaded.env.observation_kind == "vector":
        raise UserError(f"{loaded.env.id} shows vectors, whose maps are bars; methods are drawn beside one another for "
                        "pictures alone.")  # fmt: skip
    if isinstance(explained, Feature):
        skip = _first_firing(loaded, env, explained, skip, seed, progress)
    moments = watch(loaded, env, WHOLE if highlights else steps, skip, seed)
    if highlights:
        moments = _highlights(moments, highlights)
    data = _data(loaded, env, seed) if loaded.env.observation_kind == "vector" else None
    maps = _maps(loaded, moments, explained, method, data, progress)
    others = [_maps(loaded, moments, explained, each, data, progress) for each in beside]
    values = _maps(loaded, moments, critic, method, data, progress) if critic else None
    some = moments[:: max(1, len(moments) // CONTROL_FRAMES)][:CONTROL_FRAMES]
    control = np.concatenate(
        [
            randomisation_check(loaded.agent, _batch_of_one(loaded, each), explained, method, each.state, data=data)
            for each in some
        ]
    )
    control = control[np.isfinite(control)]
    panel, frames = _frames(loaded, moments, maps, method, explained)
    if values is not None:
        panel = replace(panel, critic_scale=_scale(values), target="policy and value")
        frames = [replace(frame, critic=each) for frame, each in zip(frames, values, strict=True)]
    if others:
        further = [
            Beside(name, _scale(each), is_signed(name, explained)) for name, each in zip(beside, others, strict=True)
        ]
        panel = replace(panel, beside=further)
        frames = [replace(frame, beside=each) for frame, each in zip(frames, zip(*others, strict=True), strict=True)]
    with progress.bar("Writing video", len(frames), "frames") as update:
        write_video(path, _composed(frames, panel, update), loaded.env.steps_per_second)
    strong = np.argsort([np.abs(each).mean() for each in maps])[int(0.9 * (len(maps) - 1))]
    still = write_png(path.with_suffix(".png"), compose(frames[strong], panel))
    return {
        "video": str(path),
        "still": str(still),
        "frames": len(frames),
        "first_step": moments[0].step,
        "method": method,
        "target": target,
        "seed": seed,
        "spearman_with_shuffled_weights": float(control.mean()) if len(control) else None,
        "control_frames": len(control),
    }


def target_of(text: str, action_names: Sequence[str], sae: LoadedSAE | None, more: Sequence[str] = ()) -> Target:
    """`feature:N` of an autoencoder, or what `parse_target` knows; `more` are what else the caller takes.

    Raises:
        UserError: neither, or a feature that is not there.
    """
    kind, _, number = text.partition(":")
    if kind != "feature":
        return parse_target(text, action_names, ["feature:N", *more])
    if sae is None:
        raise UserError(f"target {text!r} given without an autoencoder; name the one that has the feature (--sae).")
    if not number.isdecimal() or int(number) >= sae.sae.d_sae:
        raise UserError(f"target {text!r} given; {sae.run.path} has features 0 to {sae.sae.d_sae - 1}.")
    return Feature(sae.hook, sae.sae.encode, int(number))


def _highlights(moments: Sequence[Moment], count: int) -> list[Moment]:
    """Clips around the moments of the largest spread of preferences, none inside another, in order of time."""

    def spread(moment: Moment) -> float:
        possible = moment.preferences[np.isfinite(moment.preferences)]
        return float(np.ptp(possible))

    clips: list[range] = []
    for middle in sorted(range(len(moments)), key=lambda i: -spread(moments[i])):
        clip = range(max(0, middle - CLIP // 2), min(len(moments), middle + CLIP // 2))
        if all(clip.stop <= other.start or other.stop <= clip.start for other in clips):
            clips.append(clip)
        if len(clips) == count:
            break
    return [moments[i] for clip in sorted(clips, key=lambda clip: clip.start) for i in clip]


def _scale(maps: Sequence[NDArray[np.float32]]) -> float:
    """One for the whole film, so that its frames can be compared; of at most about 100 maps, to be quick."""
    return float(np.quantile(np.abs(np.stack(maps[:: max(1, len(maps) // 100)])), 0.995))


def _first_firing(
    loaded: Loaded, env: LabelledEnv, feature: Feature, skip: int | None, seed: int, progress: Progress
) -> int | None:
    """The first step, of those that may begin a film, at which a feature is above 0; `skip` where there is none."""
    with progress.bar(f"Looking for {feature.name}", 1, "episode"):
        for each in follow(loaded, env, seed):
            begun = each.controllable if skip is None else each.step >= skip
            if begun and _now(loaded, each, feature) > 0:
                return each.step
    progress.warn(
        f"{feature.name} never fires in the episode of seed {seed}, so there is nothing to see in its film; give a "
        "different seed, or a feature that fires more often."
    )
    return skip


def _now(loaded: Loaded, moment: Moment, target: Target) -> float:
    """The target's value at a moment."""
    obs = _batch_of_one(loaded, moment)
    with torch.no_grad(), evaluating(loaded.agent):
        score, _ = prepare(loaded.agent, obs, moment.state, target)
        return float(evaluate(loaded.agent, obs, moment.state, target, score))


def _frames(
    loaded: Loaded, moments: Sequence[Moment], maps: Sequence[NDArray[np.float32]], method: str, target: Target
) -> tuple[Panel, list[Frame]]:
    shown, bars = _bars(loaded, [each.preferences for each in moments])
    scale = _scale(maps)
    inputs = None
    if names := loaded.env.input_names:
        inputs = Inputs(names, np.stack([each.obs for each in moments]), np.stack(maps), moments[0].step)
    panel = Panel(loaded.env.action_names, target.name, method, scale, bars, is_signed(method, target), inputs)
    frames = [
        Frame(
            each.screen, saliency, values, each.action if isinstance(each.action, int) else None, each.episode_return,
            each.step, _notes(loaded, each, target), each.observed,
        )
        for each, saliency, values in zip(moments, maps, shown, strict=True)
    ]  # fmt: skip
    return panel, frames


def _bars(loaded: Loaded, preferences: list[NDArray[np.float32]]) -> tuple[list[NDArray[np.float32]], Bars]:
    """What is shown of each action at each step, and what it stands for."""
    if loaded.env.action_kind == "continuous":
        return preferences, Bars.of_means(preferences)
    if loaded.has_q_values:
        shown = [advantages(each) for each in preferences]
        return shown, Bars.of_advantages(shown)
    return [probabilities(each) for each in preferences], Bars.of_probabilities()


def _data(loaded: Loaded, env: LabelledEnv, seed: int) -> Tensor:
    """What a vector's entries are at other moments of the episode: `[N, D]`."""
    seen = [moment.obs for moment in islice(follow(loaded, env, seed), DATA_STEPS)]
    return torch.from_numpy(np.stack(seen)).to(loaded.agent.device)


def _notes(loaded: Loaded, moment: Moment, target: Target) -> list[str]:
    value = [] if moment.value is None else [f"value of the state {moment.value:.2f}"]
    return [f"{target.name} at {_now(loaded, moment, target):.2f}", *value] if isinstance(target, Feature) else value


def _maps(
    loaded: Loaded,
    moments: Sequence[Moment],
    target: Target,
    method: str,
    data: Tensor | None,
    progress: Progress,
) -> list[NDArray[np.float32]]:
    maps = []
    with progress.bar(f"Mapping {target.name}", len(moments), "frames") as update:
        for each in moments:
            maps.append(saliency_map(loaded.agent, _batch_of_one(loaded, each), target, method, each.state, data)[0])
            update(len(maps))
    return maps


def _batch_of_one(loaded: Loaded, moment: Moment) -> Tensor:
    return torch.from_numpy(moment.obs[None]).to(loaded.agent.device)


def _composed(frames: Sequence[Frame], panel: Panel, update: Update) -> Iterator[NDArray[np.uint8]]:
    for i, frame in enumerate(frames):
        yield compose(frame, panel)
        update(i + 1)
