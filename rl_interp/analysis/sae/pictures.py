"""The pictures of a report: the screens at and around features' strongest moments, and what features look at there."""

import base64
import io
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.agent import State, evaluating
from rl_interp.core.envs import EnvConfig, make_labelled
from rl_interp.core.envs.workers import WorkerError
from rl_interp.core.hooks import hook_point
from rl_interp.core.processes import processes
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.receptive_fields import has_positions, receptive_fields
from rl_interp.core.replay import Recording, recordings, revisit
from rl_interp.sae import Features
from rl_interp.saliency import Feature, randomisation_check, saliency_map
from rl_interp.saliency.overlay import overlay

CLIP = 8
"""Steps before and after a feature's strongest moment that its clip shows."""
SHEET = 40
"""Screens in a sheet, at most: few enough to be decoded while nobody waits."""
HEIGHT = 420
"""Pixels of a saliency picture, at least."""
_INPUTS = 12
"""Inputs of a vector that are shown, at most."""
_MOMENTS = 300
"""Samples, about, that say what inputs are at other moments."""
_WORTH = 5_000
"""Steps to be played again that pay for a process: it takes seconds to begin."""
_TALLEST = 16_383
"""Pixels along a side of a WebP, at most."""


class Look(NamedTuple):
    """A state, as a person sees it and as the agent does."""

    screen: NDArray[np.uint8]
    """`[H, W, 3]`"""
    obs: NDArray[Any]


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
    kept: dict[int, Look]
    """The samples that were asked for as arrays."""


def screens(
    fitted: LoadedSAE, samples: NDArray[np.integer], keep: Collection[int] = (), progress: Progress = SILENT
) -> Screens:
    """The screens that a person would have seen at some samples of the store, by playing their episodes again, in
    several processes where that pays.

    Args:
        keep: those of the samples that are wanted as arrays too.
    """
    episodes, kept, size = recordings(fitted.store, samples), {}, (0, 0)
    sheets: list[tuple[list[int], str]] = []
    work = partial(_of_episode, fitted.agent.env, frozenset(keep))
    with progress.bar("Playing top frames again", len(episodes), "episodes") as update:
        for done, of_episode in enumerate(_in_processes(work, episodes)):
            size = of_episode.size
            sheets += of_episode.sheets
            kept |= of_episode.kept
            update(done + 1)
    places = {sample: [s, i] for s, (numbers, _) in enumerate(sheets) for i, sample in enumerate(numbers)}
    return Screens(*size, places, [sheet for _, sheet in sheets], kept)


class _OfEpisode(NamedTuple):
    size: tuple[int, int]
    sheets: list[tuple[list[int], str]]
    kept: dict[int, Look]


def _of_episode(config: EnvConfig, keep: Collection[int], recording: Recording) -> _OfEpisode:
    """An episode's sheets, encoded as soon as they are full, so that few screens are in memory."""
    size, sheets, kept = (0, 0), [], {}
    screens: dict[int, NDArray[np.uint8]] = {}
    for state in recording.visits(make_labelled(config)):
        screens[state.sample] = screen = state.env.render()
        size = (screen.shape[0], screen.shape[1])
        if state.sample in keep:
            kept[state.sample] = Look(screen, state.obs)
        if len(screens) == min(SHEET, _TALLEST // size[0]) or state.step == recording.steps[-1]:
            sheets.append((list(screens), _sheet(list(screens.values()))))
            screens.clear()
    return _OfEpisode(size, sheets, kept)


def _in_processes(work: Callable[[Recording], _OfEpisode], episodes: Sequence[Recording]) -> Iterator[_OfEpisode]:
    """`work` of each episode, in their order: on every core, unless it is done before other processes have begun."""
    count = min(len(episodes), os.cpu_count() or 1, sum(each.steps[-1] for each in episodes) // _WORTH)
    if count < 2:
        yield from map(work, episodes)
        return
    # An interrupt reaches every process of a terminal; it is this one's to end the others.
    ignored = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(count, processes(__name__), initializer=signal.signal, initargs=ignored)
    try:
        yield from pool.map(work, episodes)
    except BrokenProcessPool:
        raise WorkerError("a process that played episodes again died; is there enough memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def clip(episodes: NDArray[np.integer], sample: int) -> NDArray[np.int64]:
    """The samples around one, of the same episode; `episodes [samples]` says of which each is."""
    near = np.arange(max(0, sample - CLIP), min(len(episodes), sample + CLIP + 1))
    return near[episodes[near] == episodes[sample]]


def boxes(fitted: LoadedSAE, screen: tuple[int, int]) -> dict[str, Any]:
    """Where the positions of a layer lie on a screen `(H, W)`: `boxes`, position to left, top, right and bottom of what
    it is about, and `reach`, width and height of all that it sees, in pixels of the screen; `sees`, the same in words.
    Empty for a layer whose rows are about all of the screen."""
    shape, count = fitted.agent.env.observation_shape, fitted.store.positions
    if count == 1 or not has_positions(hook_point(fitted.agent.agent, fitted.hook)):
        return {"boxes": {}, "reach": None, "sees": None}
    blank = torch.zeros(1, *shape, dtype=torch.uint8, device=fitted.agent.agent.device)
    place, observed = receptive_fields(fitted.agent.agent, fitted.hook, blank), fitted.agent.env.observed(*screen)
    centres, half = place.pixels(), np.array(place.stride) / 2
    found = {}
    for position in range(count):
        at = np.array([c[i] + 0.5 for c, i in zip(centres, divmod(position, place.shape[1]), strict=True)])
        (top, left), (bottom, right) = ((at + way * half) / shape[1:] for way in (-1, 1))
        found[str(position)] = [round(edge, 2) for edge in observed.box(top, left, bottom, right)]
    height, width = (min(n, whole) for n, whole in zip(place.size, shape[1:], strict=True))
    left, top, right, bottom = observed.box(0, 0, height / shape[1], width / shape[2])
    return {
        "boxes": found,
        "reach": [round(right - left, 2), round(bottom - top, 2)],
        "sees": f"{width} × {height} of the observation's {shape[2]} × {shape[1]} pixels",
    }


class Positions:
    """Where in a layer with positions features fire; None of each for a layer without."""

    def __init__(self, fitted: LoadedSAE, features: Features):
        self._count, self._encoded, self._features = fitted.store.positions, fitted.rows, features

    def rates(self, feature: int) -> dict[str, Any] | None:
        """How often a feature fires at each position: `most`, the largest share of the samples, and `shares`, a byte a
        position in base64, 255 being that."""
        if self._count == 1:
            return None
        at = np.bincount(self._encoded[self._features.rows(feature)] % self._count, minlength=self._count)
        shares = np.round(255 * at / max(1, at.max())).astype(np.uint8)
        samples = len(self._encoded) / self._count
        return {"most": round(float(at.max() / samples), 4), "shares": base64.b64encode(shares.tobytes()).decode()}

    def mask(self, feature: int, row: int) -> list[list[float]] | None:
        """Where a feature fires at the moment of a row: positions, and its value there over its largest."""
        if self._count == 1:
            return None
        of_feature = self._encoded[self._features.rows(feature)]
        sample = row // self._count
        first, last = np.searchsorted(of_feature, [sample * self._count, (sample + 1) * self._count])
        values = self._features.values(feature)[first:last]
        shares = values / values.max(initial=1e-12)
        return [
            [int(at % self._count), round(float(x), 2)] for at, x in zip(of_feature[first:last], shares, strict=True)
        ]


def feature_saliency(
    fitted: LoadedSAE,
    moments: Mapping[int, int],
    looks: Mapping[int, Look],
    progress: Progress = SILENT,
) -> dict[str, dict[str, Any]]:
    """Of each feature at a row of the store, its perturbation saliency: `image`, a WebP in base64 of the screen with
    the map over it, or `inputs`, those of a vector that matter most with how much, and `control`, the rank correlation
    with the map of a network of shuffled weights (None where a map is all zero). `looks` has the rows' samples.
    """
    found: dict[str, dict[str, Any]] = {}
    if not moments:
        return found
    data = _data(fitted) if fitted.agent.env.observation_kind == "vector" else None
    by_sample: dict[int, list[int]] = {}
    for feature, row in moments.items():
        by_sample.setdefault(row // fitted.store.positions, []).append(feature)
    agent = fitted.agent.agent
    with progress.bar("Mapping features", len(moments), "features") as update:
        for sample, obs, state in moments_at(fitted, {sample: looks[sample].obs for sample in sorted(by_sample)}):
            for feature in by_sample[sample]:
                target = Feature(fitted.hook, fitted.sae.encode, feature)
                maps = saliency_map(agent, obs, target, state=state, data=data)
                [control] = randomisation_check(agent, obs, target, "perturbation", state, maps=maps, data=data)
                found[str(feature)] = {
                    **_drawn(fitted.agent.env, looks[sample].screen, maps[0]),
                    "control": round(float(control), 3) if np.isfinite(control) else None,
                }
                update(len(found))
    return found


def _drawn(env: EnvConfig, screen: NDArray[np.uint8], saliency: NDArray[np.float32]) -> dict[str, Any]:
    if saliency.ndim == 1:
        names = env.input_names or [f"input {i}" for i in range(len(saliency))]
        most = np.sort(np.argsort(-np.abs(saliency), kind="stable")[:_INPUTS]).tolist()
        return {"inputs": [[names[i], float(f"{saliency[i]:.4g}")] for i in most]}
    times = -(-HEIGHT // screen.shape[0])
    size = screen.shape[0] * times, screen.shape[1] * times
    observed = env.observed(*screen.shape[:2])
    return {"image": _webp(overlay(screen, saliency, float(np.abs(saliency).max()), size, observed), quality=80)}


def _data(fitted: LoadedSAE) -> torch.Tensor:
    """What a vector's entries are at other moments: `[N, D]`, of evenly spread samples."""
    samples = np.arange(fitted.store.samples)[:: max(1, fitted.store.samples // _MOMENTS)]
    seen = [state.obs for state in revisit(fitted.agent.env, fitted.store, samples)]
    return torch.from_numpy(np.stack(seen)).to(fitted.agent.agent.device)


@torch.no_grad()
def moments_at(
    fitted: LoadedSAE, observations: Mapping[int, NDArray[Any]]
) -> Iterator[tuple[int, torch.Tensor, State]]:
    """The observation `[1, ...]` and the agent's state at some samples of the store, given with their observations."""
    agent = fitted.agent.agent
    if agent.initial_state(1) == ():  # without memory, it needs none of what came before
        for sample, obs in observations.items():
            yield sample, torch.from_numpy(obs[None]).to(agent.device), ()
        return
    state = agent.initial_state(1)
    for seen in revisit(fitted.agent.env, fitted.store, _up_to(fitted, np.array(list(observations)))):
        if seen.step == 0:
            state = agent.initial_state(1)
        obs = torch.from_numpy(seen.obs[None]).to(agent.device)
        if seen.sample in observations:
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
