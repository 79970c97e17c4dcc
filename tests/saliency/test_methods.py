"""Each method of `METHODS` against another implementation, a closed form, or what its paper says it must give."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import LayerGradCam
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.saliency import (
    LRP,
    RISE,
    SARFA,
    Chosen,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputGradient,
    IntegratedGradients,
    LogProbability,
    Occlusion,
    Preference,
    SmoothGrad,
    Value,
    parse_target,
)

SIZE = 16


class Net(Agent):
    """A small ReLU network of logits and a value; its ReLUs are modules, or calls of a function."""

    hook_points = {"conv": HookPoint("conv", "B C H W", "spatial"), "fc": HookPoint("fc", "B D")}

    def __init__(self, functional: bool = False, smooth: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.policy = nn.Conv2d(2, 4, 4, stride=2), nn.Linear(4 * 49, 12), nn.Linear(12, 3)
        self.act1, self.act2 = (nn.SiLU() if smooth else nn.ReLU() for _ in range(2))
        self.functional = functional
        self.double()

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        relu1, relu2 = (F.relu, torch.relu) if self.functional else (self.act1, self.act2)
        x = relu1(self.conv(obs.double() / 255)).flatten(1)
        logits = self.policy(relu2(self.fc(x)))
        return PolicyOutput(logits=logits, value=logits.sum(-1))


@pytest.fixture
def obs() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 2, SIZE, SIZE), np.uint8))


def test_input_times_gradient_is_all_of_a_linear_function(obs):
    class Linear(Net):
        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return PolicyOutput(q_values=(obs.double() * weights).flatten(2).sum(2))

    weights = torch.randn(2, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = InputGradient()(Linear(), obs, Preference(1))
    np.testing.assert_allclose(found, obs[:, 1] * weights[1], rtol=1e-6)


def test_smoothgrad_without_noise_is_the_gradient_and_with_noise_its_mean_over_what_is_near(obs):
    plain = Gradient()(Net(), obs, Value())
    np.testing.assert_allclose(SmoothGrad(2, noise=0.0)(Net(), obs, Value()), plain, rtol=1e-6)
    near = SmoothGrad(64)(Net(), obs, Value())
    again = SmoothGrad(64)(Net(), obs, Value())
    np.testing.assert_array_equal(near, again)
    assert 0.3 < np.corrcoef(near.ravel(), plain.ravel())[0, 1] < 0.999


def guided_by_hand(net: Net, obs: Tensor) -> np.ndarray:
    """The chain rule written out, with both ReLUs guided."""
    pre1 = net.conv(obs.double() / 255)
    pre2 = net.fc(pre1.relu().flatten(1))
    up = (net.policy.weight.sum(0).clamp(min=0) * (pre2 > 0)) @ net.fc.weight
    up = up.reshape(pre1.shape).clamp(min=0) * (pre1 > 0)
    return (F.conv_transpose2d(up, net.conv.weight, stride=2) / 255).abs().sum(1).detach().numpy()


@pytest.mark.parametrize("functional", [False, True])
def test_guided_backprop_guides_relus_that_are_modules_and_those_that_are_functions(functional, obs):
    net = Net(functional)
    found = GuidedBackprop()(net, obs, Value())
    np.testing.assert_allclose(found, guided_by_hand(net, obs), rtol=1e-5)
    assert not np.allclose(found, Gradient()(net, obs, Value()))


def test_guided_backprop_of_a_network_without_relus_is_refused(obs):
    with pytest.raises(UserError, match="no ReLU, so that guided .* would be the plain gradient; use gradient"):
        GuidedBackprop()(Net(smooth=True), obs, Value())


def test_grad_cam_is_captums_where_a_layer_is_called_once(obs):
    net = Net()
    layer = LayerGradCam(lambda x: net.step(x).value, net.conv)
    theirs = layer.attribute(obs.double().requires_grad_(), relu_attributions=True)
    theirs = F.interpolate(theirs, (SIZE, SIZE), mode="bilinear")[:, 0].detach().numpy()
    np.testing.assert_allclose(GradCAM()(net, obs, Value()), theirs, atol=1e-6)
    with pytest.raises(UserError, match="'fc' has no positions; Grad-CAM needs a spatial hook point"):
        GradCAM("fc")(net, obs, Value())


def test_occlusion_is_captums(obs):
    net = Net()
    theirs = CaptumOcclusion(lambda x: net.step(x).value).attribute(
        obs.double(), sliding_window_shapes=(2, 4, 4), strides=(2, 2, 2), baselines=0
    )
    assert theirs.shape == obs.shape
    np.testing.assert_allclose(Occlusion(4)(net, obs, Value()), theirs[:, 0], atol=1e-6)


def test_rise_finds_the_slopes_of_a_linear_function(obs):
    class Corner(Net):
        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return PolicyOutput(q_values=obs.double()[:, :, :4, :4].sum((2, 3)))

    bright = torch.full_like(obs, 10)
    found = RISE(masks=4000, cells=4)(Corner(), bright, Preference(0))
    assert found[:, :3, :3].min() > 5 * np.abs(found[:, 9:, 9:]).max()


def sarfa_by_hand(before: np.ndarray, after: np.ndarray, action: int) -> float:
    """Puri et al. 2020, eq. 2-4."""
    p, now = (np.exp(q) / np.exp(q).sum() for q in (before, after))
    rest, others = (np.delete(each, action) / np.delete(each, action).sum() for each in (p, now))
    keeps, fall = 1 / (1 + (others * np.log(others / rest)).sum()), p[action] - now[action]
    return 2 * keeps * fall / (keeps + fall) if fall > 0 else 0.0


def test_sarfa_is_its_equations(obs):
    net, masks = Net(), SARFA().regions.masks(SIZE, SIZE).double()
    found = SARFA()(net, obs, Chosen())
    image, blurred = obs[:1].double(), SARFA().regions.blur(obs[:1].double())
    before = net.step(image).logits[0].detach().numpy()
    for mask, (y, x) in zip(masks, np.ndindex(4, 4), strict=True):
        after = net.step(image + mask * (blurred - image)).logits[0].detach().numpy()
        assert found[0, 5 * y, 5 * x] == pytest.approx(sarfa_by_hand(before, after, before.argmax()), abs=1e-6)
    with pytest.raises(UserError, match="value is to be explained, and SARFA explains an action"):
        SARFA()(net, obs, Value())


def test_a_log_probability_is_one_of_the_policy(obs):
    out = Net().step(obs)
    log_p = out.logits.log_softmax(-1)
    torch.testing.assert_close(LogProbability().prepare(out)(out, None), log_p.max(-1).values)
    torch.testing.assert_close(parse_target("logp:B", ["A", "B", "C"]).prepare(out)(out, None), log_p[:, 1])
    with pytest.raises(UserError, match="no policy's logits; use chosen or advantage"):
        LogProbability().prepare(PolicyOutput(q_values=out.logits))


class TestLRP:
    """With Zennit, where it is installed."""

    @pytest.fixture(autouse=True)
    def _zennit(self):
        pytest.importorskip("zennit", exc_type=ImportError)

    def test_relevance_sums_to_the_target_without_biases(self, obs):
        net = Net()
        values = net.step(obs).logits[:, 1].detach().numpy()
        np.testing.assert_allclose(LRP()(net, obs, Preference(1)).sum((1, 2)), values, rtol=1e-3)

    def test_layers_without_a_rule_are_named(self, obs):
        net = Net()
        net.memory = nn.LSTM(2, 2)
        with pytest.raises(UserError, match="the agent's memory is a LSTM; use integrated-gradients"):
            LRP()(net, obs, Value())


def test_integrated_gradients_are_captums(obs):
    net = Net()
    target = parse_target("q:B", ["A", "B", "C"])
    ours = IntegratedGradients(tolerance=1e9).attributions(net, obs, target)
    captum = CaptumIntegratedGradients(lambda x: net.step(x).preferences[:, 1])
    pixels = obs.to(ours.dtype)
    wanted = torch.cat([captum.attribute(each[None], n_steps=32) for each in pixels])
    torch.testing.assert_close(ours, wanted.detach().to(ours.dtype))
