"""Shapley values of entities: the axioms on planted games, and an agent of which the values are known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.saliency import Entities, Feature, Preference, Scene, Value, maps_through_time, saliency_map
from rl_interp.saliency.methods.entities import EXACT, shapley_draws

RNG = np.random.default_rng


def values(game, players: int) -> np.ndarray:
    return shapley_draws([game], players, RNG(0)).mean(0)


@pytest.mark.parametrize("players", [4, EXACT + 2])
def test_shapley_values_obey_the_axioms(players):
    weights = RNG(1).normal(size=players)
    weights[1], weights[2] = 0, weights[0]  # a dummy, and one that is like the first

    def both(coalitions):
        return 3.0 * coalitions[:, 0] * coalitions[:, 2]  # the first and the third work together

    def sums(coalitions):
        return coalitions @ weights

    found = values(lambda c: sums(c) + both(c), players)
    whole = weights.sum() + 3
    assert found.sum() == pytest.approx(whole), "efficiency"
    assert found[1] == pytest.approx(0), "dummy"
    assert found[0] == pytest.approx(found[2]), "symmetry"
    np.testing.assert_allclose(found, values(sums, players) + values(both, players), err_msg="additivity")
    np.testing.assert_allclose(values(sums, players), weights, atol=1e-12)


def test_all_orders_written_out_give_the_same():
    table = dict(zip(map(tuple, np.ndindex(2, 2, 2)), RNG(2).normal(size=8), strict=True))
    want = np.zeros(3)
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        there = [0, 0, 0]
        for player in order:
            before = table[tuple(there)]
            there[player] = 1
            want[player] += (table[tuple(there)] - before) / 6
    found = values(lambda c: np.array([table[tuple(map(int, row))] for row in c]), 3)
    np.testing.assert_allclose(found, want)


class Sum(Agent):
    """Its first Q-value is the sum of the pixels' weights times their brightness."""

    hook_points: dict[str, HookPoint] = {}

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(q_values=(obs.float() * self.weights).sum((1, 2, 3))[:, None])


def scene(places: dict[str, tuple[int, int]], brightness: dict[str, int]) -> Scene:
    obs, masks = np.zeros((1, 8, 8), np.uint8), {}
    for name, (y, x) in places.items():
        masks[name] = np.zeros((1, 8, 8), bool)
        masks[name][0, y, x] = True
        obs[masks[name]] = brightness[name]
    return Scene(obs, masks)


def test_an_entity_is_worth_what_its_exchange_with_another_states_changes():
    bright = {"a": 100, "b": 50, "c": 20}
    here = scene({"a": (1, 1), "b": (2, 5), "c": (6, 6)}, bright)
    others = [scene({"a": (1, 2), "b": (2, 5)}, bright), scene({"a": (7, 7), "b": (2, 5)}, bright)]
    weights = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    agent, obs = Sum(weights), torch.from_numpy(here.obs[None])
    found = Entities([here], others).values(agent, obs, Preference(0))[0]
    w = weights[0].numpy()
    assert found["a"].value == pytest.approx(100 * (w[1, 1] - (w[1, 2] + w[7, 7]) / 2), abs=1e-3)
    assert found["b"].value == pytest.approx(0, abs=1e-3), "it is the same in the others"
    assert found["c"].value == pytest.approx(20 * w[6, 6], abs=1e-3), "it is not in the others"
    assert found["a"].low < found["a"].value < found["a"].high
    drawn = saliency_map(agent, obs, Preference(0), "entities", entities=Entities([here], others))[0]
    assert drawn[1, 1] == pytest.approx(found["a"].value)
    assert np.count_nonzero(drawn) <= 3
    with pytest.raises(UserError, match="entities asked for without the ground truth"):
        saliency_map(agent, obs, Preference(0), "entities")


class Sums(Agent):
    """Its value is the sum of a pixel over all steps so far, older ones counting half as much each step."""

    hook_points = {"kept": HookPoint("kept", "B D")}

    def __init__(self) -> None:
        super().__init__()
        self.kept = nn.Identity()
        self.unused = nn.Parameter(torch.zeros(1))

    def initial_state(self, batch: int) -> State:
        return (torch.zeros(batch, 1),)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        kept = self.kept(state[0] / 2 + obs.float()[:, 0, 2, 3, None])
        return PolicyOutput((kept,), logits=torch.cat([kept, -kept], 1), value=kept[:, 0])


@pytest.mark.parametrize("target", [Value(), Feature("kept", lambda x: x, 0)], ids=lambda target: target.name)
def test_maps_through_time_find_how_much_each_step_still_counts(target):
    obs = torch.full((4, 1, 6, 6), 8, dtype=torch.uint8)
    states = [(torch.full((1, 1), 8.0 * (2 - 2 ** (1 - t))),) for t in range(4)]
    found = maps_through_time(Sums(), obs, torch.zeros(4, dtype=torch.long), states, target, "gradient")
    np.testing.assert_allclose(found[:, 2, 3], [1 / 8, 1 / 4, 1 / 2, 1])
    found[:, 2, 3] = 0
    assert not found.any()
