"""Units of two agents are matched by what they do, and a circuit is carried from the one to the other."""

import copy

import pytest
import torch
from circuit_agents import of_the_users_own
from torch import nn

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.judging import jaccard, shared_edges
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.matching import match
from rl_interp.circuits.planted import memory, two_layers
from rl_interp.circuits.states import States
from rl_interp.core.errors import UserError


def a_residual_network(seed):
    """Six units of a residual stream, and of the two layers that it joins."""
    torch.manual_seed(seed)
    return of_the_users_own()


def an_lstm(seed):
    agent = memory().agent
    torch.manual_seed(seed)
    for parameter in agent.parameters():
        nn.init.normal_(parameter)
    return agent


def states_for(agent):
    torch.manual_seed(9)
    if agent.initial_state(1) == ():
        return States(torch.randn(64, 4))
    return States(torch.randn(64, 3), (torch.randn(64, 4).tanh(), torch.randn(64, 4)))


def permuted(agent, order):
    """The same agent with its units in other places."""
    other, units = copy.deepcopy(agent), len(order)
    with torch.no_grad():
        for layer in (module for module in other.modules() if isinstance(module, nn.Linear)):
            if layer.out_features == units:
                layer.weight[:], layer.bias[:] = layer.weight[order], layer.bias[order]
            if layer.in_features >= units:  # what the units give comes last, after what is seen
                layer.weight[:, -units:] = layer.weight[:, -units:][:, order]
    return other


@pytest.mark.parametrize(("make", "units"), [(a_residual_network, 6), (an_lstm, 4)])
def test_a_permuted_copy_is_matched_perfectly_and_an_unrelated_agent_is_not(make, units):
    generator = torch.Generator().manual_seed(1)
    agent, order = make(0), torch.randperm(units, generator=generator)
    states = states_for(agent)
    moved = States(states.obs, tuple(leaf[:, order] for leaf in states.memory))
    one, two = Behaviour.of(agent, states), Behaviour.of(permuted(agent, order), moved)
    torch.testing.assert_close(one.preferences, two.preferences)
    matching = match(one, two)
    assert matching.mean_correlation == pytest.approx(1)
    assert all(torch.equal(matching.order[name], order) for name in matching.correlation)
    mask = Mask.of_vector(one.graph, (torch.rand(one.graph.edges, generator=generator) < 0.5).float())
    carried = matching.carried(mask, two.graph)
    torch.testing.assert_close(one.decisions(mask), two.decisions(carried))
    assert not torch.equal(mask.vector, carried.vector)
    assert match(one, Behaviour.of(make(1), states)).mean_correlation < 0.8


def test_what_circuits_share_is_counted_link_by_link_beside_chance():
    graph = two_layers().graph
    a = Mask.of_edges(graph, [("obs -> first", 0, 0), ("obs -> first", 1, 0), ("second -> logits", 0, 0)])
    b = Mask.of_edges(graph, [("obs -> first", 0, 0), ("obs -> first", 5, 5), ("first -> second", 0, 0)])
    shared = {each.link: (each.first, each.second, each.shared, each.expected) for each in shared_edges(a, b)}
    assert shared == {
        "obs -> first": (2, 2, 1, 4 / 72),
        "first -> second": (0, 1, 0, 0),
        "second -> logits": (1, 0, 0, 0),
    }
    assert jaccard(a, b)[0] == 1 / 5


def test_agents_of_other_architectures_are_refused():
    one, two = two_layers(), memory()
    with pytest.raises(UserError, match="one architecture"):
        match(Behaviour.of(one.agent, one.states[:4]), Behaviour.of(two.agent, two.states[:4]))
