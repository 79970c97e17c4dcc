"""A habit is broken by few edges, and what an agent does otherwise is spared."""

import dataclasses

import pytest
import torch
from torch import nn

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.breaking import (
    Bad,
    BreakingConfig,
    break_behaviour,
    fine_tuned,
    pruned_units,
)
from rl_interp.circuits.judging import redrawn
from rl_interp.circuits.states import States
from rl_interp.core.agent import HookPoint
from rl_interp.core.errors import UserError
from rl_interp.core.wrap import wrap

CONFIG = BreakingConfig(epochs=100, penalty_growth=1e-2, enough=4.0)


@pytest.fixture
def habit():
    """Input 0 leads to action 0 by way of unit 0, which is the habit, and to action 1 by way of unit 1; inputs 2 and 3
    lead to actions 2 and 3, each by way of a unit of its own."""
    torch.manual_seed(0)
    first, last = nn.Linear(4, 8), nn.Linear(8, 4)
    net = nn.Sequential(first, nn.ReLU(), last)
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.normal_(std=0.02)
            layer.bias.zero_()
        first.weight[0, 0], last.weight[0, 0] = 2.0, 4.0
        first.weight[1, 0], last.weight[1, 1] = 2.0, 2.0
        for i in (2, 3):
            first.weight[i, i], last.weight[i, i] = 2.0, 4.0
    agent = wrap(net, hook_points={"h": HookPoint("1", "B D"), "out": HookPoint("2", "B D")}, output="logits")
    ones = torch.eye(4)
    bad_obs = ones[0] * torch.rand(30, 1).add(0.5)
    good_obs = torch.cat([ones[i] * torch.rand(40, 1).add(0.5) for i in (2, 3)])
    good = Behaviour.of(agent, States(good_obs), "zero")
    actions = torch.zeros(30, 4, dtype=torch.bool)
    actions[:, 0] = True
    return Bad(Behaviour.of(agent, States(bad_obs), "zero", graph=good.graph), actions), good


def share(bad, mask):
    with torch.no_grad():
        return float(bad.share(bad.behaviour.decisions(mask)).mean())


def test_the_edge_that_makes_the_habit_is_cut_and_little_else(habit):
    bad, good = habit
    broken = break_behaviour(bad, good, CONFIG)
    path = {("obs -> h", 0, 0), ("h -> out", 0, 0)}
    cut = {edge for edge in type(broken.mask).full(good.graph).edges if edge not in set(broken.mask.edges)}
    assert cut & path
    assert len(cut) <= 4
    assert share(bad, broken.mask) < 0.2 < 0.8 < float(bad.share(bad.behaviour.preferences).mean())
    assert float(good.mean_distances(broken.mask)) < 0.05
    assert broken.cut[-1] == len(cut)
    assert set(broken.mask.vector.tolist()) == {0.0, 1.0}


def test_what_takes_the_place_of_cut_edges_can_be_learned_with_the_cut(habit):
    bad, good = habit[0], dataclasses.replace(habit[1], replace="optimal")
    broken = break_behaviour(bad, good, CONFIG)
    changed = [key for key, value in broken.reference.items() if not torch.equal(value, good.reference[key])]
    assert changed
    put = good.with_reference(broken.reference)
    there = bad.behaviour.with_reference(broken.reference)
    assert float(put.mean_distances(broken.mask)) < 0.05
    assert share(Bad(there, bad.actions), broken.mask) < 0.2


def test_controls_cut_as_much_or_reach_as_far(habit):
    bad, good = habit
    broken = break_behaviour(bad, good, CONFIG)
    reached = float(bad.loss(bad.behaviour.decisions(broken.mask).detach()).mean())
    drawn = [redrawn(broken.mask, seed) for seed in range(8)]
    assert {mask.kept for mask in drawn} == {broken.mask.kept}
    assert sum(share(bad, mask) > 0.5 for mask in drawn) >= 5
    pruned = pruned_units(bad, good, CONFIG, reached)
    assert share(bad, pruned) < 0.5
    before = good.agent.step(good.states.obs).preferences.detach().clone()
    tuned = fine_tuned(bad, good, CONFIG, reached, learning_rate=1e-2)
    preferences = tuned.step(bad.behaviour.states.obs).preferences.detach()
    assert float(bad.share(preferences).mean()) < float(bad.share(bad.behaviour.preferences).mean())
    assert torch.equal(good.agent.step(good.states.obs).preferences, before)


def test_units_that_the_good_states_need_are_cut_last(habit):
    """One unit serves the habit and a good action, another the habit alone, and less: the gradient in the bad states
    puts the first before the second."""
    bad, good = habit
    first, _, last = good.agent.module
    with torch.no_grad():
        last.weight[0, 0] = 2.0
        first.weight[2, 0], last.weight[0, 2] = 2.0, 3.0
    good = Behaviour.of(good.agent, good.states, "zero", graph=good.graph)
    bad = Bad(Behaviour.of(good.agent, bad.behaviour.states, "zero", graph=good.graph), bad.actions)
    pruned = pruned_units(bad, good, CONFIG, at_least=float(bad.loss(bad.behaviour.preferences).mean()) + 0.1)
    (link,) = good.graph.out_of("h")
    assert (pruned.values[link.name] == 0).all(0).nonzero().flatten().tolist() == [0]
    assert pruned.graph.edges - pruned.kept == 4
    assert float(good.mean_distances(pruned)) < 0.1


def test_an_agent_without_the_habit_is_refused(habit):
    bad, good = habit
    never = torch.zeros_like(bad.actions)
    never[:, 3] = True
    with pytest.raises(UserError, match="lacks that habit"):
        break_behaviour(Bad(bad.behaviour, never), good, CONFIG)
