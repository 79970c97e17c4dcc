"""A run's agent at play, on an agent whose wants are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_maze import Planted

from rl_interp.agents.load import Loaded
from rl_interp.analysis.mazes.goals import find_goals
from rl_interp.analysis.playing import score, scores_json, watch
from rl_interp.core.agent import Agent, PolicyOutput
from rl_interp.core.envs import MazeConfig, make_labelled
from rl_interp.core.progress import Progress
from rl_interp.core.run import Run


@pytest.fixture
def loaded(tmp_path) -> Loaded:
    return Loaded(Run(tmp_path / "mouse"), 0, Planted(), MazeConfig(min_side=11, max_side=11), "")


def test_watching_is_the_same_episode_wherever_it_starts(loaded):
    whole = watch(loaded, make_labelled(loaded.env), steps=3, skip=0, seed=4)
    part = watch(loaded, make_labelled(loaded.env), steps=2, skip=1, seed=4)
    assert [moment.step for moment in part] == [1, 2]
    for moment, same in zip(part, whole[1:3], strict=True):
        np.testing.assert_array_equal(moment.obs, same.obs)
        np.testing.assert_array_equal(moment.screen, same.screen)
        assert (moment.action, moment.episode_return) == (same.action, same.episode_return)


class Remembering(Agent):
    """Its state is how many steps it has seen."""

    hook_points = {}

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def step(self, obs, state=(), first=None):
        return PolicyOutput((state[0] + 1,), logits=torch.zeros(len(obs), 5))


def test_a_moment_has_what_the_agent_remembered_before_it(loaded):
    moments = watch(replace(loaded, agent=Remembering()), make_labelled(loaded.env), steps=3, skip=1, seed=4)
    assert [float(moment.state[0]) for moment in moments] == [1, 2, 3]


def test_watching_ends_with_the_episode(loaded):
    moments = watch(loaded, make_labelled(loaded.env), steps=10_000, skip=0, seed=4)
    assert 0 < len(moments) < 10_000


def test_scores_say_under_which_protocol_they_were_played(loaded):
    scores = score(loaded, episodes=6, seed=3, epsilon=0.0)
    found = scores_json(scores, loaded.env, seed=3, epsilon=0.0)
    assert len(found["returns"]) == found["episodes"] == 6
    assert found["mean"] == pytest.approx(np.mean(found["returns"]))
    assert (found["protocol"]["seed"], found["protocol"]["epsilon"], found["protocol"]["max_side"]) == (3, 0.0, 11)


def test_scores_follow_from_the_seed(loaded):
    first, again, other = (score(loaded, episodes=6, seed=seed, epsilon=0.0).lengths.tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_an_analysis_is_silent_unless_it_is_given_a_progress(loaded, capfd):
    find_goals([loaded], episodes=4)
    assert capfd.readouterr() == ("", "")
    assert json.loads((loaded.run.path / "analyses" / "goals" / "result.json").read_text())[0]["run"] == "mouse"

    class Bars(Progress):
        titles: list[str] = []

        def bar(self, title, total, unit):
            self.titles.append(f"{title}: {total} {unit}")
            return super().bar(title, total, unit)

    find_goals([loaded], episodes=4, progress=Bars())
    assert Bars.titles == ["Playing mouse: 4 episodes"]
