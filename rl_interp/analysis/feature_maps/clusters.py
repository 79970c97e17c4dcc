"""Feature maps: what the positions of a layer are about.

The vectors at all positions, over many states, are clustered, and a cluster is named by the ground truth that it
overlaps with most ("Mechanistic Interpretability of Reinforcement Learning Agents", arXiv 2411.00867). How much of a
ground truth the clusters contain, beyond chance, is their adjusted mutual information (Vinh et al. 2010): 0 at chance,
1 for all of it. It says little without controls: a random network, and the raw pixels around each position.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError

Truth = Mapping[str, tuple[NDArray[np.integer], tuple[str, ...]]]
"""Ways to sort positions into classes: name to class numbers `[N]`, -1 where it does not apply, and their names."""

_SAMPLE, _SAMPLE_AGGLOMERATIVE = 100_000, 5_000
_SCORED = 100_000
_ASSIGNED_AT_ONCE = 100_000


@dataclass(frozen=True)
class Clusters:
    """K centres among positions of D features, each scaled by its standard deviation."""

    centres: NDArray[np.float32]
    """`[K, D]`, in scaled features."""
    mean: NDArray[np.float32]
    """`[D]`."""
    scale: NDArray[np.float32]
    """`[D]`."""

    def assign(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """`[N]`: the nearest centre of each position `[N, D]`."""
        out = np.empty(len(values), np.int64)
        half = (self.centres**2).sum(1) / 2
        for start in range(0, len(values), _ASSIGNED_AT_ONCE):
            part = slice(start, start + _ASSIGNED_AT_ONCE)
            scaled = (values[part].astype(np.float32) - self.mean) * self.scale
            out[part] = (half - scaled @ self.centres.T).argmin(1)  # nearest, since |x|² is the same for all centres
        return out


@dataclass(frozen=True)
class Name:
    """The class that a cluster overlaps with most, by F1."""

    truth: str
    label: str
    precision: float
    """Share of the cluster's positions that are of the class."""
    recall: float
    """Share of the class's positions that are in the cluster."""

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def cluster(
    values: NDArray[Any], count: int, method: Literal["kmeans", "agglomerative"] = "kmeans", seed: int = 0
) -> Clusters:
    """Find `count` clusters among positions `[N, D]`: on a random sample of them; `Clusters.assign` sorts the rest.

    Raises:
        UserError: more clusters than positions, or values that are not finite.
    """
    if not 1 <= count <= len(values):
        raise UserError(f"{count} clusters asked of {len(values)} positions; give at least 1, and at most as many.")
    rng = np.random.default_rng(seed)
    most = _SAMPLE if method == "kmeans" else _SAMPLE_AGGLOMERATIVE
    chosen = values if len(values) <= most else values[np.sort(rng.choice(len(values), most, replace=False))]
    sample = chosen.astype(np.float32)
    if not np.isfinite(sample).all():
        raise UserError("some positions are NaN or infinite, so they have no clusters; look for them in the agent.")
    mean, spread = sample.mean(0), sample.std(0)
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)  # dead channels tell nothing
    sample = (sample - mean) * scale
    return Clusters(_centres(sample, count, method, seed), mean, scale)


def _centres(sample: NDArray[np.float32], count: int, method: str, seed: int) -> NDArray[np.float32]:
    from sklearn.cluster import AgglomerativeClustering, KMeans

    if method == "kmeans":
        return KMeans(count, random_state=seed).fit(sample).cluster_centers_.astype(np.float32)
    labels = AgglomerativeClustering(count).fit_predict(sample)
    return np.stack([sample[labels == i].mean(0) for i in range(count)])


def information(assigned: NDArray[np.integer], truth: Truth, seed: int = 0) -> dict[str, float]:
    """Adjusted mutual information of clusters `[N]` with each truth, over the positions to which it applies; truths
    with a single class are left out."""
    from sklearn.metrics import adjusted_mutual_info_score

    rng, found = np.random.default_rng(seed), {}
    for name, (classes, _) in truth.items():
        rows = np.flatnonzero(classes >= 0)
        if len(rows) > _SCORED:
            rows = rng.choice(rows, _SCORED, replace=False)
        if len(rows) and np.ptp(classes[rows]) > 0:
            found[name] = float(adjusted_mutual_info_score(classes[rows], assigned[rows]))
    return found


NO_CELL = "no cell"
"""Name of positions to which no truth applies, such as those about a game's status line."""


def names(assigned: NDArray[np.integer], truth: Truth, count: int) -> list[Name]:
    """The best name of each of `count` clusters; `NO_CELL` is one of the names."""
    best = [Name("", "nothing", 0.0, 0.0)] * count
    size = np.bincount(assigned, minlength=count)
    # Where no truth applies is a class of its own.
    unknown = np.all([classes < 0 for classes, _ in truth.values()], axis=0)
    every = {"": (np.where(unknown, 0, -1), (NO_CELL,)), **truth}
    for truth_name, (classes, labels) in every.items():
        # How many positions each cluster shares with each class; the best of all truths' classes gives the name.
        there = classes >= 0
        shared = np.zeros((count, len(labels)))
        np.add.at(shared, (assigned[there], classes[there]), 1)
        of_class = np.maximum(shared.sum(0), 1)
        for i in range(count):
            for j, label in enumerate(labels):
                name = Name(truth_name, label, shared[i, j] / max(size[i], 1), shared[i, j] / of_class[j])
                best[i] = max(best[i], name, key=lambda each: each.f1)
    return best


def patches(
    obs: NDArray[np.uint8], rows: NDArray[np.floating], columns: NDArray[np.floating], side: int
) -> NDArray[np.uint8]:
    """`[N, H, W, C · side²]`: the pixels of observations `[N, C, h, w]` around the pixels (rows `[H]`, columns `[W]`),
    for a control; beyond the border, the border's."""
    half = side // 2
    padded = np.pad(obs, ((0, 0), (0, 0), (half, side), (half, side)), mode="edge")
    y = np.clip(np.round(rows), 0, obs.shape[2] - 1).astype(int)[:, None] + np.arange(side)
    x = np.clip(np.round(columns), 0, obs.shape[3] - 1).astype(int)[:, None] + np.arange(side)
    found = padded[:, :, y[:, None, :, None], x[None, :, None, :]]  # N C H W side side
    n, c, h, w = found.shape[:4]
    return found.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * side * side)
