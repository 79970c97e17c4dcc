"""Fitting: gradients, planted truth, dead latents, folding, exact resume, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rl_interp.core.errors import UserError
from sae import ArrayActivations, SAEConfig, TopK, Trainer, evaluate, fit
from sae.whiten import Whitening

SMALL = SAEConfig(latents=64, k=4, epochs=40, batch_size=256, learning_rate=3e-3, aux_k=32)


def planted(samples=6000, width=32, features=64, seed=0):
    """Sparse sums of planted directions, off centre and on another scale, and the directions."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(features, width)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    active = rng.random((samples, features)) < 3 / features
    strength = active * rng.uniform(1, 2, (samples, features)).astype(np.float32)
    return (40 * (strength @ directions) + 300).astype(np.float32), directions


def dense_losses(trainer: Trainer, x: torch.Tensor) -> torch.Tensor:
    """The loss written out with dense matrices, from its definition."""
    m = trainer.model
    pre = (x - m.b_dec) @ m.W_enc + m.b_enc
    kept = torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(m.k, dim=1).indices, True)
    error = x - (torch.relu(pre) * kept @ m.W_dec + m.b_dec)
    loss = error.square().sum() / (len(x) * trainer.whitening.variance)
    dead = trainer.dead_latents
    if len(dead):
        latents = torch.relu(pre[:, dead])
        kept = torch.zeros_like(latents, dtype=torch.bool)
        kept.scatter_(1, latents.topk(min(trainer.config.aux_k, len(dead)), dim=1).indices, True)
        left = error.detach()
        loss = (
            loss
            + trainer.config.aux_coefficient
            * (left - latents * kept @ m.W_dec[dead]).square().sum()
            / left.square().sum()
        )
    return loss


@pytest.mark.parametrize("dead", [False, True])
def test_losses_and_gradients_are_those_of_the_dense_definition(dead):
    data, _ = planted(600)
    trainer = Trainer(ArrayActivations(data), SMALL)
    trainer.model.double()
    with torch.no_grad():
        trainer.model.b_dec += 0.1
        trainer.model.b_enc += 0.05 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    if dead:
        trainer.silent[:20] = 10**9
    x = torch.from_numpy(trainer.whitening.apply(data[:200])).double()
    parameters = list(trainer.model.parameters())
    losses, _, _ = trainer.losses(x)
    ours = torch.autograd.grad(losses["loss"], parameters)
    reference = dense_losses(trainer, x)
    torch.testing.assert_close(losses["loss"], reference, rtol=1e-10, atol=0)
    for a, b in zip(ours, torch.autograd.grad(reference, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_planted_features_are_found_and_none_dies():
    data, directions = planted()
    sae = fit(ArrayActivations(data), SMALL)
    cosine = directions @ sae.W_dec.detach().numpy().T
    assert (cosine.max(1) > 0.9).mean() > 0.9
    metrics = evaluate(sae, ArrayActivations(data), np.arange(len(data)))
    assert metrics.fvu < 0.15  # some samples have more than k planted features
    assert metrics.dead_fraction < 0.02
    assert metrics.l0 <= SMALL.k


def test_the_fold_is_exact():
    data, _ = planted(500)
    trainer = Trainer(ArrayActivations(data), SMALL)
    trainer.run(should_stop=lambda: trainer.updates == 20)
    x, whitening = torch.from_numpy(data[:50]), trainer.whitening
    whitened = torch.from_numpy(whitening.apply(data[:50]))
    wanted = trainer.model(whitened) @ whitening.back + whitening.mean
    torch.testing.assert_close(trainer.sae()(x), wanted, rtol=1e-4, atol=1e-2)  # values are about 300
    torch.testing.assert_close(trainer.sae().encode(x), trainer.model.encode(whitened), rtol=1e-3, atol=1e-3)


def test_decoder_rows_keep_unit_norm_and_the_parallel_gradient_is_gone():
    data, _ = planted(500)
    trainer = Trainer(ArrayActivations(data), SMALL)
    for _ in range(3):
        trainer.step()
    torch.testing.assert_close(trainer.model.W_dec.norm(dim=1), torch.ones(64))
    trainer.losses(torch.randn(50, 32))[0]["loss"].backward()
    trainer._remove_parallel_gradient()
    along = (trainer.model.W_dec.grad * trainer.model.W_dec).sum(1)
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
    assert dead(ridge=float("inf"), revive=False) > 0.2


def test_dead_latents_start_again_as_samples_that_are_reconstructed_badly():
    data, _ = planted(2000)
    trainer = Trainer(ArrayActivations(data), SMALL)
    for _ in range(3):
        trainer.step()
    x = trainer._next_batch()
    trainer.silent[:5] = 10**9
    error = torch.zeros(len(x))
    error[[7, 9, 20, 21, 22]] = torch.tensor([1e6, 1.0, 1.0, 1.0, 1.0])
    trainer._revive(x, error)
    assert not len(trainer.dead_latents)
    cosine = F.normalize(x[[7, 9, 20, 21, 22]] - trainer.model.b_dec, dim=1) @ trainer.model.W_dec[:5].T
    torch.testing.assert_close(cosine.amax(0), torch.ones(5))
    assert (trainer.model.encode(x[[7]])[0, :5] > 0).any()
    assert not trainer.optimizer.state[trainer.model.W_enc]["exp_avg"][:, :5].any()


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


def test_a_resumed_fit_equals_the_uninterrupted_one_to_the_last_bit():
    data = ArrayActivations(planted(2000)[0])
    config = SAEConfig(latents=64, k=4, epochs=3, batch_size=256, dead_after=0.3)
    whole, part, resumed = (Trainer(data, config) for _ in range(3))
    whole.run()
    part.run(should_stop=lambda: part.updates == 11)
    assert 0 < part.updates < whole.updates
    turned = -resumed.whitening.to  # as another machine's eigenvectors may be
    resumed._whiten(replace(resumed.whitening, to=turned, back=-resumed.whitening.back))
    resumed.load_state_dict(part.state_dict())
    resumed.run()
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(whole.silent, resumed.silent)


def test_samples_are_mixed_across_the_data_only_if_asked():
    data = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    data[:, 0] = np.arange(1000)
    for shuffle in (True, False):
        trainer = Trainer(ArrayActivations(data), SAEConfig(latents=8, k=2, batch_size=100, shuffle=shuffle))
        first = (trainer._next_batch() @ trainer.whitening.back)[:, 0]
        assert (np.ptp(first.numpy()) > 800) == shuffle


def test_bad_data_is_refused_in_one_sentence():
    data, _ = planted(200)
    with pytest.raises(UserError, match="200 samples given for 2048 latents"):
        fit(ArrayActivations(data), SAEConfig())
    data[7, 3] = np.nan
    with pytest.raises(UserError, match="activation row 7 holds NaN or infinity"):
        fit(ArrayActivations(data), SMALL)
    with pytest.raises(UserError, match="every activation is the same"):
        fit(ArrayActivations(np.ones((100, 4))), SAEConfig(latents=8, k=2))
    with pytest.raises(UserError, match=r"k=65 given with latents=64"):
        SAEConfig(latents=64, k=65)
    with pytest.raises(UserError, match=r"activations are 32 wide and the autoencoder 8"):
        evaluate(TopK(8, 16, 2), ArrayActivations(planted(10)[0]), np.arange(10))
