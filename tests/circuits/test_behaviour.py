"""Behaviours: what is put in place of what is cut, and how far decisions then are from the agent's own."""

import pytest
import torch
from circuit_agents import make
from torch import Tensor, nn

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.states import States
from rl_interp.core.agent import HookPoint, tree_map
from rl_interp.core.errors import UserError
from rl_interp.core.wrap import wrap


def states_of(agent, obs):
    many = obs.repeat(4, *(1,) * (obs.dim() - 1))
    many = many + torch.randint_like(many, 2) if many.dtype == torch.uint8 else many + torch.randn_like(many)
    return States(many, tree_map(torch.randn_like, agent.initial_state(12)), counterfactual=None)


@pytest.mark.parametrize("name", ["dqn", "lstm", "resnet"])
@pytest.mark.parametrize("replace", ["zero", "mean", "mean-position", "resample", "noise"])
def test_the_agent_is_faithful_to_itself_and_nothing_is_not(name, replace):
    agent, obs = make(name)
    behaviour = Behaviour.of(agent, states_of(agent, obs), replace)
    graph = behaviour.graph
    assert behaviour.mean_distances(Mask.full(graph)).item() == pytest.approx(0, abs=1e-9)
    nothing = behaviour.require(1e-9)
    assert behaviour.faithfulness(Mask.full(graph)) == pytest.approx(1)
    assert behaviour.faithfulness(Mask.full(graph, 0.0)) == pytest.approx(0)
    half = Mask.full(graph, 0.5)
    apart = torch.stack([behaviour[i : i + 1].distances(half)[0] for i in range(12)])
    torch.testing.assert_close(behaviour.distances(half), apart, rtol=1e-3, atol=1e-6 * nothing)
    two = Mask.of_vector(graph, torch.stack([half.vector, Mask.full(graph, 0.0).vector]))
    torch.testing.assert_close(behaviour.distances(two).mean(1), behaviour.mean_distances(two), rtol=1e-3, atol=1e-7)


def test_a_mean_is_over_all_places_of_a_channel_wherever_it_is_read():
    """The hidden layer reads the last convolution flattened; its columns of one channel have one mean."""
    agent, obs = make("dqn")
    states = states_of(agent, obs)
    reference = Behaviour.of(agent, states, "mean").reference["conv3.post"]
    by_place = Behaviour.of(agent, states, "mean-position").reference["conv3.post"]
    channels = reference.reshape(32, -1)
    assert (channels == channels[:, :1]).all()
    torch.testing.assert_close(channels[:, 0], by_place.reshape(32, -1).mean(1))


def test_what_is_computed_for_nothing_is_no_part_of_the_graph():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.aside, self.out = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.first(x))
            self.aside(h)
            return self.out(h)

    agent = wrap(Aside(), hook_points={"h": HookPoint("act", "B D")}, output="q_values")
    behaviour = Behaviour.of(agent, States(torch.randn(12, 4)), "mean")
    assert [link.name for link in behaviour.graph.links] == ["obs -> h", "h -> q_values"]
    assert behaviour.faithfulness(Mask.full(behaviour.graph)) == pytest.approx(1)


def test_what_is_resampled_is_a_whole_other_state():
    agent, obs = make("dqn")
    states = states_of(agent, obs)
    behaviour = Behaviour.of(agent, states, "resample", seed=3)
    nothing = behaviour.decisions(Mask.full(behaviour.graph, 0.0))
    distances = torch.cdist(nothing, behaviour.preferences)
    assert (distances.amin(1) < 1e-5).all()


def test_where_nothing_changes_there_is_no_behaviour():
    agent, obs = make("dqn")
    torch.nn.init.zeros_(agent.fc.weight)
    states = states_of(agent, obs)
    with pytest.raises(UserError, match="no behaviour to find a circuit of"):
        Behaviour.of(agent, states, "mean").require()
    with pytest.raises(UserError, match="counterfactuals"):
        Behaviour.of(agent, states, "counterfactual")
