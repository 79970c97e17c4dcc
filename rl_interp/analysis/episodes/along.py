"""What a layer held along a recorded episode."""

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from rl_interp.analysis.episodes.recording import Recording, interventions
from rl_interp.analysis.episodes.values import AT_ONCE, values
from rl_interp.analysis.sae.runs import LoadedSAE


def values_along(recording: Recording, at: str, sae: LoadedSAE | None = None) -> Iterator[NDArray[np.float32]]:
    """What a hook point held in the T + 1 moments, some at a time, `[N, P, D]`: under the changes by which the agent
    decided in each.

    Args:
        sae: with the features that are changed.

    Raises:
        HookError: no such point.
    """
    made, deciders = interventions(recording.loaded, recording.recipe, sae), recording.deciders()

    def together(step: int) -> tuple[object, ...]:
        return deciders[step].changes, deciders[step].control, step // AT_ONCE

    for _, group in groupby(range(recording.steps + 1), together):
        steps = list(group)
        moments = [recording.moment(step) for step in steps]
        yield values(recording.loaded, moments, at, made(deciders[steps[0]]))
