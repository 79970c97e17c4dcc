"""Gradients of decisions: zero at a layer that nothing depends on, and asked for in vain where an agent detaches it."""

import numpy as np
import pytest
import torch
from torch import nn

from rl_interp.analysis.circuits.layers import ImportanceConfig, measure_layer
from rl_interp.analysis.sae.policy import policy_metric
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.ugs import ugs
from rl_interp.circuits.states import States
from rl_interp.core.agent import PolicyOutput
from rl_interp.core.gradients import NoGradientError
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.wrap import wrap
from rl_interp.sae import TopK, integrated_effects

HOW = {
    "round": lambda h: h.long().float(),
    "numpy": lambda h: torch.from_numpy(np.tanh(h.numpy())),
}
"""Ways to lose a gradient."""


class ActorCritic(nn.Module):
    """A policy, and a value network of its own; what lies between the policy's layers may lose the gradient."""

    def __init__(self, between=lambda h: h, grad=True):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.policy, self.vf = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(4, 5)
        self.value, self.flat, self.between, self.grad = nn.Linear(5, 1), nn.Flatten(), between, grad

    def forward(self, obs):
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            seen = self.flat(obs)
            decided = self.policy(self.between(3 * self.body(seen)))
            return PolicyOutput(logits=decided, value=self.value(self.vf(seen)).squeeze(-1))


def agent_of(module, trained=False):
    points = {"body": ("body", "B D"), "vf": ("vf", "B D")}
    return wrap(module.requires_grad_(trained), points)


STATES, BANK = (States(torch.randn(12, 4, generator=torch.Generator().manual_seed(seed))) for seed in (0, 1))


@pytest.mark.parametrize("trained", [True, False])
def test_a_layer_that_no_decision_depends_on_has_no_metric_and_no_importance(trained):
    agent = agent_of(ActorCritic(), trained)
    assert policy_metric(agent, STATES, "vf").shape == (5, 5)
    assert not policy_metric(agent, STATES, "vf").any()
    assert policy_metric(agent, STATES, "body").any()
    layer = measure_layer(agent, "vf", STATES, BANK, ImportanceConfig())
    assert set(layer.kinds) | set(layer.estimates) >= {"zero", "optimal", "gradient"}
    for name in (*layer.kinds, *layer.estimates):
        assert layer.kl(name).tolist() == [0] * 5, name
    head = PartialForward(agent, STATES.obs, "vf")
    effects = integrated_effects(TopK(5, 6, 2), torch.randn(12, 5), lambda values: head(values).preferences)
    assert effects.tolist() == [[0] * 3] * 6


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("how", [*HOW, "no_grad"])
def test_where_an_agent_passes_no_gradient_on_that_is_said(how, trained):
    agent = agent_of(ActorCritic(grad=False) if how == "no_grad" else ActorCritic(HOW[how]), trained)
    for ask in (
        lambda: policy_metric(agent, STATES, "body"),
        lambda: measure_layer(agent, "body", STATES, BANK, ImportanceConfig(("optimal",))),
        lambda: measure_layer(agent, "body", STATES, BANK, ImportanceConfig(("mean",))),
    ):
        with pytest.raises(NoGradientError, match=r"no gradient with respect to this layer .* use what needs none"):
            ask()
    kinds = ("zero", "mean-position", "resample")
    assert measure_layer(agent, "body", STATES, BANK, ImportanceConfig(kinds)).kl("zero").any()


@pytest.mark.parametrize("find", [attribute, ugs])
@pytest.mark.parametrize("how", ["numpy", "no_grad"])
def test_edges_that_are_found_by_gradients_need_some(how, find):
    agent = agent_of(ActorCritic(grad=False) if how == "no_grad" else ActorCritic(HOW[how]))
    with pytest.raises(NoGradientError):
        find(Behaviour.of(agent, STATES, "zero"))
