"""What maps are of: each target is what its name says, and an action that is ruled out or continuous is no reason
for another map."""

import numpy as np
import pytest
import torch
from map_agents import ANY, OneSpot
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import assert_unhooked
from rl_interp.saliency import (
    Advantage,
    Chosen,
    Feature,
    Gradient,
    IntegratedGradients,
    PolicyChange,
    Preference,
    Value,
    default_target,
    parse_target,
    saliency_map,
)


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


def test_a_dimension_of_continuous_actions_is_mapped_and_how_far_they_go_their_way():
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
    # At (1, 10, 100) the action is (-19, 300), of which each input has a part.
    whole = np.array([-19.0, 300.0])
    drops = [part @ whole / np.hypot(*whole) for part in np.array([[1.0, 0.0], [-20.0, 0.0], [0.0, 300.0]])]
    for name in (default_target(continuous=True), "advantage"):
        found = saliency_map(Steering(), obs, parse_target(name, ["wheel", "gas"]), "perturbation")
        np.testing.assert_allclose(found, [drops], atol=1e-4)
    assert default_target(continuous=False) == "advantage"
