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
    streams = Imitation(config, 0, "cpu")._streams
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


def test_solutions_are_searched_where_none_are_given(config):
    streams = Imitation(replace(config, imitate="solver"), 0, "cpu")._streams
    assert {len(streams._all[number].actions) for number in range(2)} == {2, 4}
    generated = replace(config.env, levels="generated", rows=7, columns=7, boxes=1)
    training = Imitation(replace(config, env=generated, imitate="solver"), 0, "cpu")
    shown = training._streams.next()
    assert shown["obs"].shape == (5, 8, 1, 7, 7)
    for number in training._streams._drawn[:, 0]:
        board, actions, rewards = training._streams._all[number]
        assert np.array_equal(solve(board[0], fewest="steps").actions, actions)
        assert rewards[-1] > 10


@pytest.mark.parametrize("teacher", ["file", "solver"])
def test_what_is_shown_is_learned_and_a_resumed_training_goes_on_as_if_it_had_not_stopped(config, teacher):
    config = replace(config, imitate="solver") if teacher == "solver" else config
    training = Imitation(config, 0, "cpu")
    for _ in range(40):
        training.advance()
    assert training.metrics()["accuracy"] > 0.9
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
