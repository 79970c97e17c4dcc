"""Saliency of vectors: what each method must find in a linear agent and a smooth one, and how it is drawn."""

import numpy as np
import pytest
import torch
from map_agents import ANY, Vectors
from torch import nn

from rl_interp.core.errors import UserError
from rl_interp.core.wrap import wrap
from rl_interp.saliency import (
    VECTOR_METHODS,
    Ablation,
    Bars,
    Frame,
    Inputs,
    Panel,
    Preference,
    compose,
    is_signed,
    randomisation_check,
    saliency_map,
)
from rl_interp.saliency.overlay import AGAINST, FOR
from rl_interp.saliency.targets import Chosen

WEIGHTS = np.array([0.0, 2.0, -1.0, 0.5])
DATA = np.random.default_rng(0).normal([1, 2, 3, 4], [1, 2, 0.5, 3], (32, 4)).astype(np.float32)
OBS = DATA[:3]
PREFERENCE = Preference(1)


@pytest.fixture
def agent():
    net = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(np.stack([0 * WEIGHTS, WEIGHTS])))
    return wrap(net, {}, observation="vector")


def mapped(agent, method: str) -> np.ndarray:
    return saliency_map(agent, torch.from_numpy(OBS), PREFERENCE, method, data=torch.from_numpy(DATA))


@pytest.mark.parametrize("method", ["perturbation", "integrated-gradients"])
def test_an_entry_is_set_beside_its_mean(agent, method):
    np.testing.assert_allclose(mapped(agent, method), WEIGHTS * (OBS - DATA.mean(0)), atol=1e-4)
    assert is_signed(method, PREFERENCE)


def test_resampling_says_how_much_an_entry_matters_even_at_its_mean(agent):
    want = np.abs(WEIGHTS) * np.sqrt(((OBS[:, None] - DATA) ** 2).mean(1))
    np.testing.assert_allclose(mapped(agent, "resample"), want, rtol=1e-4)
    assert not is_signed("resample", PREFERENCE)
    mean = torch.from_numpy(DATA.mean(0)[None])
    at_mean = saliency_map(agent, mean, PREFERENCE, "resample", data=torch.from_numpy(DATA))
    assert (at_mean[0, 1:] > 0.3).all()
    assert at_mean[0, 0] == 0


def test_gradients_are_in_the_unit_of_the_target(agent):
    np.testing.assert_allclose(mapped(agent, "gradient"), np.tile(np.abs(WEIGHTS) * DATA.std(0), (3, 1)), rtol=1e-4)


def test_an_unknown_method_of_vectors_names_the_known(agent):
    with pytest.raises(UserError, match="unknown saliency method 'resampel'.*Did you mean 'resample'"):
        mapped(agent, "resampel")
    assert {"perturbation", "resample", "gradient", "integrated-gradients"} <= VECTOR_METHODS.keys()


def test_vectors_get_a_number_of_each_entry():
    agent, obs = Vectors(), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    maps = {method: saliency_map(agent, obs, Preference(1), method) for method in ANY}
    assert {found.shape for found in maps.values()} == {(4, 8)}
    differentiated = obs.clone().requires_grad_()
    agent.step(differentiated).q_values[:, 1].sum().backward()
    np.testing.assert_allclose(maps["gradient"], differentiated.grad.abs(), rtol=1e-5)
    difference = agent.step(obs).q_values[:, 1] - agent.step(0 * obs).q_values[:, 1]
    np.testing.assert_allclose(maps["integrated-gradients"].sum(1), difference.detach(), rtol=1e-2, atol=1e-4)
    assert randomisation_check(agent, obs, Preference(1), "perturbation").shape == (4,)


@pytest.mark.parametrize("baseline", [0.0, torch.linspace(-1, 1, 8)], ids=["zero", "vector"])
def test_perturbing_vectors_is_captums_ablation(baseline):
    from captum.attr import FeatureAblation

    agent, obs = Vectors(), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    ours = Ablation(baseline)(agent, obs, Preference(2))
    base = torch.as_tensor(baseline).expand(1, 8)
    with torch.no_grad():
        theirs = FeatureAblation(lambda x: agent.step(x).q_values[:, 2]).attribute(obs, baselines=base)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def drawn(maps: np.ndarray, number: int, steps=None) -> np.ndarray:
    """A film's frame of some number; by default the film is in a row, from step 10 on."""
    names = [f"input {i}" for i in range(maps.shape[1])]
    steps = range(10, 10 + len(maps)) if steps is None else steps
    inputs = Inputs(names, np.zeros_like(maps), maps.astype(np.float32), steps)
    panel = Panel(("LEFT",), "chosen", "perturbation", 1.0, Bars("advantage", -1.0, 1.0), inputs=inputs)
    screen = np.zeros((400, 600, 3), np.uint8)
    frame = Frame(screen, inputs.maps[number], np.zeros(1, np.float32), 0, 0.0, steps[number], number=number)
    return compose(frame, panel).astype(int)


def test_a_bar_is_as_long_as_its_entry_matters_now_and_the_strip_shows_every_step():
    maps = np.zeros((50, 3))
    maps[20, 0], maps[20, 1], maps[40, 2] = 0.8, -0.4, 1.0
    picture = drawn(maps, 20)
    assert picture.shape == (460 + 34 + 3 * 24 + 30, 690 + 360, 3)
    bars = picture[460:, 690:]
    reds, blues = ((bars == colour).all(2) for colour in (FOR, AGAINST))
    assert reds.sum(1).max() / blues.sum(1).max() == pytest.approx(2, rel=0.1)
    assert not reds[34 + 48 :].any(), "the third matters at a different step"
    strip = picture[460 + 34 + 2 * 24 + 12, 250 : 690 - 24]
    where = np.flatnonzero(strip[:, 0] - strip[:, 2] > 100)
    assert where.mean() / len(strip) == pytest.approx(40.5 / 50, abs=0.02)


def test_of_clips_the_bars_and_values_are_those_of_the_step_that_is_shown():
    maps = np.zeros((50, 3))
    maps[20, 0], maps[30, 0] = 0.5, 1
    clips = [*range(4, 24), *range(40, 70)]
    here, there = ((drawn(maps, number, clips)[460:] == FOR).all(2)[:, 690:].sum() for number in (20, 30))
    assert there == pytest.approx(2 * here, rel=0.1)
    first, last = slice(250, 458), slice(458, 690)  # where the strip's ends are named
    for steps, ends in ((range(4, 54), [first]), (range(20, 70), [last]), (clips, [first, last])):
        for end in ends:
            assert (drawn(maps, 0, clips)[-30:, end] == drawn(maps, 0, steps)[-30:, end]).all()


def test_of_many_inputs_those_that_matter_most_are_shown():
    maps = np.zeros((5, 200), np.float32)
    maps[:, 100:110] = np.arange(1, 11)
    inputs = Inputs([str(i) for i in range(200)], np.zeros_like(maps), maps, range(5))
    assert set(range(100, 110)) <= set(inputs.shown.tolist())
    assert len(inputs.shown) == 16
    assert drawn(maps, 0).shape[0] % 2 == 0


def test_a_chosen_actions_name_survives_without_a_choice():
    frame = Frame(np.zeros((60, 60, 3), np.uint8), np.zeros((6, 6), np.float32), np.ones(1, np.float32), None, 0.0, 0)
    panel = Panel(("TORQUE",), Chosen().name, "perturbation", 1.0, Bars.of_means([np.ones(1, np.float32)]))
    assert not (compose(frame, panel) == (255, 176, 59)).all(2).any()
