"""Saliency maps against their definitions, SciPy's filters, finite differences and a planted truth."""

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import assert_unhooked
from rl_interp.saliency import (
    GREYDANUS,
    METHODS,
    Ablation,
    Advantage,
    Chosen,
    Feature,
    Gradient,
    IntegratedGradients,
    Perturbation,
    PolicyChange,
    Preference,
    Value,
    ValueChange,
    parse_target,
    randomisation_check,
    randomised,
    saliency_map,
)

SIZE = 40
NEEDY = ("guided-backprop", "grad-cam", "lrp")
"""Methods that need a certain kind of network."""
ANY = [method for method in METHODS if method not in NEEDY]


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


@pytest.mark.parametrize("method", [method for method in ANY if method != "sarfa"])
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


class Bends(OneSpot):
    """A Q-value that bends every few grey levels on the way to black."""

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        bright = super().step(obs, state, first).q_values[:, :1]
        bent = (bright - torch.arange(3, 256, 7)).relu().sum(1, True)
        return PolicyOutput(q_values=torch.cat([bent, bright], 1))


class Jumps(OneSpot):
    """A Q-value that jumps: no gradient sees it."""

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        out = super().step(obs, state, first)
        return PolicyOutput(q_values=out.q_values + 100 * (out.q_values > 50))


@pytest.mark.parametrize("tolerance", [0.05, 0.005])
@pytest.mark.parametrize("target", [Advantage(), Value(), Preference(0)], ids=lambda target: target.name)
def test_integrated_gradients_sum_to_the_difference_from_the_baseline(agent, obs, target, tolerance):
    for each in (agent, Bends(20, 30)):
        found = IntegratedGradients(tolerance=tolerance).integrate(each, obs, target)
        prepared = target.prepare(each.step(obs))
        with torch.no_grad():
            whole = prepared(each.step(obs), None) - prepared(each.step(torch.zeros_like(obs)), None)
        torch.testing.assert_close(found.difference, whole)
        torch.testing.assert_close(found.attributions.sum((1, 2, 3)) - found.gap, whole)
        assert (found.gap.abs() <= tolerance * whole.abs()).all()


def test_integrated_gradients_warn_where_they_do_not_sum_up(obs):
    bright = torch.full_like(obs[:1], 200)
    with pytest.warns(UserWarning, match="action 0 miss the difference .* by up to 33% after 64 points"):
        IntegratedGradients(steps=64)(Jumps(20, 30), bright, Preference(0))


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


def test_a_unit_is_named_with_its_hook_point(agent, obs):
    named = parse_target("unit:hidden:5", ())
    np.testing.assert_array_equal(
        saliency_map(agent, obs, named), saliency_map(agent, obs, Feature("hidden", lambda values: values, 5))
    )
    for text in ("unit:5", "unit:hidden:x", "unit:hidden:"):
        with pytest.raises(UserError, match="a unit is named as unit:HOOK:N"):
            parse_target(text, ())


def test_a_method_needs_nothing_but_its_name_in_the_table(agent, obs, monkeypatch):
    monkeypatch.setitem(METHODS, "mean", lambda agent, obs, target, state=None: obs.float().mean(1).numpy())
    np.testing.assert_array_equal(saliency_map(agent, obs, Value(), "mean"), obs.float().mean(1))
    assert randomisation_check(agent, obs, Value(), "mean") == pytest.approx(1), "it looks at the picture alone"
    monkeypatch.setitem(METHODS, "broken", lambda agent, obs, target, state=None: np.full((3, SIZE, SIZE), np.nan))
    with pytest.raises(UserError, match="the maps of value are NaN or infinite"):
        saliency_map(agent, obs, Value(), "broken")


def test_methods_with_gradients_refuse_symbols_whoever_calls_them(agent, obs):
    agent.observation = "symbols"
    for method in (Gradient(), IntegratedGradients()):
        with pytest.raises(UserError, match="symbols given, which have no gradient; use perturbation"):
            method(agent, obs, Value())


def test_a_map_of_a_shuffled_network_is_another_map(agent, obs):
    control = randomised(agent)
    for mine, shuffled in zip(agent.parameters(), control.parameters(), strict=True):
        assert torch.equal(mine.flatten().sort().values, shuffled.flatten().sort().values)
        assert len(mine) < 4 or not torch.equal(mine, shuffled)
    assert (np.abs(randomisation_check(agent, obs, Advantage(), "gradient")) < 0.5).all()


def test_what_cannot_be_mapped_is_refused(agent, obs):
    with pytest.raises(UserError, match="unknown saliency method 'lime'; known: perturbation, greydanus, sarfa"):
        saliency_map(agent, obs, Value(), "lime")
    with pytest.raises(UserError, match=r"saliency maps need a tensor, images \[B, C, H, W\] or vectors"):
        saliency_map(agent, torch.zeros(1, 5, 5), Value())
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


@pytest.mark.parametrize("method", ANY)
def test_no_method_feeds_an_agent_observations_that_it_takes_for_others(method, obs):
    assert np.isfinite(saliency_map(ByDtype(properly=True), obs, Advantage(), method)).all()
    with pytest.raises(UserError, match="decides differently on observations as float32s.*scale .* by a constant"):
        saliency_map(ByDtype(properly=False), obs, Advantage(), method)


@pytest.mark.parametrize("method", ANY)
def test_an_agent_whose_numbers_are_not_finite_gets_no_map(method, agent, obs):
    with torch.no_grad():
        agent.q.bias[1] = torch.nan
    with pytest.raises(UserError, match="the agent's preferences are NaN or infinite"):
        saliency_map(agent, obs, Preference(0), method)
    with torch.no_grad():
        agent.q.bias[1] = 0
    if method == "sarfa":  # which explains actions alone
        return
    with pytest.raises(UserError, match="the maps of feature 0 are NaN or infinite"):
        saliency_map(agent, obs, Feature("hidden", lambda x: x / 0, 0), method)


class RulesOut(Agent):
    """Another agent, with one more action that is never possible."""

    hook_points: dict[str, HookPoint] = {}

    def __init__(self, agent: Agent):
        super().__init__()
        self.agent = agent

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        q = self.agent.step(obs, state, first).q_values
        return PolicyOutput(q_values=torch.cat([torch.full_like(q[:, :1], -torch.inf), q], 1))


@pytest.mark.parametrize(
    ("method", "target"),
    [(method, Advantage()) for method in ANY]
    + [(method, PolicyChange()) for method in ("perturbation", "occlusion", "integrated-gradients")],
    ids=str,
)
def test_an_action_that_is_ruled_out_is_left_out_of_what_is_mapped(method, target, agent, obs):
    plain, masked = (saliency_map(each, obs[:1], target, method) for each in (agent, RulesOut(agent)))
    assert np.ptp(plain) > 0
    np.testing.assert_allclose(masked, plain, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("method", ANY)
def test_an_action_that_is_ruled_out_has_no_map_itself(method, agent, obs):
    with pytest.raises(UserError, match="the maps of action 0 are NaN or infinite"):
        saliency_map(RulesOut(agent), obs[:1], Preference(0), method)


def test_integrated_gradients_from_where_an_action_is_ruled_out_are_refused(obs):
    class Dark(OneSpot):
        """Its first action is ruled out where nothing is lit, as in the baseline."""

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            q = super().step(obs, state, first).q_values
            dark = torch.stack([q[:, 0] == 0, torch.zeros(len(q), dtype=torch.bool)], 1)
            return PolicyOutput(q_values=q.masked_fill(dark, -torch.inf))

    with pytest.raises(UserError, match="the maps of action 0 are NaN or infinite"):
        IntegratedGradients().integrate(Dark(20, 30), obs[:1] | 1, Preference(0))


def test_integrated_gradients_warn_of_gaps_that_their_own_rule_does_not_allow_and_of_no_others(obs):
    class Level(OneSpot):
        """A large Q-value that is nearly the same everywhere."""

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            q = super().step(obs, state, first).q_values.double()
            return PolicyOutput(q_values=1000 + 1e-3 * (q > 50) + 0 * q)

    bright = torch.full_like(obs[:1], 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IntegratedGradients(steps=32)(Level(20, 30), bright, Preference(0))
    found = IntegratedGradients(steps=32).integrate(Level(20, 30), bright, Preference(0))
    assert 0 < found.gap.abs() <= found.allowed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ANY)
def test_observations_that_are_floats_keep_their_type(method, dtype, obs):
    class Plain(Agent):
        hook_points: dict[str, HookPoint] = {}

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.q = nn.Conv2d(2, 4, 8, stride=4), nn.Linear(4 * 81, 3)
            self.to(dtype)

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return PolicyOutput(q_values=self.q(torch.tanh(self.conv(obs)).flatten(1)))

    found = saliency_map(Plain(), (obs[:1] / 255).to(dtype), Preference(0), method)
    assert found.dtype == np.float32
    assert np.ptp(found) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_vectors_that_are_floats_are_ablated_in_their_type(dtype):
    agent, obs = Vectors(), torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    agent.to(dtype).step = lambda obs, state=(), first=None: PolicyOutput(q_values=agent.q(agent.hidden(obs).tanh()))
    for baseline in (0.1, torch.full((8,), 0.1, dtype=torch.float64)):
        assert Ablation(baseline)(agent, obs.to(dtype), Value()).shape == (2, 8)


class Looks(Agent):
    """Looks bytes up, as categories."""

    hook_points = {"head": HookPoint("head", "B D")}

    def __init__(self, indexes: bool):
        super().__init__()
        self.table, self.head, self.indexes = nn.Embedding(256, 1), nn.Linear(8, 3), indexes

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        obs = obs.int() if obs.dtype == torch.uint8 else obs
        looked = self.table.weight[obs] if self.indexes else self.table(obs)
        return PolicyOutput(logits=self.head(looked.flatten(1)))


@pytest.mark.parametrize("indexes", [False, True])
def test_an_agent_that_cannot_take_floats_is_told_what_the_contract_says(indexes):
    agent, obs = Looks(indexes), torch.arange(16, dtype=torch.uint8).view(2, 8)
    for method in ("gradient", "integrated-gradients"):
        for target in (Chosen(), Feature("head", lambda x: x, 0)):
            with pytest.raises(UserError, match='step takes bytes but not .* as floats .* observation="symbols"'):
                saliency_map(agent, obs, target, method)
    with pytest.raises(UserError, match="step takes bytes but not the same values as floats"):
        Ablation(0.5)(agent, obs, Chosen())
    agent.observation = "symbols"
    with pytest.raises(UserError, match=r"baseline 0.5 given for an agent that sees symbols; give a symbol's number"):
        Ablation(0.5)(agent, obs, Chosen())
    assert Ablation(3.0)(agent, obs, Chosen()).shape == (2, 8)


def test_a_narrow_grid_is_mapped_where_the_agent_takes_it():
    class Grid(Agent):
        hook_points: dict[str, HookPoint] = {}

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.q = nn.Conv2d(6, 4, 3), nn.Linear(4 * 6 * 2, 3)

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return PolicyOutput(q_values=self.q(self.conv(obs.float()).flatten(1)))

    grids = torch.randint(2, (2, 6, 8, 4), dtype=torch.uint8)
    with pytest.warns(UserWarning, match=r"if these are no narrow grids: .* look like \[B, H, W, C\]"):
        assert saliency_map(Grid(), grids, Value()).shape == (2, 8, 4)


def test_observations_that_are_not_channels_first_images_are_refused(agent, obs):
    with pytest.raises(UserError, match=r"look like \[B, H, W, C\]; give the agent \[B, C, H, W\]"):
        saliency_map(agent, obs.permute(0, 2, 3, 1), Value())
    for bad in (obs[:0], obs.numpy()):
        with pytest.raises(UserError, match=r"saliency maps need a tensor, images \[B, C, H, W\] or vectors"):
            saliency_map(agent, bad, Value())


def test_an_agent_that_no_gradient_passes_is_refused_in_a_sentence(obs):
    class Rounding(OneSpot):
        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return super().step(obs.byte(), state, first)

    for method in ("gradient", "integrated-gradients"):
        with pytest.raises(UserError, match="value has no gradient with respect to the observations"):
            saliency_map(Rounding(20, 30), obs, Value(), method)


def test_greydanus_is_as_published(agent, obs):
    """Against eq. 1 to 3 of arXiv 1711.00138, written out with SciPy."""
    image = obs[0].numpy().astype(np.float64)
    blurred = np.stack([gaussian_filter(plane, 3, mode="mirror") for plane in image])  # A(I, sigma_A = 3)

    def policy_and_value(picture: np.ndarray) -> tuple[np.ndarray, float]:
        q = agent.step(torch.from_numpy(picture[None])).q_values[0].detach().numpy()
        return q, q.max()

    policy, value = policy_and_value(image)
    found = {target: GREYDANUS.scores(agent, obs[:1], target)[0] for target in (PolicyChange(), ValueChange())}
    for i, y in enumerate(range(0, SIZE, 5)):
        for j, x in enumerate(range(0, SIZE, 5)):
            spot = np.zeros((SIZE + 40, SIZE + 40))
            spot[y + 20, x + 20] = 1
            mask = gaussian_filter(spot, 5, mode="constant")[20:-20, 20:-20]  # M(i, j), sigma^2 = 25
            perturbed_policy, perturbed_value = policy_and_value(
                image * (1 - mask / mask.max()) + blurred * mask / mask.max()
            )
            wanted = 0.5 * ((policy - perturbed_policy) ** 2).sum(), 0.5 * (value - perturbed_value) ** 2
            for scores, score in zip(found.values(), wanted, strict=True):
                assert scores[i, j].item() == pytest.approx(score, rel=1e-3, abs=1e-7)
    assert (saliency_map(agent, obs, PolicyChange(), "greydanus") >= 0).all()
    with pytest.raises(UserError, match="policy change has no gradient at the observation"):
        saliency_map(agent, obs, PolicyChange(), "gradient")


class Vectors(Agent):
    """A smooth function of eight numbers."""

    hook_points = {"hidden": HookPoint("hidden", "B D")}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.q = nn.Linear(8, 16), nn.Linear(16, 3)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(q_values=self.q(torch.tanh(self.hidden(obs.float()))))


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


def test_bytes_are_ablated_as_bytes_where_the_baseline_is_one():
    class Memory(Vectors):
        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            assert obs.dtype == torch.uint8
            return super().step(obs)

    obs = torch.arange(16, dtype=torch.uint8).view(2, 8)
    assert Ablation(3.0)(Memory(), obs, Value()).shape == (2, 8)
    with pytest.raises(UserError, match=r"baseline \(3,\) given; give a number, or one of each of 8"):
        Ablation(torch.zeros(3))(Memory(), obs, Value())


def test_gradients_of_recurrent_layers_do_without_cudnn_which_has_none_in_evaluation_mode():
    class Recurrent(Vectors):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 8)

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            assert not torch.backends.cudnn.enabled
            return super().step(self.lstm(obs[None])[0][0])

    before = torch.backends.cudnn.enabled
    for method in ("gradient", "integrated-gradients"):
        assert np.ptp(saliency_map(Recurrent().train(), torch.randn(2, 8), Value(), method)) > 0
    assert torch.backends.cudnn.enabled == before


def test_a_dimension_of_continuous_actions_is_mapped_and_there_is_no_chosen_one():
    weights = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 3.0]])

    class Steering(Agent):
        preference_kind, observation = "mean", "vector"

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2, bias=False)
            self.layer.weight.data.copy_(weights)

        def step(self, obs, state=(), first=None):
            return PolicyOutput(mean=self.layer(obs))

    obs = torch.tensor([[1.0, 10.0, 100.0]])
    found = saliency_map(Steering(), obs, parse_target("q:gas", ["wheel", "gas"]), "perturbation")
    np.testing.assert_allclose(found, [[0, 0, 300]])
    wheel = saliency_map(Steering(), obs, parse_target("q:wheel", ["wheel", "gas"]), "gradient")
    np.testing.assert_allclose(wheel, [[1, 2, 0]])
    for target in (Chosen(), Advantage()):
        with pytest.raises(UserError, match=f"the {target.name} is to be explained, and the actions are continuous"):
            saliency_map(Steering(), obs, target, "perturbation")
