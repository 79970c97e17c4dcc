"""Crosscoders: which latents are in which of several layers."""

import numpy as np
import pytest
import torch

from rl_interp.core.errors import UserError
from rl_interp.sae import SAEConfig, encode_rows, fit_crosscoder, side_by_side
from rl_interp.sae.training.feed import Feed
from rl_interp.sae.training.whiten import Whitening

RNG = np.random.default_rng(0)
CONFIG = SAEConfig(latents=24, k=3, epochs=40, batch_size=64, aux_k=0, ridge=0.0, held_out=0)


def planted(samples: int = 3000) -> tuple[list[np.ndarray], np.ndarray]:
    """Two layers of 16 and 24 units, of other scales, in which 12 sparse features are: four in both, four in the first
    alone, and four in the second alone."""
    active = RNG.random((samples, 12)) < 0.15
    values = active * RNG.uniform(0.5, 1.5, (samples, 12))
    first, second = (np.linalg.qr(RNG.normal(size=(width, 12)))[0].T for width in (16, 24))
    first, second = first.copy(), second.copy()
    first[8:], second[4:8] = 0, 0
    return [(100 * values @ first + 7).astype(np.float32), (values @ second - 2).astype(np.float32)], values


@pytest.mark.full
def test_latents_are_in_the_layers_that_their_features_are_in():
    sources, values = planted()
    coder = fit_crosscoder(sources, CONFIG)
    latents = encode_rows(coder.sae, side_by_side(sources), np.arange(len(values))).dense()
    alike = np.corrcoef(values.T, latents.T + 1e-6 * RNG.normal(size=latents.T.shape))[:12, 12:]
    assert alike.max(1).mean() > 0.9
    shares = coder.shares[:, alike.argmax(1)]
    assert shares.sum(0) == pytest.approx(1)
    assert np.abs(shares[0, :4] - 0.5).max() < 0.25
    assert shares[0, 4:8].min() > 0.9
    assert shares[1, 8:].min() > 0.9
    assert coder.spread()[alike.argmax(1)[:4]].min() > 1.5 > coder.spread()[alike.argmax(1)[4:]].max()


def test_what_is_given_back_is_in_the_layers_own_units():
    """However each is whitened and scaled inside."""
    sources, _ = planted(600)
    coder = fit_crosscoder(sources, SAEConfig(latents=32, k=12, epochs=20, batch_size=64, held_out=0))
    with torch.no_grad():
        parts = coder.split(coder.sae(torch.from_numpy(np.concatenate(sources, 1))))
    assert [each.shape[1] for each in parts] == [16, 24]
    for source, part in zip(sources, parts, strict=True):
        unexplained = np.square(source - part.numpy()).sum() / np.square(source - source.mean(0)).sum()
        assert unexplained < 0.1


def test_sources_that_do_not_belong_together_are_refused():
    with pytest.raises(UserError, match="sources of 5, 4 samples given; a crosscoder needs two or more"):
        fit_crosscoder([np.ones((5, 2)), np.ones((4, 2))], CONFIG)
    with pytest.raises(UserError, match="sources of 5 samples"):
        fit_crosscoder([np.ones((5, 2))], CONFIG)
    with pytest.raises(UserError, match="activation row 3 holds NaN or infinity"):
        fit_crosscoder([np.eye(5), np.diag([1, 1, 1, np.nan, 1]) + np.eye(5)], CONFIG)
    with pytest.raises(UserError, match="policy_weight=1 given for a crosscoder"):
        fit_crosscoder([np.ones((5, 2))] * 2, SAEConfig(policy_weight=1))


def test_one_factor_for_all_is_that_of_a_whitening_whose_ridge_is_infinite():
    rows = (RNG.normal(size=(500, 6)) * [5, 3, 1, 1, 1, 0.5] @ RNG.normal(size=(6, 6)) + 2).astype(np.float32)
    z = rows.copy()
    found, wanted = Whitening.scale(z), Whitening.of(rows, ridge=float("inf"))
    other = wanted.apply(rows)
    np.testing.assert_allclose(z, found.apply(rows), atol=1e-5)
    np.testing.assert_allclose(z @ z.T, other @ other.T, atol=1e-3)
    np.testing.assert_allclose(torch.from_numpy(z) @ found.back + found.mean, rows, atol=1e-4)
    assert found.variance == pytest.approx(wanted.variance)
    assert found.dimensions == pytest.approx(wanted.dimensions, rel=1e-3)
    z = rows.copy()
    uncentred = Whitening.scale(z, centre=False)
    np.testing.assert_allclose(z, rows * (uncentred.to @ torch.ones(6))[0].item(), rtol=1e-5)
    with pytest.raises(UserError, match="every activation is the same"):
        Whitening.scale(np.ones((9, 3), np.float32))


def test_sources_may_be_wider_together_than_what_can_be_whitened(monkeypatch):
    monkeypatch.setattr("rl_interp.sae.training.whiten._WIDEST", 30)
    sources, _ = planted(200)
    coder = fit_crosscoder(sources, SAEConfig(latents=24, k=3, epochs=1, batch_size=64, held_out=0))
    assert coder.widths == (16, 24)
    with pytest.raises(UserError, match="41 numbers a sample given, of which at most 30"):
        fit_crosscoder([*sources, RNG.normal(size=(200, 41)).astype(np.float32)], CONFIG)


def test_the_order_of_rows_makes_no_difference_and_those_left_out_none_either():
    sources, _ = planted(300)
    rows = np.arange(0, 300, 2)
    config = SAEConfig(latents=24, k=3, epochs=2, batch_size=64, held_out=0)
    plain, shuffled, alone = (
        fit_crosscoder(given, config, each).sae.W_dec
        for given, each in (
            (sources, rows), (sources, RNG.permutation(rows)), ([each[rows] for each in sources], None),
        )
    )  # fmt: skip
    assert torch.equal(plain, shuffled)
    torch.testing.assert_close(plain, alone)


def test_wide_samples_are_brought_to_one_scale_block_by_block():
    rows = RNG.normal(size=(50, 1100)).astype(np.float32) * np.linspace(1, 3, 1100, dtype=np.float32) + 5
    z = rows.copy()
    Whitening.scale(z)
    wanted = (rows - rows.mean(0)) / np.sqrt(rows.var(0).mean())
    np.testing.assert_allclose(z, wanted, atol=1e-4)


def test_a_feed_of_data_that_were_whitened_before_is_not_taken_up_again():
    rows = RNG.normal(size=(50, 4)).astype(np.float32)
    whitened = Whitening.of(rows, SAEConfig().ridge)
    feed = Feed(whitened.apply(rows), SAEConfig(), whitened=whitened)
    with pytest.raises(UserError, match="whitened before can't be taken up again"):
        feed.load_state_dict(feed.state_dict())
