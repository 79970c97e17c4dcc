"""Saliency maps against their definitions, SciPy's filters, finite differences and a planted truth."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import assert_unhooked
from saliency import (
    METHODS,
    Advantage,
    Chosen,
    Feature,
    Gradient,
    IntegratedGradients,
    Perturbation,
    Preference,
    Value,
    parse_target,
    randomisation_check,
    randomised,
    saliency_map,
)

SIZE = 40


class Seer(Agent):
    """A small convolutional Q-network on `[B, 2, 40, 40]`, in float64 so that differences are exact."""

    hook_points = {"hidden": HookPoint("hidden", "B D")}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 8, stride=4)
        self.hidden = nn.Linear(4 * 81, 16)
        self.q = nn.Linear(16, 3)
        self.double()

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        x = torch.tanh(self.conv(obs.to(self.q.weight.dtype) / 255)).flatten(1)
        return PolicyOutput(q_values=self.q(torch.tanh(self.hidden(x))))


class OneSpot(Agent):
    """Its first Q-value is the brightness around one pixel, and nothing else."""

    hook_points: dict[str, HookPoint] = {}

    def __init__(self, y: int, x: int):
        super().__init__()
        self.y, self.x = y, x
        self.unused = nn.Parameter(torch.zeros(1))

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        spot = obs.float()[:, :, self.y - 1 : self.y + 2, self.x - 1 : self.x + 2].mean((1, 2, 3))
        return PolicyOutput(q_values=torch.stack([spot, torch.zeros_like(spot)], 1))


@pytest.fixture
def agent() -> Seer:
    return Seer()


@pytest.fixture
def obs() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 2, SIZE, SIZE), np.uint8))


def score(agent: Agent, image: np.ndarray, chosen: int) -> float:
    q = agent.step(torch.from_numpy(image[None])).q_values[0].detach()
    return float(q[chosen] - q.mean())


def test_perturbation_scores_are_those_of_the_written_out_loop(agent, obs):
    settings = Perturbation(sigma=3, stride=8)
    ours = settings.scores(agent, obs, Advantage())
    assert ours.shape == (3, 5, 5)
    ys, xs = np.mgrid[:SIZE, :SIZE]
    for b in range(3):
        image = obs[b].numpy().astype(np.float64)
        blurred = np.stack([gaussian_filter(plane, 3, mode="mirror", truncate=4) for plane in image])
        chosen = int(agent.step(obs[b : b + 1]).q_values.argmax())
        for i in range(5):
            for j in range(5):
                mask = np.exp(-0.5 * ((ys - 8 * i) ** 2 + (xs - 8 * j) ** 2) / 9)
                mask[(abs(ys - 8 * i) > 12) | (abs(xs - 8 * j) > 12)] = 0
                drop = score(agent, image, chosen) - score(agent, image * (1 - mask) + blurred * mask, chosen)
                assert ours[b, i, j].item() == pytest.approx(drop, abs=2e-6)


def test_84_by_84_pixels_get_17_by_17_masks():
    assert Perturbation().grid(84, 84) == (17, 17)
    assert Perturbation().masks(84, 84).shape == (289, 84, 84)


def test_between_the_masks_a_map_is_bilinear(agent, obs):
    settings = Perturbation(stride=5)
    scores, drawn = settings.scores(agent, obs, Value()).numpy(), settings(agent, obs, Value())
    np.testing.assert_allclose(drawn[:, ::5, ::5], scores, atol=1e-6)
    np.testing.assert_allclose(drawn[:, 2, 5], 0.6 * scores[:, 0, 1] + 0.4 * scores[:, 1, 1], atol=1e-6)
    np.testing.assert_allclose(drawn[:, 39, 39], scores[:, -1, -1], atol=1e-6)


@pytest.mark.parametrize("method", ["perturbation", "gradient", "integrated-gradients"])
def test_every_method_finds_the_only_spot_that_matters(method):
    agent = OneSpot(20, 30)
    obs = torch.zeros(1, 2, SIZE, SIZE, dtype=torch.uint8)
    obs[:, :, 19:22, 29:32] = 255
    found = np.abs(saliency_map(agent, obs, Preference(0), method)[0])
    assert np.hypot(*(np.array(np.unravel_index(found.argmax(), found.shape)) - [20, 30])) <= 2
    assert found[:10].max() < 0.2 * found.max()


def test_gradients_agree_with_finite_differences(agent, obs):
    gradient = Gradient().attributions(agent, obs, Preference(1))
    rng = np.random.default_rng(1)
    for b, c, y, x in zip(*(rng.integers(n, size=10) for n in obs.shape), strict=True):
        step = torch.zeros(obs.shape, dtype=torch.float64)
        step[b, c, y, x] = 1e-3
        up, down = (agent.step(obs + sign * step).q_values[b, 1] for sign in (1, -1))
        assert gradient[b, c, y, x].item() == pytest.approx(((up - down) / 2e-3).item(), abs=1e-9)


@pytest.mark.parametrize("target", [Advantage(), Value(), Preference(2)], ids=lambda target: target.name)
def test_integrated_gradients_sum_to_the_difference_from_the_baseline(agent, obs, target):
    parts = IntegratedGradients(steps=400).attributions(agent, obs, target).sum((1, 2, 3))
    prepared = target.prepare(agent.step(obs))
    whole = prepared(agent.step(obs), None) - prepared(agent.step(torch.zeros_like(obs)), None)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)


def test_targets_are_what_their_names_say(agent, obs):
    out = agent.step(obs)
    q = out.q_values
    best = q.argmax(1)
    rows = torch.arange(3)
    torch.testing.assert_close(Chosen().prepare(out)(out, None), q[rows, best])
    torch.testing.assert_close(Advantage().prepare(out)(out, None), q[rows, best] - q.mean(1))
    torch.testing.assert_close(Value().prepare(out)(out, None), q.max(1).values)
    other = agent.step(255 - obs)
    torch.testing.assert_close(Chosen().prepare(out)(other, None), other.q_values[rows, best])
    assert parse_target("q:UP", ["NOOP", "UP"]) == Preference(1, "UP")
    with pytest.raises(UserError, match="unknown action 'UPP'.*Did you mean 'UP'"):
        parse_target("q:UPP", ["NOOP", "UP"])


def test_a_feature_is_a_target_through_its_hook_point(agent, obs):
    weights = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = Feature("hidden", lambda hidden: hidden @ weights, 3)
    gradient = Gradient().attributions(agent, obs, target)
    pixels = obs.double().requires_grad_()
    x = torch.tanh(agent.conv(pixels / 255)).flatten(1)
    (agent.hidden(x) @ weights)[:, 3].sum().backward()
    torch.testing.assert_close(gradient, pixels.grad)
    assert_unhooked(agent)


def test_a_map_of_a_shuffled_network_is_another_map(agent, obs):
    control = randomised(agent)
    for mine, shuffled in zip(agent.parameters(), control.parameters(), strict=True):
        assert torch.equal(mine.flatten().sort().values, shuffled.flatten().sort().values)
        assert len(mine) < 4 or not torch.equal(mine, shuffled)
    assert (np.abs(randomisation_check(agent, obs, Advantage(), "gradient")) < 0.5).all()


def test_what_cannot_be_mapped_is_refused(agent, obs):
    with pytest.raises(UserError, match="unknown saliency method 'lime'; known: perturbation, gradient"):
        saliency_map(agent, obs, Value(), "lime")
    with pytest.raises(UserError, match=r"saliency maps need images, a tensor \[B, C, H, W\]"):
        saliency_map(agent, torch.zeros(1, 5), Value())
    with pytest.raises(UserError, match="sigma=0, stride=5 given; both must be positive"):
        Perturbation(sigma=0)


class ByDtype(Agent):
    """Scales bytes, and takes floats for scaled already, unless `properly`."""

    hook_points: dict[str, HookPoint] = {}

    def __init__(self, properly: bool):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.properly = nn.Linear(2 * SIZE * SIZE, 3), properly

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        scaled = obs.float() / 255 if self.properly or obs.dtype == torch.uint8 else obs
        return PolicyOutput(q_values=self.layer(scaled.view(len(obs), -1)))


@pytest.mark.parametrize("method", METHODS)
def test_no_method_feeds_an_agent_observations_that_it_takes_for_others(method, obs):
    assert np.isfinite(saliency_map(ByDtype(properly=True), obs, Advantage(), method)).all()
    with pytest.raises(UserError, match="decides otherwise on the observations as float32s.*scale .* by a constant"):
        saliency_map(ByDtype(properly=False), obs, Advantage(), method)


@pytest.mark.parametrize("method", METHODS)
def test_an_agent_whose_numbers_are_not_finite_gets_no_map(method, agent, obs):
    with torch.no_grad():
        agent.q.bias[1] = torch.nan
    with pytest.raises(UserError, match="the agent's preferences are NaN or infinite"):
        saliency_map(agent, obs, Preference(0), method)
    with torch.no_grad():
        agent.q.bias[1] = 0
    with pytest.raises(UserError, match="the maps of feature 0 are NaN or infinite"):
        saliency_map(agent, obs, Feature("hidden", lambda x: x / 0, 0), method)


def test_observations_that_are_not_channels_first_images_are_refused(agent, obs):
    with pytest.raises(UserError, match=r"look like \[B, H, W, C\]; give the agent \[B, C, H, W\]"):
        saliency_map(agent, obs.permute(0, 2, 3, 1), Value())
    for bad in (obs[:0], obs.numpy()):
        with pytest.raises(UserError, match=r"saliency maps need images, a tensor \[B, C, H, W\]"):
            saliency_map(agent, bad, Value())


def test_an_agent_that_no_gradient_passes_is_refused_in_a_sentence(obs):
    class Rounding(OneSpot):
        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return super().step(obs.byte(), state, first)

    for method in ("gradient", "integrated-gradients"):
        with pytest.raises(UserError, match="value has no gradient with respect to the observations"):
            saliency_map(Rounding(20, 30), obs, Value(), method)
