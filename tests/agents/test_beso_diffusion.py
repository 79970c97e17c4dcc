"""Noise levels, preconditioning and samplers: beside published implementations, and mixtures whose score is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import fisk, kstest

from rl_interp.agents.beso import Sampling
from rl_interp.agents.beso.diffusion import SIGMA_DATA, preconditioning, training_sigmas
from rl_interp.agents.beso.random import following, keys, normals, uniforms
from rl_interp.core.errors import UserError

MEANS, SPREADS, WEIGHTS = [[-0.6, 0.3], [0.5, 0.4], [0.1, -0.7]], [0.1, 0.2, 0.05], [0.5, 0.3, 0.2]
SAMPLERS = ["euler", "ancestral", "heun", "dpm++2m"]
RECORDED = np.load(Path(__file__).parent.parent / "oracles" / "published_samplers" / "recorded.npz")
PLAIN = Sampling(guidance=1.0)


def denoise(x, sigma):
    """E[a | x] of the mixture, by Bayes' rule in NumPy, a component at a time."""
    given, likely, mean = x.double().numpy(), [], []
    for centre, spread, weight in zip(MEANS, SPREADS, WEIGHTS, strict=True):
        total = spread**2 + sigma**2
        off = given - np.array(centre)
        likely.append(weight / total * np.exp(-(off**2).sum(-1) / (2 * total)))
        mean.append(np.array(centre) + off * spread**2 / total)
    likely, mean = np.stack(likely), np.stack(mean)
    return torch.from_numpy((likely[..., None] * mean).sum(0) / np.maximum(likely.sum(0), 1e-300)[:, None])


def sampled(sampling, count=None):
    """From the recorded noise, or new one."""
    if count is None:
        noise = torch.from_numpy(RECORDED["noise"])
        return sampling.sample(denoise, torch.from_numpy(RECORDED["start"]), lambda step: noise[step]).numpy()
    rng = torch.Generator().manual_seed(0)

    def draw(step):
        return torch.randn(count, 2, generator=rng, dtype=torch.float64)

    return sampling.sample(denoise, draw(0), draw).numpy()


@pytest.mark.parametrize("name", [name for name in RECORDED if name.split()[0] in SAMPLERS])
def test_samplers_are_those_of_k_diffusion(name):
    sampler, schedule, steps, churn = name.split()
    sampling = replace(PLAIN, sampler=sampler, schedule=schedule, steps=int(steps), churn=float(churn))
    assert np.allclose(sampling.sigmas, RECORDED[f"{schedule} {steps}"], atol=1e-6)
    assert np.allclose(sampled(sampling), RECORDED[name], atol=1e-5)


@pytest.mark.parametrize("sampler", ["euler", "dpm++2m"])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_samplers_are_those_of_diffusers(sampler, schedule):
    sampling = replace(PLAIN, sampler=sampler, schedule=schedule, steps=12)
    name = f"diffusers {sampler} {schedule}"
    theirs = RECORDED[f"{name} sigmas"]
    assert np.allclose(sampling.sigmas[: len(theirs)], theirs, atol=1e-6)
    assert np.allclose(sampled(sampling), RECORDED[name], atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_have_the_moments_and_mode_weights_of_a_known_mixture(sampler):
    count = 4_000
    x = sampled(replace(PLAIN, sampler=sampler, schedule="karras", steps=60, sigma_max=20.0), count)
    nearest = ((x[:, None] - np.array(MEANS)) ** 2).sum(-1).argmin(1)
    for mode, weight in enumerate(WEIGHTS):
        error = 3.5 * math.sqrt(weight * (1 - weight) / count)
        assert abs((nearest == mode).mean() - weight) < error + 0.005  # what is nearest is not always what it is of
        of = x[nearest == mode]
        assert np.allclose(of.mean(0), MEANS[mode], atol=4 * SPREADS[mode] / math.sqrt(len(of)) + 0.004)
    assert np.allclose(x.mean(0), np.array(WEIGHTS) @ np.array(MEANS), atol=4 * x.std() / math.sqrt(count))


def test_more_steps_come_nearer_to_the_exact_solution_and_second_order_sooner():
    exact = sampled(replace(PLAIN, sampler="heun", schedule="karras", steps=400), 200)
    gap = {
        (sampler, steps): np.abs(
            sampled(replace(PLAIN, sampler=sampler, schedule="karras", steps=steps), 200) - exact
        ).mean()
        for sampler in ("euler", "heun", "dpm++2m")
        for steps in (10, 40)
    }
    for sampler in ("euler", "heun", "dpm++2m"):
        assert gap[sampler, 40] < gap[sampler, 10]
    assert gap["heun", 40] < gap["euler", 40] / 5
    assert gap["dpm++2m", 40] < gap["euler", 40] / 3


def test_what_the_network_sees_and_learns_has_variance_one_at_every_noise_level():
    rng = torch.Generator().manual_seed(0)
    data = SIGMA_DATA * torch.randn(200_000, generator=rng)
    for sigma in (0.005, 0.1, 0.5, 1.0, 20.0):
        noised = data + sigma * torch.randn(len(data), generator=rng)
        skip, out, into = preconditioning(torch.tensor(sigma))
        assert abs((into * noised).var() - 1) < 0.02
        assert abs(((data - skip * noised) / out).var() - 1) < 0.02


def test_noise_levels_of_training_are_log_logistic_between_their_bounds():
    sigma = training_sigmas(torch.rand(5_000, generator=torch.Generator().manual_seed(0)), 0.005, 1.0).double().numpy()
    assert sigma.min() >= 0.005
    assert sigma.max() <= 1.0
    law = fisk(c=2.0, scale=SIGMA_DATA)  # a log-logistic of shape 1 / spread
    low, high = law.cdf([0.005, 1.0])
    assert kstest(sigma, lambda each: (law.cdf(each) - low) / (high - low)).pvalue > 0.01


def test_the_levels_of_a_sampling_are_those_at_which_the_network_is_asked():
    assert Sampling(steps=3).levels == Sampling(steps=3).sigmas[:-1]
    heun = Sampling(steps=3, sampler="heun").levels
    assert len(heun) == 5
    assert heun == pytest.approx([1.0, 0.0707107, 0.0707107, 0.005, 0.005])


def test_random_numbers_follow_from_their_key_and_are_normal():
    key = keys(torch.arange(500))
    drawn = normals(key, 3, 4, 2)
    assert torch.equal(drawn[7:9], normals(key[7:9], 3, 4, 2))
    assert not torch.equal(drawn, normals(key, 2, 4, 2))
    assert not torch.equal(drawn, normals(following(key), 3, 4, 2))
    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 0.01
    assert kstest(uniforms(key, 0, 3).flatten().numpy(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(drawn.flatten(1).numpy().T) - np.eye(8)).max() < 0.2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(steps=0), r"steps=0 given; it must be at least 1"),
        (dict(sigma_min=0.0), r"sigma_min=0.0 given; it must be above 0"),
        (dict(sigma_max=0.001), r"sigma_min=0.005 given with sigma_max=0.001; it must be below it"),
        (dict(sigma_max=math.inf), r"sigma_max=inf given"),
        (dict(guidance=-1.0), r"guidance=-1.0 given; it must be at least 0"),
        (dict(sampler="ddim"), r"unknown sampler 'ddim'.*euler"),
        (dict(schedule="cosine"), r"unknown schedule 'cosine'"),
    ],
)
def test_what_can_not_be_sampled_with_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Sampling(**settings)
