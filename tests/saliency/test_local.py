"""Local perturbation says what perturbing whole pictures says, to more digits, and only where it may."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.dqn import DQN
from rl_interp.agents.impala.agent import IMPALA
from rl_interp.core.agent import Agent, PolicyOutput
from rl_interp.saliency import (
    GREYDANUS,
    Advantage,
    Entities,
    LogProbability,
    Occlusion,
    Perturbation,
    PolicyChange,
    Scene,
    Value,
)  # fmt: skip
from rl_interp.saliency.local import answers, is_local, outputs_near
from rl_interp.saliency.local.changed import _pair
from rl_interp.saliency.local.regions import Filters, Regions
from rl_interp.saliency.methods import perturbation


@pytest.fixture
def dqn() -> DQN:
    torch.manual_seed(0)
    return DQN(3, (4, 44, 52)).eval()


@pytest.fixture
def screen() -> Tensor:
    return torch.randint(0, 256, (1, 4, 44, 52), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@torch.no_grad()
def greydanus(agent: DQN, obs: Tensor) -> np.ndarray:
    """Greydanus et al. 2018, eq. 1-2, mask by mask in float64."""
    agent, image = agent.double(), obs[0].double().numpy()
    blurred = np.stack([gaussian_filter(plane, 3.0, mode="mirror", truncate=4.0) for plane in image])

    def q_values(pixels: np.ndarray) -> np.ndarray:
        return agent.step(torch.from_numpy(pixels[None])).preferences[0].numpy()

    before, (height, width) = q_values(image), image.shape[1:]
    ys, xs = np.mgrid[:height, :width]
    scores = np.zeros((len(range(0, height, 5)), len(range(0, width, 5))))
    for i, y in enumerate(range(0, height, 5)):
        for j, x in enumerate(range(0, width, 5)):
            mask = np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * 5.0**2))
            mask *= (abs(ys - y) <= 20) & (abs(xs - x) <= 20)
            after = q_values(image * (1 - mask) + blurred * mask)
            scores[i, j] = 0.5 * ((after - before) ** 2).sum()
    agent.float()
    return scores


def test_greydanus_scores_are_within_1e5_of_their_peak_of_float64_ones(dqn, screen):
    ours = GREYDANUS.scores(dqn, screen, PolicyChange())[0].numpy()
    wanted = greydanus(dqn, screen)
    assert np.abs(ours - wanted).max() <= 1e-5 * wanted.max()


def whole(method, agent: Agent, obs: Tensor, target, monkeypatch, state=None) -> np.ndarray:
    """The map by whole pictures, in float64."""
    with monkeypatch.context() as patch:
        patch.setattr(perturbation, "is_local", lambda agent: False)
        state = None if state is None else tuple(leaf.double() for leaf in state)
        found = method(agent.double(), obs.double(), target, state)
    agent.float()
    return found


AGENTS = {
    "Nature CNN": lambda: DQN(3, (4, 44, 52)),
    "ResNet": lambda: IMPALA(3, (4, 44, 52), channels=(16, 24), hidden=32, lstm=0),
    "ResNet of cells": lambda: IMPALA(3, (4, 44, 52), channels=(16,), hidden=32, lstm=0, cell=(4, 2)),
    "ResNet and LSTM": lambda: IMPALA(3, (4, 44, 52), channels=(5,), hidden=32, lstm=16),
}


@pytest.mark.parametrize(
    "method", [Perturbation(), Perturbation(1.5, 7), Occlusion()], ids=["wide", "narrow", "squares"]
)
@pytest.mark.parametrize("name", AGENTS)
def test_maps_are_those_of_whole_pictures(name, method, screen, monkeypatch):
    torch.manual_seed(3)
    agent = AGENTS[name]().eval()
    for parameter in agent.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    state = tuple(torch.randn_like(leaf) for leaf in agent.initial_state(1))
    for target in (Advantage(), Value()) if name == "Nature CNN" else (LogProbability(),):
        ours, wanted = method(agent, screen, target, state), whole(method, agent, screen, target, monkeypatch, state)
        # In float32 some of a deep network's gates are elsewhere; an LSTM is asked for whole vectors, as always.
        digits, rounding = 1e-5 if name == "Nature CNN" else 1e-4, 5e-7 if "LSTM" in name else 0
        assert np.abs(ours - wanted).max() <= digits * np.abs(wanted).max() + rounding


@torch.no_grad()
@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 3), 1, 1), ((4, 2), (2, 3), 0), ((5, 5), 2, (0, 2))])
def test_a_change_reaches_what_the_convolution_says(kernel, stride, padding):
    torch.manual_seed(4)
    weight = torch.randn(20, 7, *kernel)
    boxes = np.array([[0, 4, 0, 5], [3, 9, 0, 5], [2, 3, 6, 11], [8, 9, 10, 11], [0, 0, 0, 0], [0, 9, 0, 11]])
    change = Regions.empty(boxes, 16)
    change.values[:] = 0
    layers = torch.zeros(len(boxes), 7, 9, 11)
    for n, (top, bottom, left, right) in enumerate(boxes):
        layers[n, :, top:bottom, left:right] = torch.randn(7, bottom - top, right - left)
        box = change.values[change.starts[n] : change.starts[n + 1]].reshape(bottom - top, right - left, 16)
        box[..., :7] = layers[n, :, top:bottom, left:right].permute(1, 2, 0).numpy()
    wanted = F.conv2d(layers, weight, None, stride, padding)
    geometry = (*kernel, *_pair(stride), *_pair(padding))
    found = change.convolved(Filters(weight, (20, 7, *kernel)), geometry, (wanted.shape[2], wanted.shape[3]))
    torch.testing.assert_close(found.added_to(torch.zeros_like(wanted[:1])), wanted, atol=1e-5, rtol=1e-5)


def test_weights_changed_in_any_way_are_packed_again(dqn, screen, monkeypatch):
    method = Perturbation()
    method(dqn, screen, Advantage())
    dqn.conv2.weight.data.neg_()
    wanted = whole(method, dqn, screen, Advantage(), monkeypatch)
    assert np.abs(method(dqn, screen, Advantage()) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_watched_agent_sees_whole_pictures(dqn, screen):
    seen = []
    handle = dqn.conv1.register_forward_hook(lambda module, args, out: seen.append(type(out)))
    assert not is_local(dqn)
    Perturbation()(dqn, screen, Advantage())
    handle.remove()
    assert set(seen) == {Tensor}
    assert is_local(dqn)


class Odd(Agent):
    """Does to pictures, or to what a convolution makes of them, what local perturbation has no rule for."""

    def __init__(self, at_pictures: bool):
        super().__init__()
        self.at_pictures, self.conv, self.head = at_pictures, nn.Conv2d(4, 8, 5, 3), nn.LazyLinear(3)

    def step(self, obs, state=(), first=None):
        x = obs.to(self.conv.weight.dtype) / 255
        x = self.conv(x.flip(3) if self.at_pictures else x)
        return PolicyOutput(logits=self.head(x.softmax(1).flatten(1)))


@pytest.mark.parametrize("at_pictures", [True, False])
def test_what_has_no_rule_is_done_to_whole_tensors(at_pictures, screen, monkeypatch):
    torch.manual_seed(5)
    agent = Odd(at_pictures).eval()
    agent.step(screen)
    images = screen.float()
    profile = Perturbation()._profiles
    local = answers(agent, images, torch.zeros_like(images), profile(44), profile(52))
    assert (local is None) == at_pictures
    wanted = whole(Perturbation(), agent, screen, Advantage(), monkeypatch)
    assert np.abs(Perturbation()(agent, screen, Advantage()) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def near(screen: Tensor) -> Tensor:
    """Pictures that each differ from a screen in a small place, the last in none."""
    images = screen.repeat(5, 1, 1, 1)
    for i, (y, x) in enumerate([(0, 0), (20, 30), (43, 51), (41, 2)]):
        images[i, :, y : y + 3, x : x + 2] += 100
    return images


@pytest.mark.parametrize("name", AGENTS)
def test_pictures_that_differ_in_small_places_are_answered_as_whole_ones(name, screen):
    torch.manual_seed(6)
    agent, images = AGENTS[name]().eval(), near(screen)
    state = tuple(torch.randn_like(leaf) for leaf in agent.initial_state(5))
    found, wanted = outputs_near(agent, images, screen, state), agent.step(images, state)
    for ours, whole in ((found.preferences, wanted.preferences), (found.state_value, wanted.state_value)):
        changes = (whole - whole[-1]).detach()
        torch.testing.assert_close(ours - whole[-1], changes, rtol=0, atol=2e-3 * float(changes.abs().max()))


def test_an_agent_that_takes_floats_for_others_than_bytes_is_asked_for_whole_pictures(screen):
    class Scales(Odd):
        def step(self, obs, state=(), first=None):
            return super().step(obs if obs.dtype == torch.uint8 else obs * 2)

    agent = Scales(False).eval()
    agent.step(screen)
    assert outputs_near(agent, near(screen), screen) is None
    assert outputs_near(Odd(True).eval(), near(screen), screen) is not None


@pytest.mark.parametrize("name", AGENTS)
def test_things_that_are_exchanged_are_answered_as_in_whole_pictures(name, screen, monkeypatch):
    torch.manual_seed(7)
    agent, rng = AGENTS[name]().eval(), np.random.default_rng(0)

    def scene(obs: np.ndarray) -> Scene:
        masks = {each: np.zeros(obs.shape, bool) for each in "abcdef"}
        for mask in masks.values():  # some of which overlap
            top, left = rng.integers(0, 30, 2)
            mask[:, top : top + 14, left : left + 20] = True
        return Scene(obs, masks)

    entities = Entities([scene(screen[0].numpy())], [scene(255 - screen[0].numpy())])
    state = tuple(torch.randn_like(leaf) for leaf in agent.initial_state(1))
    (ours,) = entities.values(agent, screen, Value(), state)
    monkeypatch.setattr(perturbation, "is_local", lambda agent: False)
    (wanted,) = entities.values(agent, screen, Value(), state)
    wanted = {each: estimate.value for each, estimate in wanted.items()}
    largest = max(map(abs, wanted.values()))
    assert {each: estimate.value for each, estimate in ours.items()} == pytest.approx(wanted, abs=1e-3 * largest)
