"""Which features of two dictionaries fire alike, on the same samples: those of two fits, or of two agents that see the
same observations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from rl_interp.core.errors import UserError
from rl_interp.sae.evaluation.features import Features


@dataclass(frozen=True)
class Matching:
    """A dictionary's F features matched with the G of another."""

    correlation: NDArray[np.float64]
    """`[F, G]`: Pearson's, of activations over the samples; 0 with a feature that never fires."""
    by_chance: NDArray[np.float64]
    """The same with the other's samples moved on by half of all: every feature as it is, where it is, at other
    moments."""
    pairs: list[tuple[int, int]]
    """Each feature with at most one of the other's, so that the sum of the correlations is largest (Kuhn 1955); those
    of positive correlation, the largest first."""

    def best(self, side: int) -> NDArray[np.float64]:
        """The largest correlation of each living feature of a side, 0 or 1, with any of the other side."""
        return self._largest(self.correlation, side)

    def best_by_chance(self, side: int) -> NDArray[np.float64]:
        return self._largest(self.by_chance, side)

    def _largest(self, correlation: NDArray[np.float64], side: int) -> NDArray[np.float64]:
        living = (self.correlation != 0).any(1 - side)
        return correlation.max(1 - side)[living]


def match(first: Features, second: Features, positions: int = 1) -> Matching:
    """Match features by their activations on the same samples.

    Args:
        positions: of a layer, whose samples follow one another; chance leaves them in place, as features that tell no
            more than the position would otherwise seem to have more in common than chance.

    Raises:
        UserError: the two have not the same number of samples, or not all positions of every moment.
    """
    from scipy.optimize import linear_sum_assignment

    if first.samples != second.samples:
        raise UserError(f"{first.samples} and {second.samples} samples given; features are matched on the same ones.")
    moments, left = divmod(first.samples, positions)
    if left:
        raise UserError(f"{first.samples} samples given of {positions} positions each; give all positions of a moment.")
    correlation = _correlation(first, second, 0)
    pairs = [(int(f), int(g)) for f, g in zip(*linear_sum_assignment(-correlation), strict=True)]
    pairs = sorted((pair for pair in pairs if correlation[pair] > 0), key=lambda pair: -correlation[pair])
    return Matching(correlation, _correlation(first, second, moments // 2 * positions), pairs)


def _correlation(first: Features, second: Features, shift: int) -> NDArray[np.float64]:
    a, b = first.matrix(), second.matrix()
    b = csr_array((b.data, (b.indices + shift) % second.samples, b.indptr), shape=b.shape)
    means = [np.asarray(x.mean(1)).ravel() for x in (a, b)]
    deviations = [
        np.sqrt(np.maximum(np.asarray(x.multiply(x).mean(1)).ravel() - mean**2, 0))
        for x, mean in zip((a, b), means, strict=True)
    ]
    covariance = (a @ b.T).toarray() / first.samples - np.outer(*means)
    scale = np.outer(*deviations)
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
