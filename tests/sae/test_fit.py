"""Fitting: gradients, planted truth, dead latents, folding, exact resume, bad input."""

import numpy as np
import pytest
import torch

from rl_interp.core.errors import UserError
from sae import ArrayActivations, SAEConfig, TopK, Trainer, evaluate, fit

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
    loss = error.square().sum() / (x - x.mean(0)).square().sum()
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
    x = (torch.from_numpy(data[:200]).double() - trainer.mean) / trainer.scale
    parameters = list(trainer.model.parameters())
    losses, _ = trainer.losses(x)
    ours = torch.autograd.grad(losses["loss"], parameters)
    reference = dense_losses(trainer, x)
    torch.testing.assert_close(losses["loss"], reference, rtol=1e-10, atol=0)
    for a, b in zip(ours, torch.autograd.grad(reference, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_planted_features_are_found_and_none_dies():
    data, directions = planted()
    sae = fit(ArrayActivations(data), SMALL).sae()
    cosine = directions @ sae.W_dec.detach().numpy().T
    assert (cosine.max(1) > 0.9).mean() > 0.9
    metrics = evaluate(sae, ArrayActivations(data), np.arange(len(data)))
    assert metrics.fvu < 0.15  # some samples have more than k planted features
    assert metrics.dead_fraction < 0.02
    assert metrics.l0 <= SMALL.k


def test_the_fold_is_exact():
    data, _ = planted(500)
    trainer = fit(ArrayActivations(data), SMALL, should_stop=iter([False] * 20 + [True]).__next__)
    x = torch.from_numpy(data[:50])
    normalised = (x - trainer.mean) / trainer.scale
    wanted = trainer.model(normalised) * trainer.scale + trainer.mean
    torch.testing.assert_close(trainer.sae()(x), wanted, rtol=1e-5, atol=1e-3)


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


def test_a_resumed_fit_equals_the_uninterrupted_one_to_the_last_bit():
    data = ArrayActivations(planted(2000)[0])
    config = SAEConfig(latents=64, k=4, epochs=3, batch_size=256, dead_after=0.3)
    whole = fit(data, config)
    part = fit(data, config, should_stop=iter([False] * 11 + [True]).__next__)
    assert 0 < part.updates < whole.updates
    resumed = fit(data, config, state=part.state_dict())
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(whole.silent, resumed.silent)


def test_samples_are_mixed_across_the_data_only_if_asked():
    data = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    data[:, 0] = np.arange(1000)
    for shuffle in (True, False):
        config = SAEConfig(latents=8, k=2, batch_size=100, shuffle=shuffle, centre=False, scale=False)
        first = Trainer(ArrayActivations(data), config)._next_batch()[:, 0]
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
