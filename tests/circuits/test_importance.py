"""Importance of units equals running the agent under hooks; optimal constants are the best there are."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from rl_interp.agents.dqn import DQN
from rl_interp.agents.dreamerv3 import default_config, make_agent
from rl_interp.agents.impala import IMPALA
from rl_interp.circuits.ablation import Ablations
from rl_interp.circuits.distance import Distance, advantage_error
from rl_interp.circuits.importance import attribution, importance
from rl_interp.circuits.optimal import OptimalConfig, fit
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import Mean
from rl_interp.core.wrap import wrap


def pictures(count: int = 3, memory: tuple = ()) -> States:
    torch.manual_seed(0)
    return States(torch.randint(256, (count, *SHAPE), dtype=torch.uint8), memory)


SHAPE = (3, 36, 40)


@pytest.fixture(scope="module")
def dqn() -> Agent:
    torch.manual_seed(0)
    agent = DQN(4, SHAPE, hidden=8).eval()
    agent.q.weight.data *= 10
    return agent


@pytest.fixture(scope="module")
def with_memory() -> Agent:
    torch.manual_seed(0)
    return IMPALA(4, SHAPE, channels=(3, 4), hidden=6, lstm=5).eval()


@pytest.fixture(scope="module")
def with_world_model() -> Agent:
    torch.manual_seed(0)
    return make_agent(default_config("MiniGrid-Empty-5x5-v0", size="debug", precision="fp32")).eval()


def hooked(agent: Agent, states: States, at: str, unit: int, new: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return run_with_hooks(
            agent, states.obs, states.memory or None, hooks={at: Mean(at, mean=new, units=[unit])}
        ).preferences


POINTS = {
    "dqn": ("conv1.pre", "conv1.post", "conv3.post", "fc.post", "q"),
    "with_memory": ("block1.res1.post", "block2.res2.sum", "fc.post", "lstm.f.pre", "lstm.i", "lstm.c", "lstm.h"),
    "with_world_model": ("encoder.h0.post", "deter", "rssm.update", "actor.h0.post"),
}


@pytest.mark.parametrize("which", POINTS)
def test_the_importance_of_every_unit_is_that_of_running_the_agent_under_a_hook(which, request):
    agent = request.getfixturevalue(which)
    if which == "with_world_model":
        states = States(torch.randint(4, (3, 3, 7, 7), dtype=torch.uint8), agent.initial_state(3))
    else:
        states = pictures(memory=() if which == "dqn" else (torch.randn(3, 5), torch.randn(3, 5)))
    for at in POINTS[which]:
        ablations = Ablations(agent, states, at)
        new = torch.rand_like(ablations.values[0])
        distance = Distance(0.7)
        found = importance(ablations, new, distance)
        assert len(found.kl) == ablations.units
        for unit in {0, ablations.units - 1}:
            wanted = hooked(agent, states, at, unit, new)
            own = ablations.preferences
            torch.testing.assert_close(found.kl[unit], distance(own, wanted).mean(), rtol=1e-3, atol=1e-9, msg=at)
            assert found.action_agreement[unit] == (own.argmax(1) == wanted.argmax(1)).double().mean()
            torch.testing.assert_close(found.advantage_error[unit], advantage_error(own, wanted), rtol=1e-3, atol=1e-9)


def test_a_layer_that_one_layer_reads_is_not_read_as_a_whole_again(dqn):
    states = pictures()
    shares = {at: Ablations(dqn, states, at).passes.arithmetic for at in ("conv1.post", "conv2.post", "fc.post")}
    whole = {at: Ablations(dqn, states, at).passes_of_layer.arithmetic for at in shares}
    assert shares["conv1.post"] < whole["conv1.post"] / 5
    assert shares["conv2.post"] < whole["conv2.post"] / 5
    assert shares["fc.post"] == 0
    assert 0 < whole["fc.post"] < whole["conv2.post"] < whole["conv1.post"] < 1


def test_a_layer_that_two_layers_read_is_computed_from_itself_on():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, obs):
            x = self.a(obs)
            return self.b(x) + self.c(x)

    agent, states = wrap(Forked(), {"a": ("a", "B D")}), States(torch.randn(6, 3))
    ablations, new = Ablations(agent, states, "a"), torch.ones(4)
    for unit in range(4):
        torch.testing.assert_close(
            ablations.without(torch.tensor([unit]), new)[0], hooked(agent, states, "a", unit, new)
        )


def test_attribution_is_exact_before_a_linear_head_and_adds_up_along_the_way(dqn):
    states, distance = pictures(), Distance(0.5)
    before_head = Ablations(dqn, states, "fc.post")
    new = torch.rand(8)
    torch.testing.assert_close(
        attribution(before_head, new, distance).kl, importance(before_head, new, distance).kl, rtol=1e-3, atol=1e-8
    )


def test_integrated_gradients_give_a_unit_alone_in_its_layer_all_that_the_layer_does():
    torch.manual_seed(0)
    agent = wrap(nn.Sequential(nn.Linear(3, 1), nn.Tanh(), nn.Linear(1, 4)), {"a": ("0", "B D")})
    ablations, new, distance = Ablations(agent, States(3 * torch.randn(20, 3)), "a"), torch.ones(1), Distance(0.1)
    wanted, along = importance(ablations, new, distance), attribution(ablations, new, distance, steps=200)
    torch.testing.assert_close(along.kl, wanted.kl, rtol=1e-3, atol=0)
    assert along.passes.count == 3 * 4 * 200 * 20
    at_once = attribution(ablations, new, distance)
    assert abs(at_once.kl / wanted.kl - 1) > 0.1  # far from linear


class Planted(nn.Module):
    """Two actions; their logits differ by the sum of f_i(x_i), so that of a unit the best constant is known."""

    def __init__(self, curve):
        super().__init__()
        self.layer, self.curve = nn.Identity(), curve

    def forward(self, obs):
        x = self.curve(self.layer(obs)).sum(-1)
        return torch.stack([x, torch.zeros_like(x)], -1)


@pytest.mark.parametrize("curve", [torch.nn.functional.softplus, torch.tanh, lambda x: 3 * x])
def test_optimal_constants_are_those_that_a_search_on_the_line_finds(curve):
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, 2.0, 0.3])
    x = torch.where(x > 0, 2 * x, x)  # skewed, so that the mean is not the best
    agent = wrap(Planted(curve), {"layer": ("layer", "B D")})
    ablations, distance = Ablations(agent, States(torch.cat([x, x])), "layer"), Distance()
    found = fit(ablations, distance, OptimalConfig(rate=0.03, batch=400, updates=300, held_out=0.5))
    for unit in range(3):

        def lost(constant: float, unit: int = unit) -> float:
            changed = ablations.without(torch.tensor([unit]), torch.full((3,), constant).double())
            return float(distance(ablations.preferences, changed[0]).mean())

        low, high = x[:, unit].min(), x[:, unit].max()
        best = minimize_scalar(lost, bounds=(float(low), float(high)), method="bounded")
        assert float(found.kl[unit]) <= best.fun * 1.01
        assert float(found.kl[unit]) < float(found.kl_of_mean[unit])


def test_constants_that_diverge_say_so_in_a_sentence(dqn):
    ablations = Ablations(dqn, pictures(16), "fc.post")
    with pytest.raises(UserError, match=r"the constants of 'fc.post' diverge: after \d+ steps of 10000 the mean"):
        fit(ablations, Distance(0.01), OptimalConfig(rate=1e4))


def test_distances_of_q_values_have_the_scale_of_the_choice():
    torch.manual_seed(0)
    agent = DQN(3, (4,), hidden=4)
    q = torch.tensor([[1.0, 0.8, 0.0], [0.0, 3.0, 3.1], [1.0, 1.4, -9.0]])
    distance = Distance.of(agent, q)
    np.testing.assert_allclose(distance.temperature, 0.2, rtol=1e-5)
    # A gap of one temperature is a factor of e between the two best.
    two = (q[:1, :2].double() / distance.temperature).softmax(-1)
    np.testing.assert_allclose(float(two[0, 0] / two[0, 1]), np.e, rtol=1e-5)
    assert Distance.of(agent, 100 * q)(100 * q, 100 * q + 1).abs().max() < 1e-9  # advantages alone count
    with pytest.raises(UserError, match="the two best Q-values are equal in most states"):
        Distance.of(agent, torch.zeros(4, 3))
    with pytest.raises(UserError, match="DQN has a single action, so there is no decision"):
        Distance.of(agent, q[:, :1])


def test_states_in_which_all_actions_but_one_are_ruled_out_say_nothing_of_the_scale():
    agent, inf = DQN(3, (4,), hidden=4), torch.inf
    q = torch.tensor([[1.0, -inf, -inf], [-inf, 2.0, -inf], [0.0, 0.5, -inf]])
    assert Distance.of(agent, q).temperature == 0.5
    with pytest.raises(UserError, match="or all but one are ruled out"):
        Distance.of(agent, q[:2])


def test_an_action_that_both_rule_out_adds_nothing_and_one_that_only_the_changed_rules_out_is_infinitely_far():
    own, inf = torch.tensor([[0.0, 1.0, -torch.inf]]), torch.inf
    assert torch.allclose(Distance()(own, own + 1), torch.zeros(1).double())
    assert Distance()(own, torch.tensor([[0.0, -inf, -inf]])) == inf
    assert advantage_error(own, own + 1) < 1e-9


def test_a_point_that_can_not_be_run_again_from_is_refused():
    agent = wrap(nn.Sequential(nn.Linear(2, 2)), {"a": ("0", "B D")})
    with pytest.raises(HookError, match="unknown hook point 'b'"):
        Ablations(agent, States(torch.randn(2, 2)), "b")
