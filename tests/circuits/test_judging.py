"""What is said of a circuit: areas, what leaving out costs, and the random circuits beside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_agents import make
from torch import nn

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.judging import (
    area,
    compared,
    complement,
    curve,
    jaccard,
    leaving_out,
    played_with,
    redrawn,
    shared_share,
    shuffled,
)
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.planted import two_layers
from rl_interp.circuits.trace import trace
from rl_interp.core.agent import HookPoint
from rl_interp.core.wrap import wrap


def behaviour_of(planted):
    return Behaviour.of(planted.agent, planted.states, "mean", graph=planted.graph)


def test_areas_are_of_the_line_through_the_points():
    assert area([0.0, 0.5, 1.0], [0.0, 1.0, 1.0]) == pytest.approx(0.75)
    planted = two_layers()
    behaviour = behaviour_of(planted)
    truth = Mask.of_edges(planted.graph, planted.truth).vector
    good, bad = (curve(behaviour, scores) for scores in (truth, -truth))
    assert good.edges[-1] == planted.graph.edges
    assert good.faithfulness[-1] == pytest.approx(1)
    assert good.cpr > 0.9 > 0.6 > bad.cpr
    assert good.cmd < 0.1 < bad.cmd
    assert good.cpr_log < good.cpr  # circuits of fewer edges than the planted one count for more
    assert replace(good, faithfulness=(0.5,) * 10).cmd_log == pytest.approx(0.5)


def test_what_is_left_out_of_a_planted_circuit_is_missed_and_what_is_beside_it_is_not():
    planted = two_layers()
    behaviour, truth = behaviour_of(planted), Mask.of_edges(planted.graph, planted.truth)
    more = Mask.of_edges(planted.graph, [*planted.truth, ("obs -> first", 8, 3), ("second -> logits", 2, 7)])
    rises = leaving_out(behaviour, more)
    assert sorted((rises > 1e-3).tolist()) == [False] * 2 + [True] * 8
    assert len(leaving_out(behaviour, more, most=4)) == 4
    whole, circuit, rest = (compared(behaviour, m) for m in (Mask.full(planted.graph), truth, complement(truth)))
    assert (whole.kl, whole.action_agreement, whole.value_error) == (pytest.approx(0), 1.0, None)
    assert circuit.action_agreement > 0.9 > rest.action_agreement


@pytest.mark.parametrize("name", ["lstm", "resnet", "dqn"])
def test_random_circuits_are_wired_as_the_circuit_is(name):
    """Shuffling the units of an agent that has no dangling edges leaves none dangling, and as many in each link."""
    graph = trace(*make(name))
    vector = (torch.rand(graph.edges, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    mask = Mask.of_vector(graph, vector).without_dangling()
    other = shuffled(mask, seed=1)
    for link in graph.links:
        assert other.values[link.name].sum() == mask.values[link.name].sum()
    assert other.without_dangling().kept == other.kept == mask.kept > 10
    assert other.edges != mask.edges
    shared, by_chance = jaccard(mask, other)
    assert shared < 0.8
    assert jaccard(mask, mask)[0] == 1
    assert 0 < by_chance < 1


def test_random_edges_of_the_same_kind_are_as_many_of_every_link():
    graph = two_layers().graph
    mask = Mask.of_vector(graph, (torch.rand(graph.edges, generator=torch.Generator().manual_seed(0)) < 0.2).float())
    drawn = [redrawn(mask, seed) for seed in range(200)]
    for link in graph.links:
        kept = float(mask.values[link.name].sum())
        assert {float(each.values[link.name].sum()) for each in drawn} == {kept}
        share = torch.stack([each.values[link.name] for each in drawn]).mean(0)
        assert share.numpy() == pytest.approx(kept / link.edges, abs=0.15)  # every edge as often
    assert shared_share(mask, mask) == 1
    assert np.mean([shared_share(mask, each) for each in drawn]) == pytest.approx(
        sum(float(v.sum()) ** 2 / v.numel() for v in mask.values.values()) / mask.kept, abs=0.02
    )


def test_a_random_circuit_differs_where_no_units_can_change_places():
    """In a network of one unit a layer, wired from all that it sees to all that it does."""
    one = wrap(
        nn.Sequential(nn.Linear(6, 1), nn.ReLU(), nn.Linear(1, 6)),
        hook_points={"h": HookPoint("1", "B D"), "out": HookPoint("2", "B D")}, output="logits",
    )  # fmt: skip
    graph = trace(one, torch.randn(2, 6))
    mask = Mask.of_vector(graph, (torch.arange(graph.edges) % 3 == 0).float())
    assert len({tuple(shuffled(mask, seed).vector.tolist()) for seed in range(20)}) > 10


def test_two_random_circuits_share_what_chance_says():
    graph = two_layers().graph
    pairs = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        a, b = (Mask.of_vector(graph, (torch.rand(graph.edges, generator=generator) < 0.3).float()) for _ in "ab")
        pairs.append(jaccard(a, b))
    shared, by_chance = torch.tensor(pairs).mean(0).tolist()
    assert shared == pytest.approx(by_chance, abs=0.01)


def test_what_is_put_in_place_while_playing_is_of_whole_states():
    reference = {"a": torch.arange(6.0)[:, None], "b": 10 * torch.arange(6.0)[:, None], "c": torch.zeros(1, 1)}
    drawn = played_with(reference)
    assert callable(drawn)
    first, second = drawn(50), drawn(50)
    assert torch.equal(first["b"], 10 * first["a"])
    assert not torch.equal(first["a"], second["a"])
    constant = {"c": reference["c"]}
    assert played_with(constant) is constant
