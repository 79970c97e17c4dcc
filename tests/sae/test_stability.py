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
    assert unfitted[0].found_again < 0.15
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


def among(cosine: float, count: int, seed: int = 5) -> Any:
    """A fit whose features are samples of the loud data, turned away from these until they have that cosine."""
    made = fits(1)[0]
    rng, whitening = np.random.default_rng(seed), made.run.load_state()["feed"]["whitenings"][-1]
    rows = np.sort(rng.choice(made.train_rows, count, replace=False))
    there = normalize((torch.from_numpy(made.target.read(rows)) - whitening["mean"]) @ whitening["to"], dim=1)
    noise = normalize(torch.from_numpy(rng.normal(size=there.shape)).float(), dim=1)
    turned = cosine * there + (1 - cosine**2) ** 0.5 * noise
    state = made.run.load_state() | {"silent": torch.zeros(count, dtype=torch.long)}
    back = torch.linalg.pinv(whitening["to"])
    return SimpleNamespace(
        run=SimpleNamespace(load_state=lambda: state), sae=SimpleNamespace(W_dec=turned @ back), store=made.store,
        target=made.target, train_rows=made.train_rows,
    )  # fmt: skip


def test_chance_is_of_as_many_samples_as_there_are_features_on_either_side():
    """Samples of different episodes are found among one another by chance, however many live on either side."""
    few, many = among(1, 30, seed=1), among(1, 300, seed=2)
    (one, other), _ = stability([few, many])
    assert one.found_again < 0.25  # a tenth of the few is among the many, the very same
    assert other.found_again < 0.15


def test_without_features_or_samples_nothing_is_found_again_or_not():
    dead = among(1, 30)
    dead.run.load_state()["silent"][:] = 10**9
    (one, other), _ = stability([among(1, 30), dead])
    assert one.found_again is other.found_again is None
    one_state = [among(1, 30) for _ in range(2)]
    rows = one_state[0].train_rows
    for fit in one_state:
        fit.target = SimpleNamespace(read=lambda chosen: loud()[rows[:1]].repeat(len(chosen), 0))
    assert stability(one_state)[0][0].found_again is None


def test_behind_another_fits_whitening_the_datas_mean_is_no_likeness():
    one, other = among(0.5, 40, seed=1), among(0.5, 40, seed=2)
    plain = stability([one, other], behind=one)[0][0]
    mean = one.run.load_state()["feed"]["whitenings"][-1]["mean"]
    for fit in (one, other):
        fit.sae.W_dec = fit.sae.W_dec + 5 * mean
    assert stability([one, other])[0][0].cosine > plain.cosine + 0.1
    assert stability([one, other], behind=one)[0][0].cosine == pytest.approx(plain.cosine, abs=1e-3)


def test_each_of_three_seeds_is_compared_with_both_others():
    made = fits(1, seeds=3)
    pairs = {pair: stability([made[at] for at in pair])[0][0].cosine for pair in itertools.combinations(range(3), 2)}
    means = [np.mean([value for pair, value in pairs.items() if seed in pair]) for seed in range(3)]
    assert [each.cosine for each in stability(made)[0]] == pytest.approx(means, rel=1e-4)
