"""Playing on a scripted environment whose episodes are known."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from rl_interp import PolicyOutput, wrap
from rl_interp.core.agent import Agent, HookPoint
from rl_interp.core.envs.vector import Step
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import assert_unhooked, hooked
from rl_interp.core.interventions import Clamp, Zero
from rl_interp.core.rollout import Actor, choose, evaluate


class Scripted:
    """Environment i plays episodes of length 3 + i; action 1 pays 1. NEXT_STEP autoreset."""

    observation_shape, action_names = (2,), ("STAY", "PAY")

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self, seed):
        self.t, self.ended = np.zeros(self.num_envs, int), np.zeros(self.num_envs, bool)
        return self._obs()

    def _obs(self):
        return np.stack([np.ones(self.num_envs), self.t], 1).astype(np.float32)

    def send(self, actions):
        self.actions = actions

    def recv(self):
        first = self.ended
        self.t = np.where(first, 0, self.t + 1)
        self.ended = ~first & (self.t == 3 + np.arange(self.num_envs))
        reward = np.where(first, 0, self.actions == 1).astype(np.float32)
        return Step(self._obs(), reward, self.ended, np.zeros_like(first), first, {})

    def close(self):
        pass


@pytest.fixture
def pays():
    """An agent that always prefers action 1, through a hidden unit that can be ablated."""
    module = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        module[0].bias.zero_()
        module[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        module[1].bias.copy_(torch.tensor([0.5, 0.0]))
    return wrap(module, {"hidden": ("0", "B D")}, output="q_values")


def test_returns_and_lengths_are_those_of_whole_episodes(pays):
    scores = evaluate(pays, Scripted(3), 7, seed=0, epsilon=0)
    assert scores.returns.tolist() == [3, 3, 3, 4, 4, 5, 5]
    assert scores.lengths.tolist() == [3, 3, 3, 4, 4, 5, 5]


def test_interventions_act_in_closed_loop_and_are_gone_afterwards(pays):
    assert evaluate(pays, Scripted(2), 4, seed=0, epsilon=0, interventions=[Zero("hidden")]).returns.sum() == 0
    both = [Zero("hidden"), Clamp("hidden", units=[0], value=1.0)]
    assert evaluate(pays, Scripted(2), 4, seed=0, epsilon=0, interventions=both).returns.sum() == 14
    assert evaluate(pays, Scripted(2), 4, seed=0, epsilon=0).returns.sum() == 14


def test_exploration_is_seeded_and_of_the_asked_share(pays):
    actor = Actor(pays, 2000, np.random.default_rng(0))
    obs, first = np.ones((2000, 2), np.float32), np.ones(2000, bool)
    assert (actor.act(obs, first, 0.0) == 1).all()
    assert (actor.act(obs, first, 0.4) == 0).mean() == pytest.approx(0.2, abs=0.03)
    runs = [evaluate(pays, Scripted(2), 20, seed=5, epsilon=0.5).returns.tolist() for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_policys_actions_are_samples_of_it():
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(20_000, 3)
    chosen = choose(PolicyOutput(logits=logits), np.random.default_rng(0), epsilon=0.0)
    shares = np.bincount(chosen, minlength=3) / len(chosen)
    np.testing.assert_allclose(shares, logits[0].softmax(-1), atol=0.012)


def test_an_agent_with_a_forgotten_hook_is_not_evaluated(pays):
    left = hooked(pays, {"hidden": lambda value, site: None})
    left.__enter__()
    with pytest.raises(HookError, match="is still on"):
        evaluate(pays, Scripted(1), 1, seed=0)


def test_an_intervention_at_a_point_that_never_fires_ends_the_first_step(pays):
    class Counted(Scripted):
        sent = 0

        def send(self, actions):
            self.sent += 1
            super().send(actions)

    pays.unused = nn.Identity()
    pays.hook_points = {**pays.hook_points, "unused": HookPoint("unused", "B D")}
    env = Counted(2)
    with pytest.raises(HookError, match=r"\['unused'\] never fired"):
        evaluate(pays, env, 100, seed=0, interventions=[Zero("unused")])
    assert env.sent == 1
    assert_unhooked(pays)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_preferences_that_are_not_finite_are_refused(pays, bad):
    with torch.no_grad():
        pays.module[1].bias[0] = bad
    with pytest.raises(UserError, match="the agent's preferences are NaN or infinite"):
        evaluate(pays, Scripted(1), 1, seed=0)


def test_an_action_may_be_ruled_out_by_minus_infinity():
    for out in (PolicyOutput(logits=torch.tensor([[-torch.inf, 0.0]])),
                PolicyOutput(q_values=torch.tensor([[-torch.inf, 0.0]]))):  # fmt: skip
        assert choose(out, np.random.default_rng(0), epsilon=0.0).tolist() == [1]


def test_exploration_takes_the_actions_alike_that_are_not_ruled_out_and_else_keeps_its_stream():
    preferences = torch.tensor([[-torch.inf, 0.0, 9.0, 1.0], [0.0, -torch.inf, -torch.inf, 1.0]]).repeat(5000, 1)
    for out in (PolicyOutput(logits=preferences), PolicyOutput(q_values=preferences)):
        chosen = choose(out, np.random.default_rng(0), epsilon=1.0)
        shares = [np.bincount(chosen[row::2], minlength=4) / 5000 for row in range(2)]
        np.testing.assert_allclose(shares, [[0, 1 / 3, 1 / 3, 1 / 3], [0.5, 0, 0, 0.5]], atol=0.03)
    stream, other = np.random.default_rng(1), np.random.default_rng(1)
    chosen = choose(PolicyOutput(q_values=torch.zeros(50, 4)), stream, epsilon=0.5)
    explore, uniform = other.random(50) < 0.5, other.integers(4, size=50)
    assert chosen.tolist() == np.where(explore, uniform, 0).tolist()
    assert stream.random() == other.random()


class Counting(Agent):
    """Pays once it has seen three observations of an episode, which it counts."""

    preference_kind = "q_values"

    def initial_state(self, batch):
        return (torch.zeros(batch),)

    def step(self, obs, state=(), first=None):
        seen = torch.where(first, 0.0, state[0]) + 1
        return PolicyOutput((seen,), q_values=torch.stack([torch.full_like(seen, 2.5), seen], 1))


@pytest.mark.parametrize("thinking", [0, 1, 2, 5])
def test_thinking_advances_the_agent_at_the_start_of_each_episode_and_not_the_environment(thinking):
    scores = evaluate(Counting(), Scripted(3), 6, seed=0, epsilon=0, thinking=thinking)
    late = max(2 - thinking, 0)
    assert scores.lengths.tolist() == [3, 3, 4, 4, 5, 5]
    assert scores.returns.tolist() == [3 - late, 3 - late, 4 - late, 4 - late, 5 - late, 5 - late]


def test_thinking_less_than_not_at_all_is_refused(pays):
    with pytest.raises(UserError, match="thinking=-1 given"):
        evaluate(pays, Scripted(1), 1, seed=0, thinking=-1)


def test_an_environment_of_another_kind_is_refused_in_a_sentence(pays):
    with pytest.raises(UserError, match="object given as an environment, which has no `send` and `recv`"):
        evaluate(pays, object(), 1, seed=0)
    with pytest.raises(UserError, match="episodes=0 given"):
        evaluate(pays, Scripted(1), 0, seed=0)


def test_an_agent_that_does_not_fit_the_environment_is_a_sentence_at_its_first_step():
    for actions in (1, 5):
        agent = wrap(nn.Linear(2, actions), {}, output="q_values")
        said = f"an agent was given with {actions} q_values, and the environment has 2 actions: STAY, PAY; they must"
        with pytest.raises(UserError, match=said):
            evaluate(agent, Scripted(2), 1, seed=0)
    with pytest.raises(
        UserError, match=r"can't take observations float32 \[2, 2\] \(RuntimeError: mat1 .* convert them"
    ):
        evaluate(wrap(nn.Linear(3, 2), {}), Scripted(2), 1, seed=0)
    with pytest.raises(UserError, match="with 5 logits, and the environment has 2 actions"):
        evaluate(wrap(nn.Linear(4, 5), {}), gymnasium.make("CartPole-v1"), 1, seed=0)


def test_an_agent_without_weights_can_play():
    class Always(Agent):
        def step(self, obs, state=(), first=None):
            return PolicyOutput(q_values=torch.tensor([0.0, 1.0]).expand(len(obs), 2).bfloat16())

    assert evaluate(Always(), Scripted(2), 2, seed=0, epsilon=0).returns.tolist() == [3, 4]


class Steering(nn.Module):
    """A mean and a spread for two numbers."""

    def forward(self, obs):
        return PolicyOutput(mean=obs * 2, std=torch.full_like(obs, 0.5))


def test_continuous_actions_are_samples_of_their_distribution_or_its_mean():
    agent = wrap(Steering(), {}, output="mean")
    obs, first = np.ones((20_000, 2), np.float32), np.ones(20_000, bool)
    actions = Actor(agent, 20_000, np.random.default_rng(0)).act(obs, first, epsilon=0.0)
    assert (actions.dtype, actions.shape) == (np.float32, (20_000, 2))
    np.testing.assert_allclose(actions.mean(0), 2, atol=0.02)
    np.testing.assert_allclose(actions.std(0), 0.5, atol=0.02)
    certain = wrap(nn.Identity(), {}, output="mean")
    assert (Actor(certain, 20_000, np.random.default_rng(0)).act(obs, first, epsilon=0.0) == obs).all()


def test_continuous_actions_that_are_not_finite_are_a_sentence():
    out = PolicyOutput(mean=torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(UserError, match="the agent's actions are NaN"):
        choose(out, np.random.default_rng(0), 0.0)
