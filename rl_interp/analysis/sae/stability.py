"""Whether fits that differ in their seed alone find the same features.

Directions are compared behind the whitening, since a few dimensions with outlier values make any two directions alike
in the raw activations. The controls are samples of either half of the episodes, as fits start from, and random
directions, which point where no data lie.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.sae.data import sample_rows


@dataclass(frozen=True)
class Agreement:
    """How well a fit's living features are found again by the other fits: means over those."""

    cosine: float
    """`matched_cosine`."""
    found_again: float
    """Share of them that are matched more closely than 95% of samples of one half of the episodes are by samples of the
    other: 0.05 where a fit is no more than samples are."""


def stability(fits: Sequence[LoadedSAE], behind: LoadedSAE | None = None) -> tuple[list[Agreement], dict[str, float]]:
    """How well each fit's features are found again by the others, and the `matched_cosine` of as many directions that
    nothing was fitted to: `samples` of either half of the episodes, which lie where the data vary, as fits start, and
    `random` ones, which point everywhere.

    Compared are the decoder's directions of living latents where they were fitted, behind the whitening: in the raw
    activations a few outlier dimensions make any two directions alike.

    Args:
        fits: two or more, of one store and split.
        behind: the fit behind whose whitening they are compared; by default the first, where all have the same ridge.
    """
    states = [fit.run.load_state() for fit in fits]
    chosen = states[0] if behind is None else behind.run.load_state()
    whitening = chosen["feed"]["whitenings"][-1]  # of all: another machine's may differ by its components' signs
    directions = [
        fit.sae.W_dec.detach().cpu()[_living(fit, state)] @ whitening["to"]
        for fit, state in zip(fits, states, strict=True)
    ]
    rng, first = np.random.default_rng(0), fits[0]
    episodes = first.store.column("episode", first.train_rows)
    half = np.isin(episodes, rng.permutation(np.unique(episodes))[::2])
    samples = []
    for those, side in zip(directions[:2], (half, ~half), strict=True):
        rows = sample_rows(first.train_rows[side], len(those), rng)
        samples.append((torch.from_numpy(first.target.read(rows)) - whitening["mean"]) @ whitening["to"])
    random = [torch.from_numpy(rng.normal(size=those.shape)) for those in directions[:2]]
    by_samples, by_random = _matched(*samples), _matched(*random)
    close = np.quantile(by_samples, 0.95) if len(by_samples) else np.inf

    cosines, found = np.full((2, len(fits), len(fits)), np.nan)
    for a, b in itertools.permutations(range(len(fits)), 2):
        matched = _matched(directions[a], directions[b])
        cosines[a, b] = _mean(matched)
        found[a, b] = (matched > close).sum() / max(1, len(directions[a]))
    agreements = zip(np.nanmean(cosines, 1).tolist(), np.nanmean(found, 1).tolist(), strict=True)
    return [Agreement(*each) for each in agreements], {"samples": _mean(by_samples), "random": _mean(by_random)}


def matched_cosine(first: Tensor, second: Tensor) -> float:
    """The mean cosine of directions `first [F, D]` and `second [G, D]`, each paired with at most one of the other's so
    that the sum is largest (Kuhn 1955); 0 without any."""
    return _mean(_matched(first, second))


def _matched(first: Tensor, second: Tensor) -> NDArray[np.floating]:
    """`[min(F, G)]`: the cosines of those pairs."""
    from scipy.optimize import linear_sum_assignment

    cosines = (normalize(first, dim=1) @ normalize(second, dim=1).T).numpy()
    return cosines[linear_sum_assignment(cosines, maximize=True)]


def _mean(cosines: NDArray[np.floating]) -> float:
    return float(cosines.mean()) if len(cosines) else 0.0


def _living(fit: LoadedSAE, state: dict[str, Any]) -> Tensor:
    """`[F]`: the latents that fired in the fit's last pass over the data."""
    return state["silent"] < min(len(fit.train_rows), state["samples"])
