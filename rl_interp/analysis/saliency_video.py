"""A film of one episode: the game, the saliency map, and what the agent thinks of its actions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.app.progress import progress_bar
from rl_interp.core.agent import State, evaluating, tree_map
from rl_interp.core.envs import LabelledEnv, make_labelled
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.pictures import write_png
from rl_interp.core.rollout import choose
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
"""Frames whose maps are compared with those of a network of shuffled weights."""


@dataclass(frozen=True)
class Moment:
    """What an agent was before it decided, and what it decided."""

    screen: NDArray[np.uint8]
    obs: NDArray[np.uint8]
    state: State
    preferences: NDArray[np.float32]
    action: int
    episode_return: float
    step: int


def film(
    loaded: Loaded,
    path: Path,
    method: str,
    target: str,
    decisions: int,
    skip: int,
    seed: int,
    sae: LoadedSAE | None = None,
) -> dict[str, Any]:
    """Write the film and, beside it, a picture of a frame with a strong map (the 90th percentile of mean |map|).

    Colours are scaled by the 99.5th percentile of |map| over the film, bars by the range of preferences in it. The
    result's control, `spearman_with_shuffled_weights`, is near 1 if the maps show the picture rather than what the
    agent has learned; None where a map is all zero.
    """
    at_least_one(decisions=decisions)
    check_video(path)
    env = make_labelled(loaded.env)
    explained = _target(target, env.action_names, sae)
    moments = play(loaded, env, decisions, skip, seed)
    device = loaded.agent.device
    maps = []
    with progress_bar(f"Mapping {target}", len(moments), "frames") as update:
        for moment in moments:
            obs = torch.from_numpy(moment.obs[None]).to(device)
            maps.append(saliency_map(loaded.agent, obs, explained, method, moment.state)[0])
            update(len(maps))
    some = moments[:: max(1, len(moments) // CONTROL_FRAMES)][:CONTROL_FRAMES]
    control = np.concatenate(
        [
            randomisation_check(loaded.agent, torch.from_numpy(m.obs[None]).to(device), explained, method, m.state)
            for m in some
        ]
    )
    scale = float(np.quantile(np.abs(np.stack(maps[:: max(1, len(maps) // 100)])), 0.995))
    limits = preference_range([moment.preferences for moment in moments])
    panel = Panel(env.action_names, explained.name, method, scale, limits)
    frames = [
        Frame(m.screen, saliency, m.preferences, m.action, m.episode_return, m.step)
        for m, saliency in zip(moments, maps, strict=True)
    ]
    with progress_bar("Writing video", len(frames), "frames") as update:
        write_video(path, _composed(frames, panel, update), loaded.env.decisions_per_second)
    clear = np.argsort([np.abs(each).mean() for each in maps])[int(0.9 * (len(maps) - 1))]
    still = write_png(path.with_suffix(".png"), compose(frames[clear], panel))
    return {
        "video": str(path),
        "still": str(still),
        "frames": len(frames),
        "method": method,
        "target": target,
        "seed": seed,
        "spearman_with_shuffled_weights": float(control.mean()) if np.isfinite(control).all() else None,
    }


def _composed(frames: list[Frame], panel: Panel, update) -> Iterator[NDArray[np.uint8]]:
    for i, frame in enumerate(frames):
        yield compose(frame, panel)
        update(i + 1)


@torch.no_grad()
def play(loaded: Loaded, env: LabelledEnv, decisions: int, skip: int, seed: int) -> list[Moment]:
    """The moments of an episode, from decision `skip` on: greedy in Q-values, sampled from a policy."""
    device, rng, moments = loaded.agent.device, np.random.default_rng(seed), []
    obs, _ = env.reset(seed=seed)
    state, total = loaded.agent.initial_state(1), 0.0
    with evaluating(loaded.agent):
        for step in range(skip + decisions):
            kept = tree_map(torch.clone, state)  # the agent may go on with the same memory
            out = loaded.agent.step(torch.from_numpy(obs[None]).to(device), state, torch.tensor([False], device=device))
            action = int(choose(out, rng, epsilon=0.0)[0])
            if step >= skip:
                preferences = out.preferences[0].float().cpu().numpy()
                moments.append(Moment(env.render(), obs, kept, preferences, action, total, step))
            state = loaded.agent.after_action(out.state, torch.tensor([action], device=device))
            obs, reward, terminated, truncated, _ = env.step(action)
            total += reward
            if terminated or truncated:
                break
    return moments


def _target(text: str, action_names: Sequence[str], sae: LoadedSAE | None) -> Target:
    """`feature:N` of an autoencoder, `unit:HOOK:N` of the agent, or what `parse_target` knows."""
    kind, _, number = text.partition(":")
    if kind == "unit":
        hook, _, index = number.rpartition(":")
        if not hook or not index.isdigit():
            raise UserError(f"target {text!r} given; a unit is named as unit:HOOK:N, such as unit:deter:12.")
        return Feature(hook, lambda features: features, int(index))
    if kind != "feature":
        return parse_target(text, action_names, ["unit:HOOK:N", "feature:N"])
    if sae is None:
        raise UserError(f"target {text!r} given without an autoencoder; say which one with --sae.")
    if not number.isdigit() or int(number) >= sae.sae.d_sae:
        raise UserError(f"target {text!r} given; {sae.run.path} has features 0 to {sae.sae.d_sae - 1}.")
    return Feature(sae.hook, sae.sae.encode, int(number))
