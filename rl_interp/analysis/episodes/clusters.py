"""Clusters of layers' positions over recorded moments, and a plane to draw the positions on.

Clusters of several layers are numbered alike: a layer's cluster i lies at the places where cluster i of the first layer
does, as well as one can be found for each; `Clustered.alike` says how well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes.values import values
from rl_interp.analysis.feature_maps.clusters import Clusters, cluster
from rl_interp.analysis.player import Moment
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.receptive_fields import receptive_fields
from rl_interp.core.threads import share_threads

MOMENTS = 200
"""That clusters are found in, at most: evenly spread."""
PlaneName = Literal["pca", "umap"]
PLANES: tuple[PlaneName, ...] = get_args(PlaneName)


class Plane(Protocol):
    """Where positions are drawn."""

    def place(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[P, 2]` of positions `[P, D]` in scaled features."""
        ...


@dataclass(frozen=True)
class Clustered:
    """A layer's clusters, and a plane to draw its positions on."""

    at: str
    """The layer's hook point."""
    clusters: Clusters
    plane: Plane
    alike: NDArray[np.float64]
    """`[K]`: of the places that a cluster or that of the same number in the first layer has, the share that both have;
    of the first layer 1."""

    def assign(self, held: NDArray[np.float32]) -> NDArray[np.int64]:
        """`[P]`: the cluster of each position `[P, D]`."""
        return self.clusters.assign(held)

    def place(self, held: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[P, 2]`: where positions `[P, D]` lie on the plane."""
        return self.plane.place((held - self.clusters.mean) * self.clusters.scale)


@dataclass(frozen=True)
class PrincipalAxes:
    """The first two principal components (PCA)."""

    axes: NDArray[np.float32]
    """`[2, D]`."""
    share: float
    """Of the variance, that the two have."""

    def place(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        return (scaled @ self.axes.T).astype(np.float32)


@dataclass(frozen=True)
class Neighbours:
    """A plane that only some positions were laid out on, as by UMAP: others lie among those that they are most like.

    UMAP's own `transform` lays one position out otherwise in other company.
    """

    known: NDArray[np.float32]
    """`[N, D]`, in scaled features."""
    places: NDArray[np.float32]
    """`[N, 2]`."""

    def place(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean place of the nearest known ones, each counting by the inverse of its distance."""
        from sklearn.neighbors import NearestNeighbors

        count = min(_NEAREST, len(self.known))
        distances, nearest = NearestNeighbors(n_neighbors=count).fit(self.known).kneighbors(scaled)
        counts = 1 / np.maximum(distances, 1e-6)
        return np.einsum("pk,pkc->pc", counts / counts.sum(1, keepdims=True), self.places[nearest]).astype(np.float32)


def clustered(
    loaded: Loaded, moments: Sequence[Moment], at: str, count: int = 8, seed: int = 0, plane: PlaneName = "pca"
) -> Clustered:
    """Find `count` clusters among the positions of a hook point in some moments.

    Raises:
        HookError: no such point.
        UserError: more clusters than positions, an unknown plane, or UMAP (McInnes et al. 2018, arXiv 1802.03426)
            without the package.
    """
    if plane not in PLANES:
        raise UserError(unknown("plane", plane, PLANES))
    held = values(loaded, _some(moments), at)
    flat = held.reshape(-1, held.shape[-1])
    found = cluster(flat, count, seed=seed)
    scaled = (flat - found.mean) * found.scale  # of mean 0
    made = _principal_axes(scaled) if plane == "pca" else _umap(scaled, seed)
    return Clustered(at, found, made, np.ones(count))


def clustered_alike(first: Clustered, loaded: Loaded, moments: Sequence[Moment], at: str, seed: int = 0) -> Clustered:
    """As many clusters of another layer, each with the number of that one of the first layer whose places it has.

    Raises:
        HookError: a layer that is not there, or without positions.
        UserError: a layer whose positions can't be placed on the observation.
    """
    from scipy.optimize import linear_sum_assignment

    some, count = _some(moments), len(first.clusters.centres)
    made = clustered(loaded, some, at, count, seed)
    ours, theirs = (values(loaded, some, point) for point in (at, first.at))
    assigned = made.assign(ours.reshape(-1, ours.shape[-1]))
    there = first.assign(theirs.reshape(-1, theirs.shape[-1])).reshape(theirs.shape[:2])
    there = there[:, _nearest(loaded, some[0], at, first.at)].reshape(-1)
    both = np.zeros((count, count))
    np.add.at(both, (there, assigned), 1)
    either = both.sum(1, keepdims=True) + both.sum(0) - both
    alike = both / np.maximum(either, 1)
    _, order = linear_sum_assignment(-alike)
    clusters = replace(made.clusters, centres=made.clusters.centres[order])
    return replace(made, clusters=clusters, alike=alike[np.arange(count), order])


_NEAREST = 5
_LAID_OUT = 1500
"""Positions that UMAP lays out: more take it minutes."""


def _some(moments: Sequence[Moment]) -> Sequence[Moment]:
    return moments[:: max(1, -(-len(moments) // MOMENTS))]


def _principal_axes(scaled: NDArray[np.float32]) -> PrincipalAxes:
    variance, directions = np.linalg.eigh(np.cov(scaled.T).reshape(scaled.shape[1], scaled.shape[1]))
    axes = np.zeros((2, scaled.shape[1]), np.float32)
    largest = directions[:, ::-1][:, :2].T
    axes[: len(largest)] = largest
    return PrincipalAxes(axes, float(variance[::-1][:2].sum() / max(variance.sum(), 1e-12)))


def _umap(scaled: NDArray[np.float32], seed: int) -> Neighbours:
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "plane 'umap' asked for, and umap-learn is not installed; pip install 'rl-interp[umap]', or use 'pca'."
        ) from None
    some = scaled[np.random.default_rng(seed).permutation(len(scaled))[:_LAID_OUT]]
    if len(some) < 4:
        raise UserError(f"plane 'umap' asked for {len(some)} positions; it lays out at least 4: use 'pca'.")
    share_threads()
    laid_out = UMAP(n_neighbors=min(15, len(some) - 1), init="pca", random_state=seed, n_jobs=1)
    return Neighbours(some, laid_out.fit_transform(some))


def _nearest(loaded: Loaded, moment: Moment, at: str, other: str) -> NDArray[np.int64]:
    """`[P]`: for each position of a layer that of the other whose middle is nearest on the observation."""
    obs = torch.from_numpy(moment.obs[None])
    ours, theirs = (receptive_fields(loaded.agent, point, obs) for point in (at, other))
    rows, columns = (
        abs(mine[:, None] - its).argmin(1) for mine, its in zip(ours.pixels(), theirs.pixels(), strict=True)
    )
    return (rows[:, None] * theirs.shape[1] + columns).reshape(-1)
