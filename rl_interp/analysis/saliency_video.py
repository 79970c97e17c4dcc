"""A film of one episode: the game, the saliency map, and what the agent thinks of its actions.

The episode is played once, and mapped as it is; of each step only what will be drawn is kept, its screen compressed, so
that thousands fit into memory. Scales follow from all maps, and then the frames are drawn.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment
from rl_interp.analysis.playing import follow, watching
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.agent import evaluating
from rl_interp.core.envs import LabelledEnv, make_labelled
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.film import check_film, write_film
from rl_interp.core.pictures import write_png
from rl_interp.core.progress import SILENT, Progress
from rl_interp.saliency import (
    Bars,
    Beside,
    Feature,
    Frame,
    Inputs,
    Panel,
    PolicyChange,
    Target,
    Tracks,
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
_NOTHING = np.empty(0, np.uint8)


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
    tracks: Sequence[str] = (),
    cut_by: str = "spread",
) -> dict[str, Any]:
    """Write the film and, beside it, a picture of a frame with a strong map (the 90th percentile of mean |map|).

    Colours are scaled by the 99.5th percentile of |map| over the film, bars by the 99th of the advantages in it. A film
    of a feature or a unit begins where it fires; one that never does in the episode is warned of. The result's control,
    `spearman_with_shuffled_weights`, is near 1 if the maps show the picture rather than what the agent has learned. It
    is the mean over `control_frames` of the film's frames: those in which the agent has a map, and has one too with its
    weights shuffled. There may be none, and no mean, of a feature, which then fires seldom.

    Args:
        path: its ending says what is written: .mp4, .gif (half as high and wide), or .png, a sheet of 12 frames.
        steps: length of the film; it ends earlier if the episode does.
        skip: steps to play before it starts; None: those at the start in which no action makes a difference.
        sae: for targets and tracks `feature:N`; an autoencoder on this very agent.
        target: as `parse_target` reads it, `feature:N`, or `actor-critic`: the policy's change and the value's, in two
            colours.
        beside: further methods, whose maps are drawn beside the first.
        highlights: clips of `CLIP` steps around moments of the whole episode, cut together; `steps` is then not asked
            for, and the episode is played twice.
        tracks: targets, named like `target`, whose values are drawn under the frames over the film's time.
        cut_by: which moments highlights are: those at which the actions' preferences lie farthest apart (`spread`), or
            have moved most since the step before (`change`).

    Raises:
        UserError: unknown method, target or track, an autoencoder on a different agent, a name with another ending, or
            an episode that ends before the film starts.
    """
    at_least_one(steps=steps)
    check_film(path)
    if "entities" in (method, *beside):
        raise UserError(
            "entities asked for in a film, and their values need states to exchange things with; use `rl-interp "
            "saliency evaluate --methods entities`."
        )
    if cut_by not in ("spread", "change"):
        raise UserError(f"cut_by={cut_by!r} given; highlights are moments of the largest 'spread' or 'change'.")
    if sae is not None and not sae.agent.is_same_as(loaded):
        raise UserError(f"{sae.run.path} is an autoencoder on {sae.agent.source}, not on {loaded.source}.")
    env = make_labelled(loaded.env)
    critic = ValueChange() if target == ACTOR_CRITIC else None
    explained = PolicyChange() if critic else target_of(target, env.action_names, sae, [ACTOR_CRITIC])
    followed = [target_of(each, env.action_names, sae) for each in tracks]
    if beside and loaded.env.observation_kind == "vector":
        raise UserError(f"{loaded.env.id} shows vectors, whose maps are bars; methods are drawn beside one another for "
                        "pictures alone.")  # fmt: skip
    if isinstance(explained, Feature):
        skip = _first_firing(loaded, env, explained, skip, seed, progress)
    moments, length = watching(loaded, env, steps, skip, seed), steps
    if highlights:
        clips = _highlights(_interest(watching(loaded, env, WHOLE, skip, seed), cut_by), highlights)
        moments, length = _picked(watching(loaded, env, WHOLE, skip, seed), clips), sum(map(len, clips))
    data = _data(loaded, env, seed) if loaded.env.observation_kind == "vector" else None
    mapping = [(explained, method), *((explained, each) for each in beside)]
    mapping += [(critic, method)] if critic else []
    sample = _Sample()
    shots = []
    with progress.bar(f"Mapping {explained.name}", length, "frames") as update:
        for moment in moments:
            shots.append(_shot(loaded, moment, mapping, followed, data))
            sample.add(moment)
            update(len(shots))
    control = np.concatenate(
        [
            randomisation_check(loaded.agent, _batch_of_one(loaded, each), explained, method, each.state, data=data)
            for each in sample.evenly(CONTROL_FRAMES)
        ]
    )
    control = control[np.isfinite(control)]
    panel = _panel(loaded, shots, method, explained, beside, critic, tracks)
    frames = _Frames(loaded, shots, panel, explained)
    with progress.bar("Drawing", len(shots), "frames") as update:
        write_film(path, frames, loaded.env.steps_per_second, update)
    strong = int(np.argsort([np.abs(each.maps[0]).mean() for each in shots])[int(0.9 * (len(shots) - 1))])
    still = path.with_name(f"{path.stem}-strong.png") if path.suffix == ".png" else path.with_suffix(".png")
    write_png(still, frames[strong])
    return {
        "video": str(path),
        "still": str(still),
        "frames": len(shots),
        "first_step": shots[0].moment.step,
        "observation": loaded.env.observation_kind,
        "method": method,
        "target": target,
        "seed": seed,
        "spearman_with_shuffled_weights": float(control.mean()) if len(control) else None,
        "control_frames": len(control),
    }


@dataclass(frozen=True)
class _Shot:
    """What is kept of a step."""

    moment: Moment
    """Without its screen, and without its observation where that is a picture."""
    screen: bytes
    shape: tuple[int, ...]
    maps: list[NDArray[np.float32]]
    tracks: list[float]
    now: float | None
    """The target's value, where it is a feature."""


class _Sample:
    """A few moments of many, about evenly spread, without knowing how many there will be."""

    def __init__(self) -> None:
        self.kept: list[Moment] = []
        self._every, self._seen = 1, 0

    def add(self, moment: Moment) -> None:
        if self._seen % self._every == 0:
            self.kept.append(moment)
        self._seen += 1
        if len(self.kept) >= 4 * CONTROL_FRAMES:
            self.kept, self._every = self.kept[::2], 2 * self._every

    def evenly(self, count: int) -> list[Moment]:
        return self.kept[:: max(1, len(self.kept) // count)][:count]


class _Frames(Sequence[NDArray[np.uint8]]):
    """The film's pictures, each drawn when it is asked for."""

    def __init__(self, loaded: Loaded, shots: Sequence[_Shot], panel: Panel, target: Target):
        self.shots, self.panel, self.target = shots, panel, target
        self.shown, _ = _bars(loaded, [each.moment.preferences for each in shots])

    def __len__(self) -> int:
        return len(self.shots)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleMethodOverride]
        shot = self.shots[number]
        moment, others = shot.moment, len(self.panel.beside)
        frame = Frame(
            np.frombuffer(zlib.decompress(shot.screen), np.uint8).reshape(shot.shape), shot.maps[0],
            self.shown[number], moment.action if isinstance(moment.action, int) else None, moment.episode_return,
            moment.step, _notes(shot, self.target), moment.observed,
            shot.maps[-1] if self.panel.critic_scale is not None else None, shot.maps[1 : 1 + others], number,
        )  # fmt: skip
        return compose(frame, self.panel)


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


def _interest(moments: Iterator[Moment], by: str) -> list[float]:
    """Of each moment how far its preferences lie apart, or have moved since the one before, less what all moved by."""
    found: list[float] = []
    before: NDArray[np.float32] | None = None
    for moment in moments:
        possible = moment.preferences[np.isfinite(moment.preferences)]
        if by == "change":
            moved = np.zeros(1) if before is None else np.nan_to_num(moment.preferences - before, posinf=0, neginf=0)
            found.append(float(np.abs(moved - moved.mean()).max()))
        else:
            found.append(float(np.ptp(possible)))
        before = moment.preferences
    return found


def _highlights(interest: Sequence[float], count: int) -> list[range]:
    """Clips around the moments of most interest, none inside another, in order of time."""
    clips: list[range] = []
    for middle in sorted(range(len(interest)), key=lambda i: -interest[i]):
        clip = range(max(0, middle - CLIP // 2), min(len(interest), middle + CLIP // 2))
        if all(clip.stop <= other.start or other.stop <= clip.start for other in clips):
            clips.append(clip)
        if len(clips) == count:
            break
    return sorted(clips, key=lambda clip: clip.start)


def _picked(moments: Iterator[Moment], clips: Sequence[range]) -> Iterator[Moment]:
    wanted = {number for clip in clips for number in clip}
    for number, moment in enumerate(islice(moments, max(wanted) + 1)):
        if number in wanted:
            yield moment


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


def _shot(
    loaded: Loaded, moment: Moment, mapping: Sequence[tuple[Target, str]], tracks: Sequence[Target], data: Tensor | None
) -> _Shot:
    obs = _batch_of_one(loaded, moment)
    maps = [saliency_map(loaded.agent, obs, target, method, moment.state, data)[0] for target, method in mapping]
    target = mapping[0][0]
    return _Shot(
        replace(moment, screen=_NOTHING, obs=_NOTHING if data is None else moment.obs, state=()),
        zlib.compress(moment.screen.tobytes(), 1), moment.screen.shape, maps,
        [_now(loaded, moment, each) for each in tracks],
        _now(loaded, moment, target) if isinstance(target, Feature) else None,
    )  # fmt: skip


def _panel(
    loaded: Loaded,
    shots: Sequence[_Shot],
    method: str,
    target: Target,
    beside: Sequence[str],
    critic: Target | None,
    tracks: Sequence[str],
) -> Panel:
    columns = [*zip(*(each.maps for each in shots), strict=True)]
    _, bars = _bars(loaded, [each.moment.preferences for each in shots])
    inputs = None
    if names := loaded.env.input_names:
        seen = np.stack([each.moment.obs for each in shots])
        inputs = Inputs(names, seen, np.stack(columns[0]), [each.moment.step for each in shots])
    further = [Beside(name, _scale(maps), is_signed(name, target)) for name, maps in zip(beside, columns[1:])]  # noqa: B905
    values = np.array([each.tracks for each in shots], np.float64)
    return Panel(
        loaded.env.action_names, "policy and value" if critic else target.name, method, _scale(columns[0]), bars,
        is_signed(method, target), inputs, _scale(columns[-1]) if critic else None, further,
        Tracks(tracks, values) if tracks else None,
    )  # fmt: skip


def _bars(loaded: Loaded, preferences: list[NDArray[np.float32]]) -> tuple[list[NDArray[np.float32]], Bars]:
    """What is shown of each action at each step, and what it stands for."""
    if loaded.env.action_kind == "continuous":
        return preferences, Bars.of_means(preferences, loaded.agent.preference_kind == "actions")
    if loaded.has_q_values:
        shown = [advantages(each) for each in preferences]
        return shown, Bars.of_advantages(shown)
    return [probabilities(each) for each in preferences], Bars.of_probabilities()


def _data(loaded: Loaded, env: LabelledEnv, seed: int) -> Tensor:
    """What a vector's entries are at other moments of the episode: `[N, D]`."""
    seen = [moment.obs for moment in islice(follow(loaded, env, seed), DATA_STEPS)]
    return torch.from_numpy(np.stack(seen)).to(loaded.agent.device)


def _notes(shot: _Shot, target: Target) -> list[str]:
    value = [] if shot.moment.value is None else [f"value of the state {shot.moment.value:.2f}"]
    return value if shot.now is None else [f"{target.name} at {shot.now:.2f}", *value]


def _batch_of_one(loaded: Loaded, moment: Moment) -> Tensor:
    return torch.from_numpy(moment.obs[None]).to(loaded.agent.device)
