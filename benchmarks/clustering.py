"""Clustering a layer's positions: a million of 32 channels into 12 clusters, positions per second; beside
scikit-learn's KMeans on all of them.

Ours finds the centres on a sample and assigns the rest. The limit is the assignment's product alone.
"""

import resource
import time

import numpy as np
from sklearn.cluster import KMeans

from benchmarks.measure import Result, main
from rl_interp.analysis.feature_maps.clusters import cluster

POSITIONS, CHANNELS, CLUSTERS = 1_000_000, 32, 12


def planted() -> np.ndarray:
    """More kinds than clusters, unequally frequent, as a layer's positions are."""
    rng = np.random.default_rng(0)
    kind = rng.choice(40, size=POSITIONS, p=rng.dirichlet(np.ones(40)))
    centres = rng.normal(size=(40, CHANNELS)).astype(np.float32)
    return centres[kind] + 0.5 * rng.standard_normal((POSITIONS, CHANNELS), np.float32)


def measure() -> Result:
    """ReceptiveFields clustered per second."""
    values = planted()
    start = time.perf_counter()
    found = cluster(values, CLUSTERS)
    assigned = found.assign(values)
    ours = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    _ = values @ found.centres.T
    product = time.perf_counter() - start
    start = time.perf_counter()
    whole = KMeans(CLUSTERS, random_state=0).fit(values)
    theirs = time.perf_counter() - start
    inertia = ((values - np.stack([values[assigned == i].mean(0) for i in range(CLUSTERS)])[assigned]) ** 2).sum()
    details = {
        "seconds": round(ours, 2),
        "peak memory": f"{peak:.0f} MiB",
        "inertia, of scikit-learn's": round(float(inertia / whole.inertia_), 4),
    }
    peers = {"scikit-learn on all": POSITIONS / theirs}
    return Result("clustering", "positions/s", POSITIONS / ours, peers, POSITIONS / product, details)


if __name__ == "__main__":
    main(measure, ("scikit-learn", "numpy"))
