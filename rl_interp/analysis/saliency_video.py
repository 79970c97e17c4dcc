"""A film of one episode: the game, the saliency map, and what the agent thinks of its actions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.playing import Moment, watch
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.pictures import write_png
from rl_interp.core.progress import SILENT, Progress, Update
from rl_interp.core.video import check_video, write_video
from rl_interp.saliency import (
    Feature,
    Frame,
    Panel,
    Target,
    compose,
    parse_target,
    randomisation_check,
    saliency_map,
)
from rl_interp.saliency.render import preference_range

CONTROL_FRAMES = 8
"""Frames whose maps are compared with those of the agent with its weights shuffled."""


def film(
    loaded: Loaded,
    path: Path,
    method: str,
    target: str,
    steps: int,
    skip: int,
    seed: int,
    sae: LoadedSAE | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the film and, beside it, a picture of a frame with a strong map (the 90th percentile of mean |map|).

    Colours are scaled by the 99.5th percentile of |map| over the film, bars by the range of preferences in it. The
    result's control, `spearman_with_shuffled_weights`, is near 1 if the maps show the picture rather than what the
    agent has learned; None where a map is all zero.

    Args:
        steps: length of the film; it ends earlier if the episode does.
        skip: steps to play before it starts.
        sae: for targets `feature:N`; an autoencoder on this very agent.

    Raises:
        UserError: unknown method or target, an autoencoder on a different agent, or a name that does not end in .mp4.
    """
    at_least_one(steps=steps)
    check_video(path)
    if sae is not None and not sae.agent.is_same_as(loaded):
        raise UserError(f"{sae.run.path} is an autoencoder on {sae.agent.source}, not on {loaded.source}.")
    env = make_labelled(loaded.env)
    explained = _target(target, env.action_names, sae)
    moments = watch(loaded, env, steps, skip, seed)
    maps = _maps(loaded, moments, explained, method, progress)
    some = moments[:: max(1, len(moments) // CONTROL_FRAMES)][:CONTROL_FRAMES]
    control = np.concatenate(
        [randomisation_check(loaded.agent, _batch_of_one(loaded, each), explained, method, each.state) for each in some]
    )
    # One scale for the whole film, so that its frames can be compared; of at most about 100 maps, to be quick.
    scale = float(np.quantile(np.abs(np.stack(maps[:: max(1, len(maps) // 100)])), 0.995))
    limits = preference_range([moment.preferences for moment in moments])
    panel = Panel(env.action_names, explained.name, method, scale, limits)
    frames = [
        Frame(each.screen, saliency, each.preferences, each.action, each.episode_return, each.step)
        for each, saliency in zip(moments, maps, strict=True)
    ]
    with progress.bar("Writing video", len(frames), "frames") as update:
        write_video(path, _composed(frames, panel, update), loaded.env.steps_per_second)
    strong = np.argsort([np.abs(each).mean() for each in maps])[int(0.9 * (len(maps) - 1))]
    still = write_png(path.with_suffix(".png"), compose(frames[strong], panel))
    return {
        "video": str(path),
        "still": str(still),
        "frames": len(frames),
        "method": method,
        "target": target,
        "seed": seed,
        "spearman_with_shuffled_weights": float(control.mean()) if np.isfinite(control).all() else None,
    }


def _maps(
    loaded: Loaded, moments: Sequence[Moment], target: Target, method: str, progress: Progress
) -> list[NDArray[np.float32]]:
    maps = []
    with progress.bar(f"Mapping {target.name}", len(moments), "frames") as update:
        for each in moments:
            maps.append(saliency_map(loaded.agent, _batch_of_one(loaded, each), target, method, each.state)[0])
            update(len(maps))
    return maps


def _batch_of_one(loaded: Loaded, moment: Moment) -> Tensor:
    return torch.from_numpy(moment.obs[None]).to(loaded.agent.device)


def _composed(frames: Sequence[Frame], panel: Panel, update: Update) -> Iterator[NDArray[np.uint8]]:
    for i, frame in enumerate(frames):
        yield compose(frame, panel)
        update(i + 1)


def _target(text: str, action_names: Sequence[str], sae: LoadedSAE | None) -> Target:
    """`feature:N` of an autoencoder, or what `parse_target` knows."""
    kind, _, number = text.partition(":")
    if kind != "feature":
        return parse_target(text, action_names, ["feature:N"])
    if sae is None:
        raise UserError(f"target {text!r} given without an autoencoder; name the one that has the feature (--sae).")
    if not number.isdecimal() or int(number) >= sae.sae.d_sae:
        raise UserError(f"target {text!r} given; {sae.run.path} has features 0 to {sae.sae.d_sae - 1}.")
    return Feature(sae.hook, sae.sae.encode, int(number))
