"""Whether fits that differ in their seed alone find the same features.

Directions are compared behind the whitening, since a few dimensions with outlier values make any two directions alike
in the raw activations. The controls are samples of either half of the episodes, as fits start from, and random
directions, which point where no data lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.sae.data import sample_rows
from rl_interp.sae.evaluation.metrics import largest_cosines

_SAME = 1 - 1e-5
"""Cosine from which on two samples are one state."""
_FEWEST = 20
"""Samples that a share of 95% can be told of."""


@dataclass(frozen=True)
class Agreement:
    """How well a fit's living features are found again by the other fits: means over those."""

    cosine: float
    """`matched_cosine`."""
    found_again: float | None
    """Share of them that have another fit's feature nearer than 95% of as many samples have a sample of the other half
    of the episodes: about 0.05 where features are no more than samples are. None where there are too few samples, or
    nothing lives."""


def stability(fits: Sequence[LoadedSAE], behind: LoadedSAE | None = None) -> tuple[list[Agreement], dict[str, float]]:
    """How well each fit's features are found again by the others, and the `matched_cosine` of as many directions that
    nothing was fitted to: `samples` of either half of the episodes, which lie where the data vary, as fits start, and
    `random` ones, which point everywhere.

    Compared are the decoder's directions of living latents where they were fitted, behind the whitening: in the raw
    activations a few outlier dimensions make any two directions alike.

    Args:
        fits: two or more, of one store and split.
        behind: the fit behind whose whitening they are compared, without what of them lies along the data's mean, which
            uncentred fits share; by default the first, where all have the same ridge and are centred alike.
    """
    states = [fit.run.load_state() for fit in fits]
    chosen = states[0] if behind is None else behind.run.load_state()
    whitening = chosen["feed"]["whitenings"][-1]  # of all: another machine's may differ by its components' signs
    directions = [
        fit.sae.W_dec.detach().cpu()[_living(fit, state)] @ whitening["to"]
        for fit, state in zip(fits, states, strict=True)
    ]
    if behind is not None:
        mean = normalize((whitening["mean"] @ whitening["to"]).float(), dim=0)
        directions = [those - (those @ mean)[:, None] * mean for those in directions]
    rng, first = np.random.default_rng(0), fits[0]
    episodes = first.store.column("episode", first.train_rows)
    half = np.isin(episodes, rng.permutation(np.unique(episodes))[::2])

    def samples(*counts: int) -> list[Tensor]:
        """As many of either half of the episodes."""
        rows = [sample_rows(first.train_rows[of], n, rng) for of, n in zip((half, ~half), counts, strict=True)]
        return [(torch.from_numpy(first.target.read(each)) - whitening["mean"]) @ whitening["to"] for each in rows]

    random = [torch.from_numpy(rng.normal(size=those.shape)) for those in directions[:2]]
    controls = {"samples": matched_cosine(*samples(*map(len, directions[:2]))), "random": matched_cosine(*random)}
    cosines = {(a, b): matched_cosine(directions[a], directions[b]) for a, b in combinations(range(len(fits)), 2)}
    agreements = []
    for a in range(len(fits)):
        others = [b for b in range(len(fits)) if b != a]
        against = [(directions[b], *samples(len(directions[a]), len(directions[b]))) for b in others]
        found = [_found_again(directions[a], *each) for each in against]
        known = [share for share in found if share is not None]
        cosine = np.mean([cosines[min(a, b), max(a, b)] for b in others])
        agreements.append(Agreement(float(cosine), float(np.mean(known)) if known else None))
    return agreements, controls


def _found_again(features: Tensor, others: Tensor, samples: Tensor, other_samples: Tensor) -> float | None:
    if not len(features) or not len(others) or not len(other_samples):
        return None
    by_chance = largest_cosines(samples, other_samples)
    by_chance = by_chance[by_chance < _SAME]  # a state that comes again is no chance
    if len(by_chance) < _FEWEST:
        return None
    return float((largest_cosines(features, others) > by_chance.double().quantile(0.95)).double().mean())


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
