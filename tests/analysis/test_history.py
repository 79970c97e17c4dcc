"""An agent through its training: what is kept, and what is said of it."""

import json

import imageio_ffmpeg
import numpy as np
import pytest
from scipy.stats import special_ortho_group

from rl_interp.agents.impala import default_config
from rl_interp.agents.impala.training import train
from rl_interp.agents.load import load_agent
from rl_interp.analysis.history.checkpoints import Settings
from rl_interp.analysis.history.study import study_history
from rl_interp.analysis.representations import cka, dormant, effective_rank
from rl_interp.core.errors import UserError
from rl_interp.core.run import Run

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(500, 6)).astype(np.float32)


def test_a_layer_that_varies_evenly_in_some_directions_has_their_number_as_its_rank():
    mixed = VALUES @ special_ortho_group.rvs(6, random_state=0) + 3
    assert effective_rank(mixed) == pytest.approx(6, rel=0.05)
    mixed[:, 3:] = 1
    eigenvalues = np.linalg.svd(mixed - mixed.mean(0), compute_uv=False).astype(float) ** 2
    assert effective_rank(mixed) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert effective_rank(np.ones((10, 3))) == 0


def test_units_that_hardly_act_beside_the_others_are_dormant():
    values = np.abs(VALUES) * [1, 1, 1, 1, 0.001, 0]
    assert dormant(values) == pytest.approx(2 / 6)
    assert dormant(100 * values) == dormant(values)


def test_likeness_is_that_of_the_centred_kernels_and_knows_no_rotation():
    other = np.tanh(VALUES @ RNG.normal(size=(6, 4)))
    kernels = [each @ each.T for each in (VALUES, other)]
    centre = np.eye(500) - 1 / 500
    first, second = (centre @ kernel @ centre for kernel in kernels)
    expected = (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
    assert cka(VALUES, other) == pytest.approx(expected, rel=1e-4)
    assert cka(VALUES, 5 * VALUES @ special_ortho_group.rvs(6, random_state=1) + 2) == pytest.approx(1)
    assert cka(VALUES, np.ones((500, 2))) == 0
    with pytest.raises(UserError, match="500 and 499 states"):
        cka(VALUES, other[1:])


@pytest.mark.full
def test_kept_checkpoints_are_followed_to_the_end_on_the_same_states(tmp_path):
    config = default_config(
        "MiniGrid-Empty-5x5-v0", agent_steps=320, num_envs=4, hidden=16, lstm=8, eval_episodes=1, keep_checkpoints=4
    )
    train(config, Run.create(tmp_path / "run", "impala", config, 0), 0, actors=0)
    loaded = load_agent(tmp_path / "run")
    assert loaded.run.history_steps() == [0, 80, 320]  # 1 and 14 steps are within the first update
    settings = Settings(samples=400, episodes=4, maps=8, latents=16, crosscoder=24, k=4, epochs=1)
    result = study_history(loaded, settings=settings)
    assert json.loads((tmp_path / "run/analyses/history/fc.post/result.json").read_text())["hook"] == "fc.post"
    first, middle, last = result["checkpoints"]
    assert first["likeness_to_previous"] is None
    assert last["likeness_to_end"] == pytest.approx(1, abs=1e-3)  # all are in half precision
    assert last["same_action"] == 1
    assert middle["likeness_to_previous"] > 0.9
    assert 0 <= last["dictionary"]["found_before"]["value"] <= 1
    assert last["maps"]["like_the_end"] == pytest.approx(1)
    assert last["maps"]["by_chance"] < 1
    assert middle["maps"]["like_the_end"] > first["maps"]["like_the_end"]
    assert sum(each["crosscoder"]["born"] for each in result["checkpoints"]) == pytest.approx(1)
    assert 1 <= result["crosscoder"]["spread"] <= 3
    assert imageio_ffmpeg.count_frames_and_secs(result["film"])[0] == 3
    assert first["probes"]["wall_ahead"]["value"] > 0.9  # an untrained network shows it too
    assert (tmp_path / "run/analyses/history/fc.post/curves.png").stat().st_size > 10_000
    weights = load_agent(tmp_path / "run", 0).agent.state_dict()
    assert any((weights[name] != value).any() for name, value in loaded.agent.state_dict().items())


def test_a_run_without_them_is_refused(tmp_path):
    config = default_config("MiniGrid-Empty-5x5-v0", agent_steps=80, num_envs=4, hidden=16, lstm=8, eval_episodes=1)
    train(config, Run.create(tmp_path / "run", "impala", config, 0), 0, actors=0)
    with pytest.raises(UserError, match="has kept 0 checkpoints .* train with --keep-checkpoints 12"):
        study_history(load_agent(tmp_path / "run"))
