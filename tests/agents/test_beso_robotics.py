"""PointMaze and data sets of Minari's, which need the extra robotics."""

import json

import numpy as np
import pytest

from rl_interp.agents import beso
from rl_interp.agents.beso import load_demonstrations, save_demonstrations
from rl_interp.core.envs import TwoWaysConfig, env_config

WANTED = "needs the extra robotics: pip install 'rl-interp[robotics]'"


def test_a_controller_demonstrates_ways_to_the_goals_of_point_maze():
    pytest.importorskip("gymnasium_robotics", reason=WANTED)
    env = env_config("gymnasium_robotics:PointMaze_UMaze-v3", kwargs=["continuing_task=False"])
    assert env.goals.state == (0, 1, 4, 5, 6, 7)
    assert env.goals.goal == (2, 3)
    made = beso.demonstrate(env, 4, seed=0)
    again = beso.demonstrate(env, 4, seed=0)
    assert np.array_equal(made.states, again.states)
    assert np.abs(made.taken).max() <= 1
    for number in range(4):
        states, _ = made.episode(number)
        assert np.allclose(states[:, :2], states[:, 2:4])  # what is achieved is where the point is
        assert np.hypot(*np.diff(states[:, :2], axis=0).T).max() < 0.1  # a step is a hundredth of a second
    beso.Training(
        beso.default_config(env, demonstrations=4, layers=1, width=16, heads=2, num_envs=8), 0, "cpu"
    ).advance()


def test_demonstrations_are_written_and_read_as_minari_keeps_them(tmp_path):
    pytest.importorskip("h5py", reason=WANTED)
    made = beso.demonstrate(TwoWaysConfig(), 3, 0)
    save_demonstrations(made, tmp_path / "ways-v1", minari=True)
    again = load_demonstrations(tmp_path / "ways-v1")
    for name in ("states", "actions", "starts"):
        assert np.array_equal(getattr(again, name), getattr(made, name))
    described = json.loads((tmp_path / "ways-v1" / "data" / "metadata.json").read_text())
    assert (described["dataset_id"], described["total_steps"]) == ("ways-v1", made.steps)
    assert json.loads(described["action_space"])["shape"] == [2]


def test_minari_itself_reads_them_with_what_describes_them(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="needs minari: pip install 'minari[hdf5]'")
    made = beso.demonstrate(TwoWaysConfig(), 3, 0)
    save_demonstrations(made, tmp_path / "demonstrated" / "ways-v1", minari=True)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    read = minari.load_dataset("demonstrated/ways-v1")
    assert (read.total_episodes, read.total_steps) == (3, made.steps)
    assert read.spec.dataset_name == "ways"
    assert read.observation_space.shape == read.action_space.shape == (2,)
    for number, episode in enumerate(read.iterate_episodes()):
        states, actions = made.episode(number)
        assert np.array_equal(episode.observations, states)
        assert np.array_equal(episode.actions, actions)
        assert episode.terminations.tolist() == [False] * (len(actions) - 1) + [True]
