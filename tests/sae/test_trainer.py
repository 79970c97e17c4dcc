"""What a fit does besides its losses: the whitening behind which it works, and latents that start again."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from rl_interp.core.errors import UserError
from rl_interp.sae import ArrayActivations, Feed, SAEConfig, Trainer, Whitening, random_dictionary

CONFIG = SAEConfig(latents=24, k=4, epochs=4, batch_size=64, held_out=0.0)


def data(count=600, width=12, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def trainer(config, x):
    source = ArrayActivations(x)
    return Trainer(Feed(source, config), config)


@pytest.mark.parametrize("far", [5.0, 1000.0])
@pytest.mark.parametrize("ridge", [0.3, 0.0, float("inf")])
def test_without_centring_the_mean_is_kept_where_it_lies(ridge, far):
    x = data()
    x[:, 3] = far  # varies not at all
    x[:, 4] += 2.0
    whitening = Whitening.of(x, ridge, centre=False)
    z = whitening.apply(x).astype(np.float64)
    np.testing.assert_allclose(z @ whitening.back.numpy() + whitening.mean.numpy(), x, atol=1e-5 * far, rtol=1e-5)
    assert whitening.variance == pytest.approx(z.var(0).sum(), rel=1e-3)
    centred = Whitening.of(x, ridge)
    assert centred.to.shape[1] == 11
    assert centred.variance == pytest.approx(centred.apply(x).var(0).sum(), rel=1e-3)


@pytest.mark.parametrize(
    ("variant", "closed"), [("jumprelu", "log_threshold"), ("gated", "b_strength"), ("topk", "b_enc")]
)
def test_a_latent_that_its_own_threshold_killed_starts_again_with_that_of_the_living(variant, closed):
    fit = trainer(replace(CONFIG, variant=variant), data())
    fit.step()
    dead = torch.tensor([2, 7])
    with torch.no_grad():
        getattr(fit.variant, closed)[dead] = 9.0 if variant == "jumprelu" else -99.0
    fit.silent[dead] = 10**6
    x = fit.feed.draw(np.random.default_rng(0), 64)[0]
    fit._resample(x, torch.ones_like(x))
    assert fit.dead_latents.tolist() == []
    assert fit.variant.losses(x, x, fit.feed.out.variance).fired[dead].all()
    for parameter in fit.variant.parameters():
        if parameter is not fit.variant.b_dec:
            assert not fit.optimizer.state[parameter]["exp_avg"][dead].any()
    torch.testing.assert_close(fit.variant.decoder.norm(dim=1), torch.ones(24))


def test_where_nothing_lives_nothing_is_taken_for_an_example():
    fit = trainer(CONFIG, data())
    fit.step()
    fit.silent[:] = 10**6
    x = fit.feed.draw(np.random.default_rng(0), 64)[0]
    fit._resample(x, torch.ones_like(x))
    assert all(parameter.isfinite().all() for parameter in fit.variant.parameters())


def test_data_that_are_whitened_already_are_not_whitened_again():
    fit = trainer(CONFIG, data())
    state, whitened = fit.feed.state_dict(), fit.feed._data
    fit.feed.load_state_dict(state)
    assert fit.feed._data is whitened
    state["whitenings"][0]["to"] = -state["whitenings"][0]["to"]  # as another machine's components may be
    del state["whitenings"][0]["dimensions"]  # as earlier versions kept none
    assert not fit.feed.has(state)
    fit.feed.load_state_dict(state)
    assert fit.feed.has(state)
    assert fit.feed._data is not whitened


@pytest.mark.parametrize("ridge", [0.3, float("inf")])
def test_with_a_policy_errors_count_by_what_they_change(ridge):
    x, directions = data(), np.random.default_rng(1).normal(size=(2, 12))
    policy = torch.from_numpy(directions.T @ directions)
    plain, stretched = Whitening.of(x, ridge), Whitening.of(x, ridge, policy=policy, policy_weight=3.0)
    np.testing.assert_allclose(stretched.apply(x) @ stretched.back.numpy() + x.mean(0), x, atol=1e-4)
    errors = np.random.default_rng(2).normal(size=(50, 12)).astype(np.float32)
    before, after = (np.square(errors @ each.to.numpy()).sum(1) for each in (plain, stretched))
    changed = np.square(errors @ directions.T).sum(1)
    scale = plain.variance / np.square((x - x.mean(0)) @ directions.T).sum(1).mean()  # both vary as much
    np.testing.assert_allclose(after, before + 3.0 * scale * changed, rtol=1e-3)
    assert stretched.variance == pytest.approx(stretched.apply(x).var(0).sum(), rel=1e-3)


def test_a_weighed_policy_is_kept_where_it_would_be_lost():
    x = data(2000)
    x[:, 0] *= 0.05  # a faint direction, which alone decides
    x = x @ np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0].astype(np.float32)
    faint = np.linalg.svd(x - x.mean(0))[2][-1]
    policy = torch.from_numpy(np.outer(faint, faint))

    def lost(weight):
        """The share of the faint direction's variance that is not reconstructed."""
        config = replace(CONFIG, policy_weight=weight)
        fit = Trainer(Feed(ArrayActivations(x), config, policy=policy), config)
        fit.run()
        error = fit.sae()(torch.from_numpy(x)).detach().numpy() - x
        return np.square(error @ faint).sum() / np.square((x - x.mean(0)) @ faint).sum()

    assert lost(10.0) < 0.5 * lost(0.0)
    weighed = replace(CONFIG, policy_weight=1.0)
    with pytest.raises(UserError, match="policy_weight=1 given for activations alone"):
        Feed(ArrayActivations(x), weighed)
    assert random_dictionary(ArrayActivations(x), weighed, np.arange(2000)).d_sae == CONFIG.latents  # its control
    with pytest.raises(UserError, match="does not depend on these activations"):
        Whitening.of(x, 0.3, policy=torch.zeros(12, 12), policy_weight=1.0)


def test_a_feed_is_gone_with_its_trainer():
    """At once, and not when the garbage collector comes by: a crosscoder's data are large, and two are fitted."""
    fit = trainer(CONFIG, data())
    fit.step()
    feed = weakref.ref(fit.feed)
    gc.disable()
    try:
        del fit
        assert feed() is None
    finally:
        gc.enable()
