"""Methods of discovery: what they score is what cutting an edge does, and they find circuits that are known."""

import pytest
import torch
from circuit_agents import make
from test_behaviour import states_of

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute, log_odds
from rl_interp.circuits.mask import Mask
from rl_interp.core.errors import UserError


@pytest.mark.parametrize("name", ["dqn", "lstm", "resnet"])
@pytest.mark.parametrize("replace", ["mean", "resample"])
def test_attribution_is_the_slope_of_cutting_each_edge_a_little(name, replace):
    agent, obs = make(name)
    behaviour = Behaviour.of(agent, states_of(agent, obs), replace)
    found = attribute(behaviour)
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
    found = attribute(behaviour, steps=50)
    assert float(found.scores.sum()) == pytest.approx(behaviour.require(0), rel=0.02)
    assert found.cost.forwards == 50 * 12


def test_a_circuit_of_no_edges_or_too_many_is_refused():
    agent, obs = make("own")
    found = attribute(Behaviour.of(agent, states_of(agent, obs)))
    with pytest.raises(UserError, match=f"a circuit of 9999 edges asked for; the agent has {found.graph.edges}"):
        found.circuit(9999)
    with pytest.raises(UserError, match="say how many edges"):
        found.circuit()
