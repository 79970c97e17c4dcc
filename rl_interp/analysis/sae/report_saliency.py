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
from rl_interp.core.agent import State, evaluating
from rl_interp.core.replay import revisit
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
    """The screen, the observation `[1, ...]` and the agent's state at some samples of the store."""
    agent, wanted = fitted.agent.agent, set(samples.tolist())
    state = agent.initial_state(1)
    remembers = state != ()  # without memory, an agent needs none of what came before
    for seen in revisit(fitted.agent.env, fitted.store, _up_to(fitted, samples) if remembers else samples):
        if seen.step == 0:
            state = agent.initial_state(1)
        obs = torch.from_numpy(seen.obs[None]).to(agent.device)
        if seen.sample in wanted:
            yield seen.sample, seen.env.render(), obs, state
        if remembers:
            with evaluating(agent):
                out = agent.step(obs, state, torch.tensor([False], device=agent.device))
            state = agent.after_action(out.state, torch.tensor([seen.action], device=agent.device))


def _up_to(fitted: LoadedSAE, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """The samples of their episodes, each from its start to the last of those given."""
    number, everyone = fitted.store.column("episode"), np.arange(fitted.store.samples)
    last = {int(number[sample]): int(sample) for sample in np.sort(samples)}
    return np.concatenate([everyone[(number == episode) & (everyone <= to)] for episode, to in last.items()])


def _webp(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()
