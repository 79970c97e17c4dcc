"""Clusters of a layer's positions over recorded moments, and where the positions lie on its two main axes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes.values import values
from rl_interp.analysis.feature_maps.clusters import Clusters, cluster
from rl_interp.analysis.player import Moment

MOMENTS = 200
"""That clusters are found in, at most: evenly spread."""


@dataclass(frozen=True)
class Clustered:
    """A layer's clusters, and a plane to draw its positions on: their first two principal components (PCA)."""

    clusters: Clusters
    axes: NDArray[np.float32]
    """`[2, D]`, in scaled features."""
    share: float
    """Of the variance, that the two have."""

    def assign(self, held: NDArray[np.float32]) -> NDArray[np.int64]:
        """`[P]`: the cluster of each position `[P, D]`."""
        return self.clusters.assign(held)

    def place(self, held: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[P, 2]`: where positions `[P, D]` lie on the plane."""
        return ((held - self.clusters.mean) * self.clusters.scale @ self.axes.T).astype(np.float32)


def clustered(loaded: Loaded, moments: Sequence[Moment], at: str, count: int = 8, seed: int = 0) -> Clustered:
    """Find `count` clusters among the positions of a hook point in some moments.

    Raises:
        HookError: no such point.
        UserError: more clusters than positions.
    """
    some = moments[:: max(1, -(-len(moments) // MOMENTS))]
    held = values(loaded, some, at)
    flat = held.reshape(-1, held.shape[-1])
    found = cluster(flat, count, seed=seed)
    scaled = (flat - found.mean) * found.scale  # of mean 0
    variance, directions = np.linalg.eigh(np.cov(scaled.T).reshape(flat.shape[1], flat.shape[1]))
    axes = np.zeros((2, flat.shape[1]), np.float32)
    largest = directions[:, ::-1][:, :2].T
    axes[: len(largest)] = largest
    return Clustered(found, axes, float(variance[::-1][:2].sum() / max(variance.sum(), 1e-12)))
