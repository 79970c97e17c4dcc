"""The pictures of a report: the screens at and around features' strongest moments, and what features look at there."""

import base64
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.agent import State, evaluating
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.receptive_fields import receptive_fields
from rl_interp.core.replay import looks, revisit
from rl_interp.saliency import Feature, randomisation_check, saliency_map
from rl_interp.saliency.render import overlay

CLIP = 8
"""Steps before and after a feature's strongest moment that its clip shows."""
SHEET = 40
"""Screens in a sheet, at most: few enough to be decoded while nobody waits."""
HEIGHT = 420
"""Pixels of a saliency picture, at least."""
_AHEAD = 4
"""Sheets that wait to be encoded, at most."""
_TALLEST = 16_383
"""Pixels along a side of a WebP, at most."""


@dataclass(frozen=True)
class Screens:
    """Screens of a store's samples in sheets, one below the other: neighbours in an episode differ little, so that
    together they take a fraction of what they do apart."""

    height: int
    width: int
    places: dict[int, list[int]]
    """Sample to the number of its sheet, and its own number in there."""
    sheets: list[str]
    """WebPs in base64, without loss."""
    kept: dict[int, NDArray[np.uint8]]
    """The screens `[H, W, 3]` of the samples that were asked for as arrays."""


def screens(
    fitted: LoadedSAE, samples: NDArray[np.integer], keep: Collection[int] = (), progress: Progress = SILENT
) -> Screens:
    """The screens that a person would have seen at some samples of the store, by playing their episodes again.

    Args:
        keep: samples whose screens are wanted as arrays too.
    """
    store, kept, size = fitted.store, {}, (0, 0)
    sheets: list[tuple[list[int], Future[str]]] = []
    count = len(np.unique(store.column("episode")[samples]))
    with progress.bar("Playing top frames again", count, "episodes") as update, ThreadPoolExecutor(1) as encoder:
        for done, of_episode in enumerate(looks(fitted.agent.env, store, samples, "screen")):
            numbers = sorted(of_episode)
            size = of_episode[numbers[0]].shape[:2]
            each = min(SHEET, _TALLEST // size[0])
            for start in range(0, len(numbers), each):
                of_sheet = numbers[start : start + each]
                # Beside the emulators, which play on meanwhile, but not so far that screens pile up.
                if len(sheets) >= _AHEAD:
                    sheets[-_AHEAD][1].result()
                sheets.append((of_sheet, encoder.submit(_sheet, [of_episode[sample] for sample in of_sheet])))
            kept |= {sample: of_episode[sample] for sample in keep if sample in of_episode}
            update(done + 1)
        sheets.sort(key=lambda sheet: sheet[0][0])  # episodes come as they end
        places = {sample: [s, i] for s, (numbers, _) in enumerate(sheets) for i, sample in enumerate(numbers)}
        return Screens(size[0], size[1], places, [encoded.result() for _, encoded in sheets], kept)


def clip(episodes: NDArray[np.integer], sample: int) -> NDArray[np.int64]:
    """The samples around one, of the same episode; `episodes [samples]` says of which each is."""
    near = np.arange(max(0, sample - CLIP), min(len(episodes), sample + CLIP + 1))
    return near[episodes[near] == episodes[sample]]


def boxes(fitted: LoadedSAE, rows: NDArray[np.integer], screen: tuple[int, int]) -> dict[str, list[float]]:
    """What rows of a layer with positions are about: position to left, top, right and bottom, in pixels of a screen
    `(H, W)`. Empty for a layer whose rows are about all of it."""
    shape, count = fitted.agent.env.observation_shape, fitted.store.positions
    if count == 1:
        return {}
    place = receptive_fields(fitted.agent.agent, fitted.hook, torch.zeros(1, *shape, dtype=torch.uint8))
    centres, half, scale = place.pixels(), np.array(place.stride) / 2, np.array(screen) / shape[1:]
    found = {}
    for position in np.unique(rows % count).tolist():
        at = np.array([c[i] + 0.5 for c, i in zip(centres, divmod(position, place.shape[1]), strict=True)])
        (top, left), (bottom, right) = ((at + way * half) * scale for way in (-1, 1))
        found[str(position)] = [round(float(edge), 2) for edge in (left, top, right, bottom)]
    return found


def feature_saliency(
    fitted: LoadedSAE,
    moments: Mapping[int, int],
    screens: Mapping[int, NDArray[np.uint8]],
    progress: Progress = SILENT,
) -> dict[str, dict[str, Any]]:
    """Of each feature at a row of the store, its perturbation saliency: `image`, a WebP in base64 of the screen with
    the map over it, and `control`, the rank correlation with the map of a network of shuffled weights (None where a map
    is all zero). `screens` has the screens of the rows' samples.

    Empty where observations are no images.
    """
    found: dict[str, dict[str, Any]] = {}
    if not moments or len(fitted.agent.env.observation_shape) != 3:
        return found
    by_sample: dict[int, list[int]] = {}
    for feature, row in moments.items():
        by_sample.setdefault(row // fitted.store.positions, []).append(feature)
    agent = fitted.agent.agent
    with progress.bar("Mapping features", len(moments), "features") as update:
        for sample, obs, state in moments_at(fitted, np.array(sorted(by_sample))):
            for feature in by_sample[sample]:
                target = Feature(fitted.hook, fitted.sae.encode, feature)
                maps = saliency_map(agent, obs, target, state=state)
                [control] = randomisation_check(agent, obs, target, "perturbation", state, maps=maps)
                screen = screens[sample]
                times = -(-HEIGHT // screen.shape[0])
                size = screen.shape[0] * times, screen.shape[1] * times
                image = overlay(screen, maps[0], float(np.abs(maps).max()), size)
                found[str(feature)] = {
                    "image": _webp(image, quality=80),
                    "control": round(float(control), 3) if np.isfinite(control) else None,
                }
                update(len(found))
    return found


@torch.no_grad()
def moments_at(fitted: LoadedSAE, samples: NDArray[np.int64]) -> Iterator[tuple[int, torch.Tensor, State]]:
    """The observation `[1, ...]` and the agent's state at some samples of the store, in no order."""
    agent, wanted = fitted.agent.agent, set(samples.tolist())
    if agent.initial_state(1) == ():  # without memory, it needs none of what came before
        for of_episode in looks(fitted.agent.env, fitted.store, samples, "observation"):
            for sample, obs in of_episode.items():
                yield sample, torch.from_numpy(obs[None]).to(agent.device), ()
        return
    state = agent.initial_state(1)
    for seen in revisit(fitted.agent.env, fitted.store, _up_to(fitted, samples)):
        if seen.step == 0:
            state = agent.initial_state(1)
        obs = torch.from_numpy(seen.obs[None]).to(agent.device)
        if seen.sample in wanted:
            yield seen.sample, obs, state
        with evaluating(agent):
            out = agent.step(obs, state, torch.tensor([False], device=agent.device))
        state = agent.after_action(out.state, torch.tensor([seen.action], device=agent.device))


def _up_to(fitted: LoadedSAE, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """The samples of their episodes, each from its start to the last of those given."""
    number, everyone = fitted.store.column("episode"), np.arange(fitted.store.samples)
    last = {int(number[sample]): int(sample) for sample in np.sort(samples)}
    return np.concatenate([everyone[(number == episode) & (everyone <= to)] for episode, to in last.items()])


def _sheet(screens: Sequence[NDArray[np.uint8]]) -> str:
    # At the highest "quality" the encoder looks far enough back to find what a screen has in common with the one above.
    return _webp(np.concatenate(screens), lossless=True, quality=100, method=0)


def _webp(picture: NDArray[np.uint8], **settings: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", **settings)
    return base64.b64encode(file.getvalue()).decode()
