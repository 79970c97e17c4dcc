"""An agent through its training: what is kept, and what is said of it."""

import json
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from scipy.stats import special_ortho_group

from rl_interp.agents import beso
from rl_interp.agents.impala import default_config
from rl_interp.agents.impala.drc import DRC
from rl_interp.agents.impala.training import train
from rl_interp.agents.load import load_agent
from rl_interp.analysis.history.checkpoints import Checkpoint, Settings
from rl_interp.analysis.history.dictionaries import check_dictionaries, crosscode
from rl_interp.analysis.history.maps import Mapped, agreement, gain
from rl_interp.analysis.history.study import _follow, study_history
from rl_interp.analysis.representations import cka, dormant, effective_rank
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.progress import SILENT, Notice
from rl_interp.core.replay import Episode
from rl_interp.core.run import Run
from rl_interp.core.stats import bootstrap, mean
from rl_interp.sae import SAEConfig, fit_crosscoder, split_by_episode
from rl_interp.saliency.evaluation.randomisation import similarity

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


def test_of_a_convolution_a_channel_is_dormant_and_not_a_place():
    """A channel that acts in a corner alone is one unit that acts."""
    values = np.zeros((50, 9, 4))
    values[:, 0, :3] = 1
    assert dormant(values) == 1 / 4
    assert dormant(values.reshape(50, -1)) == 33 / 36


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


def test_rank_and_likeness_are_the_same_by_products_of_states_as_of_units():
    few = VALUES[:4]
    wide, eigenvalues = few - few.mean(0), np.linalg.svd(few - few.mean(0), compute_uv=False).astype(float) ** 2
    assert effective_rank(few) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    other = RNG.normal(size=(4, 7))
    apart = wide.T @ (other - other.mean(0))
    own = [np.linalg.norm(each.T @ each) for each in (wide, other - other.mean(0))]
    assert cka(few, other) == pytest.approx((apart**2).sum() / (own[0] * own[1]))


def mapped(episode: int, untrained: float) -> Mapped:
    """Of which the map before training is that at the end in a share of the places."""
    end = RNG.random(400) + 1
    start = np.where(RNG.random(400) < untrained, end, RNG.random(400) + 1)
    return Mapped(episode, None, {0: start, 5: end}, {})


def test_intervals_of_likeness_are_over_episodes():
    states = [mapped(episode, 0.05 + 0.15 * episode) for episode in range(6) for _ in range(20)]
    alike, by_chance = agreement(states, 0, 5)
    likeness = np.array([similarity(each.maps[0], each.maps[5]) for each in states])
    expected = bootstrap([likeness.reshape(6, 20).mean(1)], mean)
    assert (alike.value, *alike.interval) == pytest.approx((expected.value, *expected.interval))
    assert abs(by_chance) < 0.05
    assert agreement(states[:40], 0, 5)[0].interval is None, "of two episodes"
    more = gain(states, 5, 0, 5)
    assert more.value == pytest.approx(1 - alike.value)
    assert more.excludes_zero
    assert gain(states, 0, 0, 5).value == 0


def checkpoints(count: int, width: int = 6) -> list[Checkpoint]:
    return [
        Checkpoint(step, VALUES[:, None, :width] + 0.01 * RNG.normal(size=(500, 1, width)).astype(np.float32), VALUES)
        for step in range(count)
    ]


def test_without_a_crosscoder_the_rest_is_still_said():
    episodes, settings = np.repeat(np.arange(10), 50), Settings(crosscoder=450, k=2, epochs=1)
    with pytest.warns(Notice, match="no crosscoder: 400 samples given for 450 latents"):
        assert crosscode(checkpoints(3), episodes, settings, SILENT) is None
    silent = checkpoints(2)
    silent[0].values[:] = 1
    with pytest.warns(Notice, match="no crosscoder: the layer is silent"):
        assert crosscode(silent, episodes, settings, SILENT) is None


def test_both_spreads_of_a_crosscoder_are_of_latents_that_fire(monkeypatch):
    coders = []
    monkeypatch.setattr(
        "rl_interp.analysis.history.dictionaries.fit_crosscoder",
        lambda *given: coders.append(fit_crosscoder(*given)) or coders[-1],
    )
    followed, episodes = checkpoints(3), np.repeat(np.arange(10), 50)
    found = crosscode(followed, episodes, Settings(crosscoder=300, k=1, epochs=1), SILENT)
    _, held_out = split_by_episode(episodes, SAEConfig.held_out, 0)
    for turns, coder, spread in zip((0, 166), coders, (found["spread"], found["spread_by_chance"]), strict=True):
        shown = np.concatenate([np.roll(each.flat, n * turns, 0)[held_out] for n, each in enumerate(followed)], 1)
        fires = (coder.sae.encode(torch.from_numpy(shown)) > 0).any(0).numpy()
        assert fires.mean() < 0.5
        assert spread == pytest.approx(np.median(coder.spread()[fires]))
        assert spread != pytest.approx(np.median(coder.spread()))


@pytest.mark.parametrize(
    ("width", "settings", "said"),
    [
        (9000, Settings(latents=64), "9,000 numbers a sample given, of which at most 8,192"),
        (64, Settings(samples=1000, crosscoder=1000), "about 800 of 1000 samples would be fitted, fewer than 1000"),
    ],
)
def test_what_dictionaries_lack_is_said_before_anything_is_played(width, settings, said):
    check_dictionaries(9000, Settings())
    with pytest.raises(UserError, match=said):
        check_dictionaries(width, settings)


@pytest.mark.parametrize(("hook", "positions", "units"), [("layer1.h", 100, 4), ("conv1", 100, 4), ("fc.post", 1, 16)])
def test_a_layer_that_is_followed_has_its_units_last_and_of_ticks_the_newest(hook, positions, units):
    torch.manual_seed(0)
    agent = DRC(4, (3, 10, 10), layers=2, ticks=3, channels=4, hidden=16)
    obs = RNG.integers(0, 255, (3, 3, 10, 10), np.uint8)
    values, preferences = _follow(agent, Episode(obs, np.zeros(3, np.int64), 0), hook)
    assert (values.shape, preferences.shape) == ((3, positions, units), (3, 4))
    state = agent.initial_state(1)
    for obs_now, followed in zip(obs, values, strict=True):
        out, cache = run_with_cache(agent, torch.from_numpy(obs_now[None]), state, names=[hook])
        newest, state = agent.hook_points[hook].newest(cache[hook])[0].detach(), out.state
        np.testing.assert_allclose(followed, newest.reshape(units, positions).T, atol=1e-5)


@pytest.mark.full
def test_kept_checkpoints_are_followed_to_the_end_on_the_same_states(tmp_path):
    config = default_config(
        "MiniGrid-Empty-5x5-v0", agent_steps=320, num_envs=4, hidden=16, lstm=8, eval_episodes=1, keep_checkpoints=4
    )
    train(config, Run.create(tmp_path / "run", "impala", config, 0), 0, actors=0)
    loaded = load_agent(tmp_path / "run")
    assert loaded.run.history_steps() == [0, 80, 320]  # 1 and 14 steps are within the first update
    with pytest.raises(UserError, match="800 activations in 3 .* are 12.8 GB; give at most --samples 156250"):
        study_history(loaded, "conv1.post", Settings(samples=1_000_000))
    settings = Settings(samples=400, episodes=4, maps=8, latents=16, crosscoder=24, k=4, epochs=1)
    result = study_history(loaded, settings=settings)
    assert json.loads((tmp_path / "run/analyses/history/fc.post/result.json").read_text())["hook"] == "fc.post"
    first, middle, last = result["checkpoints"]
    assert first["likeness_to_previous"] is None
    assert last["likeness_to_end"] == pytest.approx(1, abs=1e-3)  # all are in half precision
    assert last["same_action"] == 1
    assert 0 < first["likeness_by_chance"] < first["likeness_to_end"]
    assert middle["likeness_to_previous"] > 0.9
    assert 0 <= last["dictionary"]["found_before"]["value"] <= 1
    assert last["maps"]["like_the_end"] == pytest.approx(1)
    assert last["maps"]["by_chance"] < 1
    assert middle["maps"]["like_the_end"] > first["maps"]["like_the_end"]
    assert middle["maps"]["gained"] == pytest.approx(middle["maps"]["like_the_end"] - first["maps"]["like_the_end"])
    assert first["maps"]["gained"] is None
    assert sum(each["crosscoder"]["born"] for each in result["checkpoints"]) == pytest.approx(1)
    assert 1 <= result["crosscoder"]["spread"] <= 3
    assert imageio_ffmpeg.count_frames_and_secs(result["film"])[0] == 3
    assert first["probes"]["wall_ahead"]["value"] > 0.9  # an untrained network shows it too
    assert (tmp_path / "run/analyses/history/fc.post/curves.png").stat().st_size > 10_000
    weights = load_agent(tmp_path / "run", 0).agent.state_dict()
    assert any((weights[name] != value).any() for name, value in loaded.agent.state_dict().items())


@pytest.mark.full
def test_of_continuous_actions_the_distance_to_the_end_s_is_told(tmp_path):
    config = beso.default_config(
        "rl_interp/TwoWays-v0", layers=1, width=16, heads=2, hidden=16, window=3, demonstrations=20, num_envs=16,
        agent_steps=1600, log_every=800, checkpoint_every=0, eval_episodes=1, warmup=50, keep_checkpoints=3,
        objective="mse",
    )  # fmt: skip
    beso.train(config, Run.create(tmp_path / "run", "beso", config, 0), 0)
    settings = Settings(samples=200, episodes=0)
    result = study_history(load_agent(tmp_path / "run"), "final", settings)
    first, *_, last = result["checkpoints"]
    assert last["action_error"] == pytest.approx(0, abs=1e-2)
    assert first["action_error"] > last["action_error"]
    assert "same_action" not in first
    assert "distance to the end's actions" in Path(result["table"]).read_text()


def test_a_run_without_them_is_refused(tmp_path):
    config = default_config("MiniGrid-Empty-5x5-v0", agent_steps=80, num_envs=4, hidden=16, lstm=8, eval_episodes=1)
    train(config, Run.create(tmp_path / "run", "impala", config, 0), 0, actors=0)
    with pytest.raises(UserError, match="has kept 0 checkpoints .* train with --keep-checkpoints 12"):
        study_history(load_agent(tmp_path / "run"))
