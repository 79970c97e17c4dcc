"""Methods of discovery: what they score is what cutting an edge does, and they find circuits that are known."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from circuit_agents import make
from test_behaviour import states_of

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.acdc import ACDCConfig, acdc
from rl_interp.circuits.discovery.attribution import attribute, log_odds
from rl_interp.circuits.discovery.constants import ConstantsConfig
from rl_interp.circuits.discovery.ugs import UGSConfig, draw, ugs
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.planted import PLANTED, two_layers
from rl_interp.core.errors import UserError


@pytest.mark.parametrize("name", ["dqn", "lstm", "resnet"])
@pytest.mark.parametrize("replace", ["mean", "resample"])
def test_attribution_is_the_slope_of_cutting_each_edge_a_little(name, replace):
    agent, obs = make(name)
    behaviour = Behaviour.of(agent, states_of(agent, obs), replace)
    found = attribute(behaviour, absolute=False)
    graph, whole = behaviour.graph, Mask.full(behaviour.graph).vector
    order = found.scores.abs().argsort(descending=True)
    for edge in order[[0, 1, 5]].tolist():
        ends = []
        for by in (0.01, -0.01):
            moved = whole.clone()
            moved[edge] += by
            with torch.no_grad():
                ends.append(log_odds(behaviour, behaviour.decisions(Mask.of_vector(graph, moved))).mean())
        assert float(ends[0] - ends[1]) / 0.02 == pytest.approx(float(found.scores[edge]), rel=0.1, abs=2e-5)
    assert (found.cost.forwards, found.cost.backwards) == (12, 12)


@pytest.mark.parametrize("name", ["dqn", "lstm"])
def test_integrated_attributions_add_up_to_the_distance_without_any_edge(name):
    agent, obs = make(name)
    behaviour = Behaviour.of(agent, states_of(agent, obs), "mean")
    found = attribute(behaviour, steps=50, absolute=False)
    assert float(found.scores.sum()) == pytest.approx(behaviour.require(0), rel=0.02)
    assert found.cost.forwards == 50 * 12


def test_a_circuit_of_no_edges_or_too_many_is_refused():
    agent, obs = make("own")
    found = attribute(Behaviour.of(agent, states_of(agent, obs)))
    with pytest.raises(UserError, match=f"a circuit of 9999 edges asked for; the agent has {found.graph.edges}"):
        found.circuit(9999)
    with pytest.raises(UserError, match="say how many edges"):
        found.circuit()


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("method", [attribute, partial(attribute, steps=10), acdc], ids=["eap", "eap-ig", "acdc"])
def test_planted_circuits_are_found(name, method):
    planted = PLANTED[name]()
    behaviour = Behaviour.of(planted.agent, planted.states, "mean", graph=planted.graph)
    assert behaviour.faithfulness(Mask.of_edges(planted.graph, planted.truth)) > 0.95
    found = method(behaviour)
    assert planted.auroc(found.scores) > 0.95
    if found.mask is not None:
        assert set(planted.truth) <= set(found.mask.edges)
        assert behaviour.faithfulness(found.mask) > 0.95


def test_acdc_in_halves_and_edge_by_edge_leave_what_makes_a_difference():
    planted = two_layers()
    behaviour = Behaviour.of(planted.agent, planted.states, "mean", graph=planted.graph)
    halves, single = (acdc(behaviour, ACDCConfig(one_by_one=one_by_one)) for one_by_one in (False, True))
    assert sorted(halves.circuit().edges) == sorted(single.circuit().edges) == sorted(planted.truth)
    assert halves.details["tried"] < single.details["tried"]
    few = acdc(behaviour, ACDCConfig(candidates=7))
    assert few.circuit().kept <= 7


def test_drawn_circuits_have_the_gradient_of_their_probabilities():
    logits = torch.tensor([-3.0, 0.0, 2.0]).requires_grad_()
    drawn = draw(logits, torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)))
    p = logits.sigmoid().detach()
    assert ((drawn > 0) & (drawn < 1)).float().mean(0).numpy() == pytest.approx((p * (1 - p)).numpy(), abs=0.003)
    assert drawn.detach().mean(0).numpy() == pytest.approx(p.numpy(), abs=0.003)
    # Each edge's gradient is a mean over the draws in its window: that of its probability.
    (found,) = torch.autograd.grad(drawn.mean(0).sum(), logits)
    assert found.numpy() == pytest.approx((p * (1 - p)).numpy(), rel=0.01)


@pytest.mark.parametrize("name", ["two_layers", "channels"])
def test_the_first_circuits_that_are_drawn_decide_half_as_the_agent_does(name):
    """Counted here circuit by circuit, without what the method draws."""
    planted = PLANTED[name]()
    behaviour = Behaviour.of(planted.agent, planted.states, "mean", graph=planted.graph)
    start = ugs(behaviour, UGSConfig(updates=1)).details["start"]
    rng = np.random.default_rng(1)

    def faithfulness(logit):
        kept = rng.random((60, planted.graph.edges)) < 1 / (1 + np.exp(-logit))
        masks = [Mask.of_vector(planted.graph, torch.from_numpy(each).float()).without_dangling() for each in kept]
        return np.mean([behaviour.faithfulness(mask) for mask in masks])

    assert faithfulness(start) > 0.4
    assert start == 1 or faithfulness(start - 1) < 0.6


@pytest.mark.slow
def test_uniform_gradient_sampling_finds_a_planted_circuit_and_constants_that_are_better_than_means():
    planted = two_layers()
    config = UGSConfig(sparsity=5, updates=150, rate=0.1, constants=ConstantsConfig(updates=40))
    for replace in ("mean", "optimal"):
        behaviour = Behaviour.of(planted.agent, planted.states, replace, graph=planted.graph)
        found = ugs(behaviour, config)
        assert planted.auroc(found.scores) > 0.95
        assert set(found.circuit().edges) <= set(planted.truth)
        fitted = behaviour.with_reference(found.reference).mean_distances(found.circuit())
        assert behaviour.faithfulness(found.circuit()) > 0.9
        assert float(fitted) <= float(behaviour.mean_distances(found.circuit()))
        asked = ugs(behaviour, dataclasses.replace(config, sparsity=None), faithfulness=0.8).circuit()
        assert 0.8 <= behaviour.faithfulness(asked) < 1
        assert asked.kept <= len(planted.truth)
    with pytest.raises(UserError, match="no edge stays in the circuit"):
        ugs(behaviour, UGSConfig(sparsity=1e4, updates=60, rate=0.2))
