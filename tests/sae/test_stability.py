"""Stability over seeds: matching against all permutations, planted features, and dictionaries that nothing was fitted
to."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from rl_interp.analysis.sae.stability import matched_cosine, stability
from rl_interp.sae import ArrayActivations, Feed, SAEConfig, Trainer

SMALL = SAEConfig(latents=48, k=4, epochs=30, batch_size=256, learning_rate=3e-3, ridge=0.03)


def loud(samples: int = 3000, width: int = 32) -> np.ndarray:
    """Sparse sums of planted features, all of which also raise one direction that is four times as loud."""
    rng = np.random.default_rng(0)
    strength = rng.uniform(1, 2, (samples, 48)) * (rng.random((samples, 48)) < 3 / 48)
    features = normalize(torch.from_numpy(rng.normal(size=(48, width))), dim=1).numpy()
    return (strength @ (features + 4 * features[:1])).astype(np.float32)


def fits(updates: int | None, seeds: int = 2, data: np.ndarray | None = None) -> list[Any]:
    """As opened by `load_sae`, after some updates or at the end."""
    data = loud() if data is None else data
    feed, made = Feed(ArrayActivations(data), SMALL), []
    for trainer in [Trainer(feed, replace(SMALL, seed=seed)) for seed in range(seeds)]:
        while trainer.updates < (updates or trainer.total_updates):
            trainer.step()
        run = SimpleNamespace(load_state=trainer.state_dict)
        store = SimpleNamespace(column=lambda name, rows: rows // 30)
        made.append(SimpleNamespace(run=run, sae=trainer.sae(), store=store, target=feed.raw, train_rows=feed.rows))
    return made


def test_directions_are_paired_one_to_one_so_that_their_cosines_sum_to_most():
    first, second = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    cosines = torch.cosine_similarity(first[:, None], second[None], dim=-1)
    best = max(cosines[range(5), list(order)].mean().item() for order in itertools.permutations(range(5)))
    assert matched_cosine(first, second) == pytest.approx(best, rel=1e-5)
    assert matched_cosine(first, 3 * first[[4, 2, 0, 1]]) == pytest.approx(1)
    assert matched_cosine(torch.eye(4), torch.eye(4)[[0, 0, 0, 0]]) == pytest.approx(1 / 4)
    assert matched_cosine(first, first[:0]) == 0


def test_seeds_that_find_the_planted_features_agree_and_those_that_learned_nothing_agree_as_samples_do():
    (first, second), controls = stability(fits(None))
    assert first.cosine == second.cosine > controls["samples"] + 0.25
    assert first.found_again > 0.5
    assert controls["samples"] > controls["random"]
    unfitted, expected = stability(fits(1))
    assert unfitted[0].cosine == pytest.approx(expected["samples"], abs=0.05)
    assert unfitted[0].found_again < 0.2
    directions = torch.randn(2, 48, 32, generator=torch.Generator().manual_seed(3))
    assert controls["random"] == pytest.approx(matched_cosine(*directions), abs=0.05)


def test_dead_latents_do_not_count():
    made = fits(None)
    expected, _ = stability(made)
    for fit in made:  # ten dead latents more
        state = fit.run.load_state()
        state["silent"] = torch.cat([torch.full((10,), 10**9), state["silent"]])
        fit.run.load_state = lambda state=state: state
        fit.sae.W_dec = torch.nn.Parameter(torch.cat([torch.randn(10, 32), fit.sae.W_dec.detach()]))
    assert stability(made)[0] == expected


def test_each_of_three_seeds_is_compared_with_both_others():
    made = fits(1, seeds=3)
    pairs = {pair: stability([made[at] for at in pair])[0][0].cosine for pair in itertools.combinations(range(3), 2)}
    means = [np.mean([value for pair, value in pairs.items() if seed in pair]) for seed in range(3)]
    assert [each.cosine for each in stability(made)[0]] == pytest.approx(means, rel=1e-4)
