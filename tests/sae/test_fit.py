"""Fitting: planted truth, dead latents, folding, exact resume, bad input."""

from dataclasses import replace
from math import inf
from typing import get_args

import numpy as np
import pytest
import torch
from selection import in_full, mostly_in_full
from torch.nn import functional as F

from rl_interp.core.errors import UserError
from rl_interp.core.store import ActivationStore, StoreWriter
from rl_interp.sae import ArrayActivations, Feed, SAEConfig, TopK, Trainer, Whitening, diagnose, evaluate, fit, fit_all
from rl_interp.sae.data import batches
from rl_interp.sae.training.config import VariantName
from rl_interp.sae.training.variants import VARIANTS

SMALL = SAEConfig(latents=64, k=4, epochs=40, batch_size=256, learning_rate=3e-3, aux_k=32)


def planted(samples=6000, width=32, features=64, seed=0):
    """Sparse sums of planted directions, off centre and on another scale, and the directions."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(features, width)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    active = rng.random((samples, features)) < 3 / features
    strength = active * rng.uniform(1, 2, (samples, features)).astype(np.float32)
    return (40 * (strength @ directions) + 300).astype(np.float32), directions


def trainer_of(data, config=SMALL, target=None) -> Trainer:
    target = None if target is None else ArrayActivations(target)
    return Trainer(Feed(ArrayActivations(data), config, target=target), config)


@pytest.mark.parametrize("variant", mostly_in_full(VARIANTS, ["topk"]))
def test_every_variant_finds_planted_features_with_about_k_latents_active(variant):
    data, directions = planted(10_000)
    config = replace(SMALL, variant=variant)
    sae = fit(ArrayActivations(data), config)
    cosine = directions @ F.normalize(sae.W_dec.detach(), dim=1).numpy().T
    # A small prefix that stands for all features holds mixtures of them.
    assert (cosine.max(1) > 0.9).mean() > (0.6 if variant == "matryoshka" else 0.9)
    metrics = evaluate(sae, ArrayActivations(data), np.arange(len(data)))
    assert metrics.fvu < 0.15
    assert metrics.dead_fraction < 0.05
    assert metrics.l0 == pytest.approx(config.k, rel=0.3)


@pytest.mark.full
def test_a_transcoder_predicts_the_other_layer():
    data, _ = planted(6000)
    other = np.maximum(data @ np.random.default_rng(3).normal(size=(32, 20)).astype(np.float32) / 6, 0)
    sae = fit(ArrayActivations(data), SMALL, target=ArrayActivations(other))
    assert (sae.d_in, sae.d_out, sae.transcodes) == (32, 20, True)
    predicted = evaluate(sae, ArrayActivations(data), np.arange(6000), target=ArrayActivations(other))
    assert predicted.fvu < 0.2
    with pytest.raises(UserError, match="the targets are 32 wide and the autoencoder's 20"):
        evaluate(sae, ArrayActivations(data), np.arange(6000))
    with pytest.raises(UserError, match="6000 and 10 samples given"):
        Feed(ArrayActivations(data), SMALL, target=ArrayActivations(other[:10]))


@pytest.mark.full
def test_prefixes_of_a_matryoshka_dictionary_reconstruct_on_their_own():
    data, _ = planted(6000)
    x = torch.from_numpy(data)

    def unexplained(variant: str) -> float:
        sae = fit(ArrayActivations(data), replace(SMALL, variant=variant))
        latents = sae.encode(x)
        latents[:, 16:] = 0
        return ((x - sae.decode(latents)).square().sum() / (x - x.mean(0)).square().sum()).item()

    assert unexplained("matryoshka") < 0.9 * unexplained("batch_topk")


def test_fits_on_one_feed_see_the_same_batches_as_alone():
    data = ArrayActivations(planted(2000)[0])
    configs = [replace(SMALL, epochs=2), replace(SMALL, epochs=2, latents=100, k=7, seed=1)]
    feed = Feed(data, configs[0])
    together = [Trainer(feed, config) for config in configs]
    fit_all(together)
    for trainer, config in zip(together, configs, strict=True):
        alone = fit(data, config)
        assert all(torch.equal(a, b) for a, b in zip(trainer.sae().parameters(), alone.parameters(), strict=True))
    with pytest.raises(UserError, match="fits that share their data differ in ridge"):
        Trainer(feed, replace(SMALL, epochs=2, ridge=1.0))


def test_the_fold_is_exact():
    data, _ = planted(500)
    trainer = trainer_of(data, replace(SMALL, kernel="dense"))
    trainer.run(should_stop=lambda: trainer.updates == 20)
    x, whitening = torch.from_numpy(data[:50]), trainer.feed.into
    whitened = torch.from_numpy(whitening.apply(data[:50]))
    residual = trainer.variant.losses(whitened, whitened, 1.0).residual
    wanted = (whitened + residual) @ whitening.back + whitening.mean
    torch.testing.assert_close(trainer.sae()(x), wanted, rtol=1e-4, atol=1e-2)  # values are about 300


def test_decoder_rows_keep_unit_norm_and_the_parallel_gradient_is_gone():
    data, _ = planted(500)
    trainer = trainer_of(data)
    for _ in range(3):
        trainer.step()
    torch.testing.assert_close(trainer.variant.decoder.norm(dim=1), torch.ones(64))
    x = torch.randn(50, 32)
    trainer.variant.losses(x, x, 1.0).loss.backward()
    trainer._remove_parallel_gradient()
    along = (trainer.variant.decoder.grad * trainer.variant.decoder).sum(1)
    assert along.abs().max() < 1e-7


def test_one_direction_of_large_variance_leaves_no_latent_dead():
    """What an agent's value does to its hidden layer, and what it did to dictionaries of raw activations."""
    data, _ = planted(4000)
    rng = np.random.default_rng(1)
    loud = rng.normal(size=32)
    data += (1000 * rng.normal(size=(4000, 1)) * loud / np.linalg.norm(loud)).astype(np.float32)
    config = SAEConfig(latents=256, k=8, batch_size=256, epochs=8, dead_after=0.5, learning_rate=3e-3)

    def dead(**changes) -> float:
        sae = fit(ArrayActivations(data), replace(config, **changes))
        return evaluate(sae, ArrayActivations(data), np.arange(len(data))).dead_fraction

    assert dead() < 0.02
    assert dead(ridge=float("inf"), resample=False) > 0.2


def test_dead_latents_start_again_as_samples_that_are_reconstructed_badly():
    data, _ = planted(2000)
    trainer = trainer_of(data)
    for _ in range(3):
        trainer.step()
    x, _ = trainer.feed.next()
    trainer.silent[:5] = 10**9
    residual = torch.zeros(len(x), 32)
    residual[[7, 9, 20, 21, 22], 0] = torch.tensor([1e3, 1.0, 1.0, 1.0, 1.0])
    trainer._resample(x, residual)
    assert not len(trainer.dead_latents)
    cosine = F.normalize(x[[7, 9, 20, 21, 22]] - trainer.variant.b_dec, dim=1) @ trainer.variant.decoder[:5].T
    torch.testing.assert_close(cosine.amax(0), torch.ones(5))
    assert (x[7] @ trainer.variant.encoder[:5].T + trainer.variant.b_enc[:5] > 0).any()
    assert not trainer.optimizer.state[trainer.variant.encoder]["exp_avg"][:5].any()


def test_whitening_evens_out_the_components_and_undoes_itself():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(5000, 6)) * [100, 10, 3, 1, 1, 0] @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 50).astype(
        np.float32
    )
    white = Whitening.of(x, ridge=0)
    z = white.apply(x)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(5), atol=1e-3)  # the sixth neuron never varies
    np.testing.assert_allclose(z @ white.back.numpy() + white.mean.numpy(), x, atol=1e-2)
    one_factor = Whitening.of(x, ridge=float("inf"))
    assert one_factor.variance == pytest.approx(6)
    variance = x.var(0, dtype=np.float64).mean()
    z, raw = one_factor.apply(x[:20]), x[:20] - x.mean(0, dtype=np.float64)
    np.testing.assert_allclose(z @ z.T, raw @ raw.T / variance, atol=1e-2)
    between = Whitening.of(x, ridge=0.5)
    np.testing.assert_allclose(
        between.apply(x).var(0),
        (v := np.linalg.eigvalsh(np.cov(x.T, bias=True))[:0:-1]) / (v + 0.5 * variance),
        atol=1e-3,
    )


@pytest.mark.parametrize("variant", ["topk", "gated"])
def test_a_resumed_fit_equals_the_uninterrupted_one_to_the_last_bit(variant):
    data = planted(2000)[0]
    config = SAEConfig(variant=variant, latents=64, k=4, epochs=3, batch_size=256, dead_after=0.3)
    whole, part, resumed = (trainer_of(data, config) for _ in range(3))
    whole.run()
    part.run(should_stop=lambda: part.updates == 11)
    assert 0 < part.updates < whole.updates
    into = resumed.feed.into  # turned, as another machine's eigenvectors may be
    resumed.feed._whiten((replace(into, to=-into.to, back=-into.back),))
    resumed.load_state_dict(part.state_dict())
    resumed.run()
    for (name, a), b in zip(whole.variant.state_dict().items(), resumed.variant.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(whole.silent, resumed.silent)
    with pytest.raises(UserError, match="the state is of a dictionary"):
        trainer_of(data, replace(config, latents=70)).load_state_dict(part.state_dict())


class Elsewhere:
    """Activations that are not in memory, as far as a fit knows."""

    def __init__(self, array):
        self.array, self.width = array, array.shape[1]

    def __len__(self):
        return len(self.array)

    def read(self, rows):
        return self.array[rows]


@pytest.mark.parametrize("source", [ArrayActivations, Elsewhere])
def test_batches_serve_every_row_once_and_mix_them_only_if_asked(source):
    data = source(np.arange(20_000, dtype=np.float32)[:, None].repeat(2, 1))
    rows = np.flatnonzero(np.arange(20_000) % 3)
    plain, mixed, again, other = (
        list(batches(data, rows, 128, rng)) for rng in (None, *(np.random.default_rng(seed) for seed in (0, 0, 1)))
    )
    np.testing.assert_array_equal(np.concatenate(plain)[:, 0], rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(mixed)[:, 0]), rows)
    assert {len(batch) for batch in mixed[:-1]} == {128}
    assert np.median([np.ptp(batch[:, 0]) for batch in mixed]) > 15_000
    assert all(np.array_equal(a, b) for a, b in zip(mixed, again, strict=True))
    assert not np.array_equal(mixed[0], other[0])


def test_the_diagnosis_names_what_kills_latents_and_the_remedy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 30)).astype(np.float32)
    x[:, 3] = 1
    x[:, 5] = 2 * x[:, 4] + 1
    plain = diagnose(ArrayActivations(x))
    assert (plain.constant, plain.duplicates) == ([3], [5])
    variances = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    assert plain.effective_rank == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=1e-4)
    assert plain.gamma == pytest.approx(np.linalg.norm(x.mean(0)) / np.sqrt(x.var(0).sum()), rel=1e-4)
    off_centre = diagnose(ArrayActivations(x + 50))
    loud = diagnose(ArrayActivations(x + 100 * rng.normal(size=(4000, 1)).astype(np.float32)))
    naive = replace(SMALL, centre=False, ridge=float("inf"))
    assert plain.warnings(naive) == []
    assert "centre the data (--centre)" in off_centre.warnings(naive)[0]
    assert "whiten it (--ridge 0.3)" in loud.warnings(naive)[0]
    assert off_centre.warnings(SMALL) == loud.warnings(SMALL) == []
    with pytest.raises(UserError, match="activations of 9,000 numbers a sample given, of which at most 8,192"):
        diagnose(ArrayActivations(np.zeros((2, 9000), np.float32)))


def test_a_nan_on_a_disk_is_named_when_the_loss_meets_it(monkeypatch, tmp_path):
    monkeypatch.setattr("rl_interp.sae.training.feed._IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("rl_interp.sae.training.feed._STATISTICS_ROWS", 500)
    data, _ = planted(4000)
    config = replace(SMALL, epochs=5)
    sampled = np.random.default_rng(config.data_seed).choice(4000, 500, replace=False, shuffle=False)
    data[(row := next(row for row in range(2500, 4000) if row not in sampled)), 3] = np.inf
    with StoreWriter(tmp_path / "store", "fc.post", {}, shard_rows=1000) as writer:
        for start in range(0, 4000, 1000):
            writer.append(data[start : start + 1000], {"episode": np.arange(start, start + 1000)})
    trainer = Trainer(Feed(ActivationStore(tmp_path / "store"), config), config)
    with pytest.raises(UserError, match=rf"shard-00002.npy, row {row - 2000}, holds NaN or infinity"):
        trainer.run()


def test_bad_data_is_refused_in_one_sentence():
    data, _ = planted(200)
    with pytest.raises(UserError, match="200 samples given for 2048 latents"):
        fit(ArrayActivations(data), SAEConfig())
    data[7, 3] = np.nan
    with pytest.raises(UserError, match="activation row 7 holds NaN or infinity"):
        fit(ArrayActivations(data), SMALL)
    with pytest.raises(UserError, match="every activation is the same"):
        fit(ArrayActivations(np.ones((100, 4))), SAEConfig(latents=8, k=2))
    with pytest.raises(UserError, match=r"k=64 given with latents=64"):
        SAEConfig(latents=64, k=64)
    with pytest.raises(UserError, match=r"they are rising shares of the dictionary, the last 1"):
        SAEConfig(prefixes=(0.5, 0.25, 1.0))
    with pytest.raises(UserError, match=r"activations are 32 wide and the autoencoder's 8"):
        evaluate(TopK(8, 16, 2), ArrayActivations(planted(10)[0]), np.arange(10))


@pytest.mark.parametrize(("width", "latents", "batch", "worse"), [(16, 32, 256, 3e-3), *in_full((64, 512, 128, 3e-2))])
def test_the_default_step_size_suits_narrow_data_and_wide(width, latents, batch, worse):
    data, _ = planted(3500, width, latents)
    data += np.random.default_rng(1).normal(size=data.shape).astype(np.float32)
    config = SAEConfig(latents=latents, k=4, batch_size=batch, aux_k=32)

    def missed(rate: float | None = None) -> float:
        sae = fit(ArrayActivations(data), replace(config, learning_rate=rate))
        return evaluate(sae, ArrayActivations(data), np.arange(len(data))).fvu

    assert missed() < 0.95 * missed(worse)


def test_the_default_step_size_is_the_same_whatever_the_scale_and_the_passes():
    data, _ = planted(2000, 48, 96)
    config = SAEConfig(latents=96, k=2, ridge=inf)
    (whole, small), long = (
        [trainer_of(scale * data, replace(config, ridge=ridge)) for scale, ridge in ((1.0, inf), (1e-3, 1e7))],
        trainer_of(data, replace(config, epochs=400)),
    )
    rates = [each.optimizer.param_groups[0]["peak"] for each in (whole, small, long)]
    assert rates == pytest.approx([rates[0]] * 3, rel=1e-3)
    assert rates[0] < 0.03


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "jumprelu", "gated", "matryoshka"])
def test_the_default_step_size_is_bounded_whatever_the_data(variant):
    """On a DQN's layer, in which a third to a half of the dimensions are active, it is the highest."""
    config = SAEConfig(variant=variant)
    highest = 0.0075 if variant == "matryoshka" else 0.03
    assert config.peak_rate(0) == config.peak_rate(74) == highest
    assert replace(config, latents=8192).peak_rate(74) == highest / 4
    assert 0 < replace(config, k=1).peak_rate(1e9) < 1e-3


def test_the_step_size_that_is_given_is_taken_and_a_fit_goes_on_with_its_own():
    data, _ = planted(1000)
    given = trainer_of(data, replace(SMALL, learning_rate=0.02))
    assert given.optimizer.param_groups[0]["peak"] == 0.02
    chosen = trainer_of(data, replace(SMALL, learning_rate=None))
    assert chosen.optimizer.param_groups[0]["peak"] == SAEConfig(latents=64, k=4).peak_rate(chosen.feed.out.dimensions)
    chosen.load_state_dict(given.state_dict())
    assert chosen.optimizer.param_groups[0]["peak"] == 0.02


def test_every_variant_that_can_be_named_can_be_fitted():
    assert set(get_args(VariantName)) == VARIANTS.keys()


@pytest.mark.parametrize("ridge", [0.3, inf])
def test_a_fit_that_goes_on_from_a_dictionary_begins_with_what_its_latents_add(ridge):
    data, _ = planted(1500)
    start = fit(ArrayActivations(data), replace(SMALL, epochs=2))
    config = replace(SMALL, latents=80, ridge=ridge)
    begun = Trainer(Feed(ArrayActivations(data), config), config, start).sae()
    x = torch.from_numpy(data[:40])
    ours, theirs = (sae.pre_activations(x)[:, :64, None] * sae.W_dec[None, :64] for sae in (begun, start))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-2)  # values are about 300
    torch.testing.assert_close(begun.b_dec, start.b_dec, rtol=1e-4, atol=1e-2)
    assert begun.W_dec[64:].norm(dim=1).min() > 0


@pytest.mark.parametrize("variant", ["topk", "jumprelu", "gated"])
def test_it_begins_as_the_dictionary_that_it_goes_on_from(variant):
    data, _ = planted(1500)
    config = replace(SMALL, variant=variant, epochs=2)
    start = fit(ArrayActivations(data), config)
    begun = Trainer(Feed(ArrayActivations(data), config), config, start).sae()
    x = torch.from_numpy(data[:200])
    apart = (begun(x) - start(x)).abs().amax(1) > 0.5  # values are about 300
    assert apart.float().mean() <= 0.01  # a latent at its threshold may fall on either side
    assert not torch.equal(start(x), start.b_dec.expand_as(x))


def test_it_goes_on_from_where_that_one_was():
    data, _ = planted(3000)
    activations, rows = ArrayActivations(data), np.arange(3000)
    short = replace(SMALL, epochs=2, learning_rate=1e-3)
    start = fit(activations, replace(SMALL, epochs=20))
    fvu = {name: evaluate(fit(activations, short, start=each), activations, rows).fvu
           for name, each in (("anew", None), ("from it", start))}  # fmt: skip
    assert fvu["from it"] < 0.5 * fvu["anew"]


def test_a_dictionary_that_does_not_fit_is_not_gone_on_from():
    data, _ = planted(500)
    with pytest.raises(UserError, match="of 128 latents given to start from, for 64; give latents=128 or more"):
        fit(ArrayActivations(data), SMALL, start=TopK(32, 128, 4))
    with pytest.raises(
        UserError, match="from 16 to 16 activations given to start from, for a layer of 32 and one of 32"
    ):
        fit(ArrayActivations(data), SMALL, start=TopK(16, 64, 4))
