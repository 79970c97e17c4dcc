"""Whether fits that differ in their seed alone find the same features.

Directions are compared behind the whitening, since a few dimensions with outlier values make any two directions alike
in the raw activations. The controls are samples of either half of the episodes, as fits start from, and random
directions, which point where no data lie.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.sae.data import sample_rows


def stability(fits: Sequence[LoadedSAE]) -> tuple[list[float], dict[str, float]]:
    """How well each fit's features are found again by the others: the mean, over them, of `matched_cosine`. And what
    that is of as many directions that nothing was fitted to: `samples` of either half of the episodes, which lie where
    the data vary, as fits start, and `random` ones, which point everywhere.

    Compared are the decoder's directions of living latents where they were fitted, behind the whitening: in the raw
    activations a few outlier dimensions make any two directions alike.

    Args:
        fits: two or more, of one store, split and ridge.
    """
    states = [fit.run.load_state() for fit in fits]
    whitening = states[0]["feed"]["whitenings"][-1]  # of all: another machine's may differ by its components' signs
    directions = [
        fit.sae.W_dec.detach().cpu()[_living(fit, state)] @ whitening["to"]
        for fit, state in zip(fits, states, strict=True)
    ]
    agreement = np.full((len(fits), len(fits)), np.nan)
    for a in range(len(fits)):
        for b in range(a):
            agreement[a, b] = agreement[b, a] = matched_cosine(directions[a], directions[b])
    rng, first = np.random.default_rng(0), fits[0]
    episodes = first.store.column("episode", first.train_rows)
    half = np.isin(episodes, rng.permutation(np.unique(episodes))[::2])
    samples = []
    for those, side in zip(directions[:2], (half, ~half), strict=True):
        rows = sample_rows(first.train_rows[side], len(those), rng)
        samples.append((torch.from_numpy(first.target.read(rows)) - whitening["mean"]) @ whitening["to"])
    random = [torch.from_numpy(rng.normal(size=those.shape)) for those in directions[:2]]
    return np.nanmean(agreement, 0).tolist(), {
        "samples": matched_cosine(samples[0], samples[1]), "random": matched_cosine(random[0], random[1])
    }  # fmt: skip


def matched_cosine(first: Tensor, second: Tensor) -> float:
    """The mean cosine of directions `first [F, D]` and `second [G, D]`, each paired with at most one of the other's so
    that the sum is largest (Kuhn 1955); 0 without any."""
    from scipy.optimize import linear_sum_assignment

    if not len(first) or not len(second):
        return 0.0
    cosines = (normalize(first, dim=1) @ normalize(second, dim=1).T).numpy()
    return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())


def _living(fit: LoadedSAE, state: dict[str, Any]) -> Tensor:
    """`[F]`: the latents that fired in the fit's last pass over the data."""
    return state["silent"] < min(len(fit.train_rows), state["samples"])
