"""What a layer's activations are like as a whole, without asking what they are about: how many directions they use, how
many units do nothing, and how alike those of two networks are."""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError

DORMANT = 0.025
"""Share of the layer's mean activity up to which a unit counts as dormant (Sokar et al. 2023 have 0 to 0.1)."""


def effective_rank(values: NDArray[np.floating]) -> float:
    """Number of directions in which activations `[N, D]` vary, counted by variance: (Σλ)² / Σλ² of the covariance's
    eigenvalues λ (its participation ratio). 0 if they are all the same."""
    covariance = _products(values, values)
    squares = float(np.square(covariance).sum())  # the sum of the squared eigenvalues, and the trace that of themselves
    return float(np.trace(covariance)) ** 2 / squares if squares else 0.0


def dormant(values: NDArray[np.floating], threshold: float = DORMANT) -> float:
    """Share of units whose mean absolute activation over `[N, D]` is at most `threshold` of the layer's mean (Sokar et
    al. 2023, arXiv 2302.12902, eq. 1)."""
    activity = np.abs(values).mean(0, dtype=np.float64)
    return float((activity <= threshold * activity.mean()).mean())


def cka(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """How alike activations `[N, D]` and `[N, E]` of the same N states are, from 0 to 1: linear centred kernel
    alignment (Kornblith et al. 2019, arXiv 1905.00414, eq. 4). It does not change under rotations of either, or a
    common factor; 0 where one is all the same.

    Raises:
        UserError: other numbers of states.
    """
    if len(first) != len(second):
        raise UserError(f"{len(first)} and {len(second)} states given; give activations of the same ones.")
    own = [np.linalg.norm(_products(each, each)) for each in (first, second)]
    return float(np.linalg.norm(_products(first, second)) ** 2 / (own[0] * own[1])) if min(own) > 0 else 0.0


def _products(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """`[D, E]`: products of columns about their means."""
    return _centred(first).T @ _centred(second)


def _centred(values: NDArray[np.floating]) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    return values - values.mean(0)
