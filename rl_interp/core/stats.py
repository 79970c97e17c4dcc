"""Scores with their uncertainty: interquartile mean and stratified bootstrap intervals.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
arXiv 2108.13264.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rl_interp.core.errors import UserError

Statistic = Callable[[NDArray[np.float64]], float]


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half of all scores, whatever their shape."""
    return float(stats.trim_mean(np.asarray(scores, np.float64).ravel(), 0.25))


def mean(scores: ArrayLike) -> float:
    """The plain mean of all scores."""
    return float(np.asarray(scores, np.float64).mean())


@dataclass(frozen=True)
class Interval:
    """A percentile-bootstrap confidence interval."""

    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}]"


def bootstrap(
    strata: Sequence[ArrayLike],
    statistic: Callable[..., float] = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Stratified percentile bootstrap: resample within each stratum (a task, a condition), never across.

    Args:
        strata: samples, one 1-D array a stratum.
        statistic: takes the strata as arguments if there are several, else the one array.

    Raises:
        UserError: an empty stratum or a value that is not finite.
    """
    arrays = [np.asarray(stratum, np.float64).ravel() for stratum in strata]
    if not arrays or any(len(a) == 0 or not np.isfinite(a).all() for a in arrays):
        raise UserError("a bootstrap needs at least one finite score in every stratum; look for failed episodes.")
    rng = np.random.default_rng(seed)
    draws = [
        statistic(*(array[rng.integers(len(array), size=len(array))] for array in arrays)) for _ in range(resamples)
    ]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(low), float(high), confidence)
