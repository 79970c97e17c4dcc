"""Imitation of solutions: what is shown, and that it is learned."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from rl_interp.agents.impala import default_config
from rl_interp.agents.impala.imitation import Imitation, demonstrations
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.sokoban.solve import solve
from rl_interp.core.envs.sokoban.vector import SokobanVector
from rl_interp.core.errors import RunError, UserError

LEVELS = """; 0
######
#@ $.#
#    #
######

; 1
######
#.   #
#$ @ #
#    #
######
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "levels.txt").write_text(LEVELS)
    (tmp_path / "solutions.csv").write_text("level,actions\nlevels:0,RR\nlevels:1,DLLU\n")
    env = SokobanConfig(levels=str(tmp_path / "levels.txt"), rows=5, columns=6, observation="symbols")
    return replace(
        default_config(
            env,
            agent_steps=10_000,
            layers=1,
            ticks=1,
            channels=(8,),
            hidden=16,
            num_envs=8,
            unroll=5,
            learning_rate=4e-3,
        ),
        env=env,
        imitate=str(tmp_path / "solutions.csv"),
    )


def test_solutions_are_shown_in_every_symmetry_as_the_game_plays_them(config):
    streams = Imitation(config, 0, "cpu")._lessons
    for number, demonstration in enumerate(demonstrations(config)):
        for turns in (0, 2):
            for mirrored in (0, 1):
                shown = streams._episode(number, turns, mirrored)
                game = SokobanVector(config.env, 1)
                game.reset(0)
                obs = game.set_state(Levels(shown["obs"][:1, 0], ("shown",)))
                rewards, done = [], False
                for t, action in enumerate(shown["actions"]):
                    assert np.array_equal(obs[0], shown["obs"][t])
                    assert not done
                    game.send(np.array([action]))
                    step = game.recv()
                    obs, done = step.obs, bool(step.terminated[0])
                    rewards.append(step.reward[0])
                assert done
                assert np.allclose(rewards, demonstration.rewards)
                discounts = config.gamma ** np.arange(len(rewards))
                assert shown["returns"][0] == pytest.approx(config.reward_scale * (discounts * rewards).sum())
                assert shown["first"].tolist() == [True] + [False] * (len(rewards) - 1)


def test_an_agent_is_taught_wherever_it_gets_to_and_locks_no_box_in(config):
    config = replace(config, imitate="solver")
    training = Imitation(config, 0, "cpu")
    lessons, agent = training._lessons, training.agent
    parts = [lessons.next(agent, agent.initial_state(8)) for _ in range(8)]
    lesson = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # All is known but the last observation of an episode, from which a step only begins the next one.
    assert np.array_equal(~lesson["known"][:-1], lesson["first"][1:])
    assert lesson["known"].mean() > 0.8
    for t, i in np.argwhere(lesson["known"])[::7]:
        plan = solve(lesson["obs"][t, i, 0], fewest="steps")
        rewards = _rewards(config, lesson["obs"][t, i], lesson["actions"][t, i])
        assert plan.actions is not None
        assert len(rewards) == len(plan.actions)
        discounts = config.gamma ** np.arange(len(rewards))
        assert lesson["returns"][t, i] == pytest.approx(config.reward_scale * (discounts * rewards).sum())


def _rewards(config, board, action):
    """What the game gives for a solution that begins with an action."""
    game = SokobanVector(config.env, 1)
    game.reset(0)
    game.set_state(Levels(board, ("shown",)))
    rewards = []
    while True:
        game.send(np.array([action]))
        step = game.recv()
        rewards.append(step.reward[0])
        if step.terminated[0]:
            return np.array(rewards)
        action = solve(game.boards[0], fewest="steps").actions[0]


@pytest.mark.parametrize(("teacher", "accuracy"), [("file", 0.9), ("solver", 0.6)])
def test_what_is_shown_is_learned_and_a_resumed_training_goes_on_as_if_it_had_not_stopped(config, teacher, accuracy):
    config = replace(config, imitate="solver") if teacher == "solver" else config
    training = Imitation(config, 0, "cpu")
    for _ in range(40):
        training.advance()
    assert training.metrics()["accuracy"] > accuracy
    again = Imitation(config, 1, "cpu")
    weights = {name: value.clone() for name, value in training.agent.state_dict().items()}
    again.restore(weights, copy.deepcopy(training.state()), "here")
    for each in (training, again):
        each.advance()
        each.advance()
    assert again.agent_steps == training.agent_steps == 42 * 8 * 5
    for ours, theirs in zip(again.agent.parameters(), training.agent.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("level,actions\nlevels:0,RL\n", UserError, "the solution of level levels:0 .* does not solve it"),
        ("level,actions\nothers:0,RR\n", UserError, "'others:0', but none of those of .*, such as 'levels:0'"),
        ("level,actions\nlevels:0,RX\n", RunError, "level levels:0 has the action 'X'"),
        ("level\n0\n", RunError, r"its columns are \['level'\]"),
    ],
)
def test_solutions_that_are_none_are_refused(config, text, error, message):
    with open(config.imitate, "w") as file:
        file.write(text)
    with pytest.raises(error, match=message):
        demonstrations(config)
