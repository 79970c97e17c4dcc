"""What a layer's activations are like as a whole, without asking what they are about: how many directions they use, how
many units do nothing, and how alike those of two networks are."""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError

DORMANT = 0.025
"""Share of the layer's mean activity up to which a unit counts as dormant (Sokar et al. 2023 have 0 to 0.1)."""


def effective_rank(values: NDArray[np.floating]) -> float:
    """Number of directions in which activations `[N, D]` vary, counted by variance: (Σλ)² / Σλ² of the covariance's
    eigenvalues λ (its participation ratio). 0 if they are all the same.

    Near 1, most of the variance lies in one direction; others may still be read: with one direction ten times as far as
    each of 20 more it is 1.4, with forty times, 1.03."""
    centred = _centred(values)
    squares = _overlap(centred, centred)  # of the eigenvalues; their sum is the trace, that of all squares
    return float(np.vdot(centred, centred)) ** 2 / squares if squares else 0.0


def dormant(values: NDArray[np.floating], threshold: float = DORMANT) -> float:
    """Share of units whose mean absolute activation over `[N, D]` is at most `threshold` of the layer's mean (Sokar et
    al. 2023, arXiv 2302.12902, eq. 1). A unit of a convolution is a channel, as in their code: with `[N, P, D]` the
    mean is over its positions too."""
    activity = np.abs(values).mean(tuple(range(values.ndim - 1)), dtype=np.float64)
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
    first, second = _centred(first), _centred(second)
    own = _overlap(first, first) * _overlap(second, second)
    return _overlap(first, second) / own**0.5 if own > 0 else 0.0


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """|XᵀY|² of X `[N, D]` and Y `[N, E]`, which is the sum of XXᵀ · YYᵀ: by whichever products are fewer, as a
    convolution's layer has tens of thousands of columns."""
    if first.shape[1] * second.shape[1] <= len(first) ** 2:
        products = first.T @ second
        return float(np.vdot(products, products))
    return float(np.vdot(first @ first.T, second @ second.T))


def _centred(values: NDArray[np.floating]) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    return values - values.mean(0)
