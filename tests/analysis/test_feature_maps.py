"""Clusters of positions, on planted ones."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from rl_interp.analysis.feature_maps.clusters import cluster, information, names, patches
from rl_interp.core.errors import UserError


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """ReceptiveFields `[N, D]` of four kinds, unequally many, and of very unequal scales."""
    rng = np.random.default_rng(0)
    kind = rng.choice(4, size=20_000, p=[0.7, 0.2, 0.08, 0.02])
    centres = rng.normal(size=(4, 8))
    return (centres[kind] + 0.1 * rng.normal(size=(len(kind), 8))) * np.logspace(-2, 2, 8), kind


@pytest.mark.parametrize("method", ["kmeans", "agglomerative"])
def test_planted_kinds_are_found_and_named(planted, method):
    values, kind = planted
    assigned = cluster(values, 4, method).assign(values)
    assert adjusted_rand_score(kind, assigned) > 0.99
    truth = {"kind": (kind, ("wall", "free", "cheese", "mouse")), "noise": (np.arange(len(kind)) % 2, ("odd", "even"))}
    told = information(assigned, truth)
    assert told["kind"] > 0.98
    assert abs(told["noise"]) < 0.01
    found = names(assigned, truth, 4)
    assert {name.label for name in found} == {"wall", "free", "cheese", "mouse"}
    assert min(name.f1 for name in found) > 0.98


def test_positions_that_a_truth_does_not_apply_to_do_not_count(planted):
    values, kind = planted
    assigned = cluster(values, 4).assign(values)
    only = np.where(kind < 2, kind, -1)
    assert information(assigned, {"kind": (only, ("a", "b"))})["kind"] > 0.98
    assert (
        information(assigned, {"none": (np.full(len(kind), -1), ("a",)), "one": (np.zeros(len(kind), int), ("a",))})
        == {}
    )


def test_clusters_of_what_nothing_is_known_of_are_named_so(planted):
    _, kind = planted
    found = names(kind, {"kind": (np.where(kind == 2, -1, kind), ("a", "b", "c", "d"))}, 4)
    assert [name.label for name in found] == ["a", "b", "no cell", "d"]
    assert found[2].f1 == 1


def test_dead_channels_and_one_cluster_do_no_harm():
    values = np.zeros((50, 3), np.float32)
    values[:, 0] = np.arange(50)
    assert set(cluster(values, 2).assign(values)) == {0, 1}
    assert set(cluster(values, 1).assign(values)) == {0}


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="12 clusters asked of 5 positions"):
        cluster(np.zeros((5, 2)), 12)
    with pytest.raises(UserError, match="NaN or infinite"):
        cluster(np.full((5, 2), np.nan), 2)


def test_patches_are_the_pixels_around_a_position():
    obs = np.arange(2 * 1 * 6 * 6, dtype=np.uint8).reshape(2, 1, 6, 6)
    found = patches(obs, np.array([1.0, 5.0]), np.array([2.0]), 3)
    np.testing.assert_array_equal(found[1, 0, 0].reshape(3, 3), obs[1, 0, 0:3, 1:4])
    np.testing.assert_array_equal(found[0, 1, 0].reshape(3, 3), np.pad(obs[0, 0], 1, mode="edge")[5:8, 2:5])
