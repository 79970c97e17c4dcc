"""A run's agent at play, on an agent whose wants are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_maze import Planted

from rl_interp.agents.load import Loaded
from rl_interp.analysis.mazes.goals import find_goals
from rl_interp.analysis.playing import on_levels, score, scores_json, watch
from rl_interp.core.agent import Agent, PolicyOutput
from rl_interp.core.envs import MazeConfig, SokobanConfig, make_labelled
from rl_interp.core.envs.sokoban.draw import kinds_of
from rl_interp.core.envs.sokoban.truth import plan_of
from rl_interp.core.errors import UserError
from rl_interp.core.progress import Notice, Progress
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


class Solver(Agent):
    """Plays Sokoban as the solver would; up, where nothing helps."""

    hook_points = {}

    def step(self, obs, state=(), first=None):
        plans = [plan_of(kinds_of(each)).actions for each in obs.numpy()]
        chosen = [0 if plan is None or not len(plan) else int(plan[0]) for plan in plans]
        return PolicyOutput(logits=100 * torch.nn.functional.one_hot(torch.tensor(chosen), 4).float())


def test_levels_of_a_file_are_each_played_and_dead_ones_are_said(loaded, tmp_path):
    (tmp_path / "mine.txt").write_text(
        "######\n#@$ .#\n######\n\n; dead\n######\n#$@ .#\n######\n\n; wide\n########\n#@ $  .#\n########\n"
    )
    sokoban = replace(loaded, agent=Solver(), env=SokobanConfig(rows=5, columns=8, boxes=1).scored)
    with pytest.warns(Notice, match="no play solves mine:dead; they are played all the same"):
        on_file = on_levels(sokoban, str(tmp_path / "mine.txt"))
    found = scores_json(score(on_file, episodes=6, seed=0, epsilon=0.0, thinking=2), on_file.env, 0, 0.0, thinking=2)
    assert found["success_rate"] == pytest.approx(2 / 3)
    assert found["success_rate_interval"][0] < 2 / 3 < found["success_rate_interval"][1]
    assert sorted(np.round(found["returns"], 1)) == [-12, -12, 10.6, 10.6, 10.8, 10.8]
    assert (found["protocol"]["thinking"], found["protocol"]["levels"]) == (2, str(tmp_path / "mine.txt"))


def test_other_agents_have_no_levels_and_boards_have_a_size(loaded, tmp_path):
    with pytest.raises(UserError, match=r"--levels hard given for an agent in rl_interp/Maze-v0; only Sokoban has"):
        on_levels(loaded, "hard")
    (tmp_path / "wide.txt").write_text("########\n#@ $  .#\n########\n")
    with pytest.raises(UserError, match="level wide:0 is 3 x 8 cells, larger than 7 x 7"):
        on_levels(replace(loaded, env=SokobanConfig(rows=7, columns=7)), str(tmp_path / "wide.txt"))


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
