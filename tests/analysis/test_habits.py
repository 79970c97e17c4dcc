"""Habits: the states that show one are those in which the agent does so, and at play it is counted as often."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.breaking import break_run
from rl_interp.analysis.circuits.habits import habit
from rl_interp.circuits.breaking import BreakingConfig
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.errors import UserError
from rl_interp.core.run import Run

FORWARD = 2


class Straight(Agent):
    """Goes forward, whatever it sees; hidden unit 0 makes it so, and unit 1 would have it turn left."""

    hook_points = {"h": HookPoint("relu", "B D"), "policy": HookPoint("policy", "B D")}
    observation = "symbols"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.policy = nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 7)
        with torch.no_grad():
            for layer in (self.first, self.policy):
                layer.weight.zero_()
                layer.bias.zero_()
            self.first.bias[:] = torch.tensor([2.0, 1.0])
            self.policy.weight[FORWARD, 0], self.policy.weight[0, 1] = 4.0, 4.0

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        one = obs.float().flatten(1).mean(1, keepdim=True)
        return PolicyOutput(logits=self.policy(self.relu(self.first(one))), value=one[:, 0])


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("rl_interp.analysis.circuits.habits._GOOD", 20)
    return Loaded(Run(tmp_path / "straight"), 0, Straight(), MiniGridConfig("MiniGrid-Empty-5x5-v0"), "")


def test_a_habit_is_an_action_where_a_concept_holds(loaded):
    torch.manual_seed(0)
    sought = habit(loaded, "wall_ahead:Forward")
    shown = sought.shown(4, seed=0)
    ahead = shown.bad.obs[:, 0, -2, 3]  # the kind of the cell before the agent, which stands at the bottom
    assert (ahead == 2).all()
    assert shown.actions.sum(1).tolist() == [1] * 4
    assert shown.actions[:, FORWARD].all()
    scored = sought.scored(loaded.agent, 1, seed=7)
    assert scored.bad.value > 0.9
    assert np.isfinite(scored.good.value)


@pytest.mark.full
def test_breaking_it_is_measured_beside_its_controls(loaded):
    config = BreakingConfig(epochs=60, penalty_growth=1e-2, enough=3.0, batch=8, bad_weight=5.0)
    result = break_run(loaded, "wall_ahead:forward", config, states=4, episodes=1, replace="zero")
    assert result["bad"]["before"]["value"] > 0.9
    assert result["bad"]["after"]["value"] < 0.5
    assert result["bad_in_states"]["before"] > 0.9 > 0.5 > result["bad_in_states"]["after"]
    assert 1 <= result["edges_cut"] <= 3
    assert result["edges_total"] == 1 * 2 + 2 * 7
    assert set(result["bad"]) == {"before", "after", "random_cut", "pruned_units", "fine_tuned"}


@pytest.mark.parametrize(("name", "said"), [
    ("corner", "habit of maze agents"), ("wall_ahead", "CONCEPT:ACTION"), ("wall_behind:forward", "wall_ahead"),
    ("wall_ahead:jump", "forward"), ("goal_ahead:drop", "lacks this habit"),
])  # fmt: skip
def test_a_habit_that_is_not_there_is_said_in_a_sentence(loaded, name, said, monkeypatch):
    monkeypatch.setattr("rl_interp.analysis.circuits.habits._PATIENCE", 1)
    with pytest.raises(UserError, match=said):
        habit(loaded, name).shown(4, seed=0)


def test_a_maze_agents_habit_is_to_pass_by_the_cheese(tmp_path):
    class TopRight(Straight):
        """Up or right, by chance."""

        observation = "pixels"

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            logits = torch.tensor([4.0, 0.0, 0.0, 4.0, 0.0]).expand(len(obs), -1)
            return PolicyOutput(logits=logits, value=logits[:, 0])

    mazes = Loaded(Run(tmp_path / "mouse"), 0, TopRight(), MazeConfig(min_side=5, max_side=7), "")
    sought = habit(mazes, "corner")
    shown = sought.shown(6, seed=0)
    assert shown.bad.obs.shape[0] == shown.actions.shape[0] == 6
    assert shown.actions.any(1).all()
    assert not shown.actions[:, 4].any()
