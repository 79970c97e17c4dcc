"""Saliency in a recorded episode: along it, and beside what else is seen in it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.analysis.episodes.recording import Recording
from rl_interp.analysis.saliency_video import DATA_STEPS
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.saliency import Target, saliency_map

STEPS = 40
"""Steps that a map is made of, at most: evenly spread."""
_AROUND = 0.06
"""Half the side of the square that a place is, as a share of the observation's sides."""


def saliency_along(
    recording: Recording, method: str, target: Target, place: tuple[float, float], progress: Progress = SILENT
) -> NDArray[np.float32]:
    """`[T + 1]`: a saliency map's mean over a small square around a place, at up to `STEPS` of the steps; NaN at the
    others.

    Args:
        place: row and column, as shares of the observation's height and width.

    Raises:
        UserError: observations without places, or a method or target that there isn't.
    """
    env = recording.loaded.env
    if env.observation_kind == "vector":
        raise UserError(f"{env.id} is observed as a vector, which has no places; follow a unit or a feature.")
    rows, columns = (
        np.abs((np.arange(size) + 0.5) / size - at) <= max(_AROUND, 0.5 / size)
        for size, at in zip(env.observation_shape[-2:], place, strict=True)
    )
    found = np.full(recording.steps + 1, np.nan, np.float32)
    chosen = np.unique(np.linspace(0, recording.steps, min(STEPS, recording.steps + 1)).round().astype(int))
    with progress.bar("Mapping", len(chosen), "steps") as update:
        for done, step in enumerate(chosen.tolist()):
            moment = recording.moment(step)
            obs = torch.from_numpy(moment.obs[None]).to(recording.loaded.agent.device)
            [made] = saliency_map(recording.loaded.agent, obs, target, method, moment.state)
            found[step] = made[np.ix_(rows, columns)].mean()
            update(done + 1)
    return found


def vectors_seen(recording: Recording) -> Tensor | None:
    """`[N, D]`: what a vector's entries are in the episode, which `saliency_map` takes as `data`; None of other
    observations."""
    if recording.loaded.env.observation_kind != "vector":
        return None
    steps = range(min(recording.steps + 1, DATA_STEPS))
    return torch.from_numpy(np.stack([recording.moment(step).obs for step in steps])).to(recording.loaded.agent.device)
