"""A recorded episode as a film, with what a unit or a feature holds laid over each frame."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.analysis.episodes.along import values_along
from rl_interp.analysis.episodes.recording import Recording
from rl_interp.analysis.episodes.values import features
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.receptive_fields import receptive_fields
from rl_interp.core.video import write_video
from rl_interp.saliency.overlay import enlarge, overlay

_HEIGHT = 420
"""Pixels of a frame, at least."""


def film(
    recording: Recording, path: Path | str, of: str = "", sae: LoadedSAE | None = None, progress: Progress = SILENT
) -> Path:
    """Write an episode to an .mp4, at the game's pace.

    Args:
        of: what is laid over the frames: `unit:HOOK:N`, of a hook point whose positions look at places, or `feature:N`
            of the dictionary `sae` on one; by default nothing.

    Raises:
        UserError: other words, no such unit or feature, or a hook point without places.
    """
    maps = _maps(recording, of, sae) if of else None
    return write_video(path, _frames(recording, maps, progress), recording.loaded.env.steps_per_second)


def _frames(recording: Recording, maps: NDArray[np.float32] | None, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    scale = 1.0 if maps is None else float(np.abs(maps).max()) or 1.0
    with progress.bar("Drawing", recording.steps + 1, "frames") as update:
        for step in range(recording.steps + 1):
            moment = recording.moment(step)
            height, width = moment.screen.shape[:2]
            times = -(-_HEIGHT // height)
            times += times % 2 and (height % 2 or width % 2)  # H.264 takes even sides alone
            size = height * times, width * times
            if maps is None:
                yield enlarge(moment.screen, size)
            else:
                yield overlay(moment.screen, maps[step], scale, size, moment.observed)
            update(step + 1)


def _maps(recording: Recording, of: str, sae: LoadedSAE | None) -> NDArray[np.float32]:
    """`[T + 1, h, w]`: in pixels of the observation, the value at the position that is nearest to each."""
    kind, _, rest = of.partition(":")
    at, _, number = (sae.hook if sae is not None else "", "", rest) if kind == "feature" else rest.rpartition(":")
    if kind not in ("unit", "feature") or not number.isdecimal() or (kind == "feature" and sae is None):
        raise UserError(f"{of!r} given to be laid over a film; it is unit:HOOK:N, or feature:N with a dictionary.")
    loaded, shape = recording.loaded, recording.loaded.env.observation_shape
    place = receptive_fields(loaded.agent, at, torch.from_numpy(recording.moment(0).obs[None]))
    parts = []
    for held in values_along(recording, at, sae):
        held = held if kind == "unit" or sae is None else features(sae, held)
        if int(number) >= held.shape[-1]:
            raise UserError(f"{of!r} given to be laid over a film; there are 0 to {held.shape[-1] - 1}.")
        parts.append(held[..., int(number)])
    grid = np.concatenate(parts).reshape(-1, *place.shape)
    rows, columns = (
        np.abs(np.arange(size)[:, None] - centres).argmin(1)
        for size, centres in zip(shape[-2:], place.pixels(), strict=True)
    )
    return grid[:, rows][:, :, columns]
