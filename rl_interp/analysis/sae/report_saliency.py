"""What features look at, for a report: their saliency at their strongest moments."""

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.app.progress import progress_bar
from rl_interp.core.agent import State, device_of, evaluating
from rl_interp.core.envs import make_labelled
from rl_interp.saliency import Feature, randomisation_check, saliency_map
from rl_interp.saliency.render import overlay

HEIGHT = 420
"""Pixels of a picture, at least."""


def feature_saliency(fitted: LoadedSAE, moments: Mapping[int, int]) -> dict[str, dict[str, Any]]:
    """Of each feature at a row of the store, its perturbation saliency: `image`, a WebP in base64 of the screen with
    the map over it, and `control`, the rank correlation with the map of a network of shuffled weights (None where a map
    is all zero).

    Empty where observations are no images.
    """
    found: dict[str, dict[str, Any]] = {}
    if not moments or len(fitted.agent.env.observation_shape) != 3:
        return found
    by_sample: dict[int, list[int]] = {}
    for feature, row in moments.items():
        by_sample.setdefault(row // fitted.store.positions, []).append(feature)
    agent = fitted.agent.agent
    with progress_bar("Mapping features", len(moments), "features") as update:
        for sample, screen, obs, state in moments_at(fitted, np.array(sorted(by_sample))):
            for feature in by_sample[sample]:
                target = Feature(fitted.hook, fitted.sae.encode, feature)
                maps = saliency_map(agent, obs, target, state=state)
                [control] = randomisation_check(agent, obs, target, "perturbation", state, maps=maps)
                times = -(-HEIGHT // screen.shape[0])
                size = screen.shape[0] * times, screen.shape[1] * times
                image = overlay(screen, maps[0], float(np.abs(maps).max()), size)
                found[str(feature)] = {
                    "image": _webp(image), "control": round(float(control), 3) if np.isfinite(control) else None
                }  # fmt: skip
                update(len(found))
    return found


@torch.no_grad()
def moments_at(
    fitted: LoadedSAE, samples: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.uint8], torch.Tensor, State]]:
    """The screen, the observation `[1, ...]` and the agent's state at decisions of the store, by following their
    episodes from the start."""
    agent, env = fitted.agent.agent, make_labelled(fitted.agent.env)
    device = device_of(agent)
    episodes, steps, actions, seeds = (
        fitted.store.column(name) for name in ("episode", "step", "action", "episode_seed")
    )
    for episode in np.unique(episodes[samples]):
        wanted = {int(steps[sample]): int(sample) for sample in samples[episodes[samples] == episode]}
        whole = np.flatnonzero(episodes == episode)
        observation, _ = env.reset(seed=int(seeds[whole[0]]))
        state = agent.initial_state(1)
        for step in range(max(wanted) + 1):
            obs, action = torch.from_numpy(observation[None]).to(device), int(actions[whole[step]])
            if step in wanted:
                yield wanted[step], env.render(), obs, state
            if state:  # an agent without memory needs none of what came before
                with evaluating(agent):
                    out = agent.step(obs, state, torch.tensor([False], device=device))
                state = agent.after_action(out.state, torch.tensor([action], device=device))
            observation, *_ = env.step(action)


def _webp(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()
