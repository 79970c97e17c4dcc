"""Which rows are looked at, and which one is named where the numbers are not finite."""

import tracemalloc

import numpy as np
import pytest
import torch

from rl_interp.core.errors import UserError
from rl_interp.core.store import ActivationStore, StoreWriter
from rl_interp.sae import (
    ArrayActivations,
    Features,
    Feed,
    SAEConfig,
    TopK,
    coverage,
    diagnose,
    evaluate,
    fit,
    random_dictionary,
    split_by_episode,
)

CONFIG = SAEConfig(latents=16, k=2)


def stored(path, name: str, spoiled: int | None = None) -> ActivationStore:
    """Five shards of a hundred rows; `spoiled` holds a NaN."""
    values = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    if spoiled is not None:
        values[spoiled, 3] = np.nan
    with StoreWriter(path / name, name, {}, shard_rows=100) as writer:
        for at in range(0, 500, 100):
            writer.append(values[at : at + 100], {"episode": np.full(100, at // 100)})
    return ActivationStore(path / name)


def test_the_shard_and_row_of_a_nan_are_named(tmp_path):
    store, sae = stored(tmp_path, "fc", spoiled=321), TopK(8, 16, 2)
    for read in (
        lambda: diagnose(store),
        lambda: diagnose(ArrayActivations(store.read(np.arange(500)))),
        lambda: Feed(store, CONFIG),
        lambda: evaluate(sae, store, np.arange(500)),
    ):
        with pytest.raises(UserError, match=r"(fc/shard-00003.npy, row 21,|activation row 321) holds NaN or infinity"):
            read()


@pytest.mark.parametrize("side", ["source", "target"])
def test_of_a_transcoders_two_layers_the_one_with_the_nan_is_named(tmp_path, side):
    layers = {name: stored(tmp_path, name, spoiled=321 if name == side else None) for name in ("source", "target")}
    with pytest.raises(UserError, match=f"{side}/shard-00003.npy, row 21, of the {side} holds NaN"):
        Feed(layers["source"], CONFIG, target=layers["target"])
    arrays = {name: ArrayActivations(layer.read(np.arange(500))) for name, layer in layers.items()}
    with pytest.raises(UserError, match=f"activation row 321 of the {side} holds NaN"):
        Feed(arrays["source"], CONFIG, target=arrays["target"])


def test_arrays_and_tensors_are_fitted_as_they_are():
    values = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    config = SAEConfig(latents=16, k=2, epochs=1, batch_size=64)
    wanted, *found = (
        fit(given, config, target=given) for given in (ArrayActivations(values), values, torch.from_numpy(values))
    )
    for sae in found:
        assert torch.equal(sae.W_dec, wanted.W_dec)
    with pytest.raises(UserError, match=r"an array of shape \(8,\) given; activations are \[rows, width\]"):
        fit(torch.ones(8), config)


def test_splitting_takes_little_more_memory_than_the_row_numbers():
    episodes = np.arange(4_000_000) // 600
    tracemalloc.start()
    train, held_out = split_by_episode(episodes, 0.2, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 13 * len(episodes)
    assert len(train) + len(held_out) == len(episodes)


def test_a_sample_of_rows_has_all_positions():
    """Of a layer with 16 positions one never changes; every 16th row is there."""
    values = np.random.default_rng(0).normal(size=(16_384, 16, 2)).astype(np.float32)
    values[:, 0] = 50
    rows = values.reshape(-1, 2)
    found = diagnose(ArrayActivations(rows))
    assert found.gamma == pytest.approx(np.linalg.norm(rows.mean(0)) / np.sqrt(rows.var(0).sum()), rel=0.1)
    random_dictionary(ArrayActivations(rows), CONFIG, np.arange(len(rows)))  # refuses rows that are all the same


def test_a_probe_is_fitted_on_all_positions():
    """At one of 8 positions the feature is on where the concept is not; every eighth row is there."""
    rng = np.random.default_rng(0)
    feature = rng.random((2000, 8)) < 0.5
    labels = feature.copy()
    labels[:, 0] = ~feature[:, 0]
    features, labels = Features.dense(feature.reshape(-1, 1).astype(np.float32)), labels.reshape(-1, 1)
    assert coverage(features, features, labels, labels, probe_rows=2000).probe[0] > 0.8
