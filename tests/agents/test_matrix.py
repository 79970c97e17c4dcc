"""Every agent in every kind of environment: it trains, is saved, loads, keeps the contract and resumes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from selection import in_full

from rl_interp.agents import dqn, dreamerv3, impala
from rl_interp.agents.cbet import default_bonus
from rl_interp.agents.load import load_agent
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs import MiniGridConfig, env_config, make_vector
from rl_interp.core.errors import UserError
from rl_interp.core.run import Run

AGENTS = {"dqn": dqn, "impala": impala, "dreamerv3": dreamerv3}
SHORT = dict(num_envs=2, log_every=40, eval_episodes=1, checkpoint_every=0, eval_every=0, precision="fp32")
SMALL = {
    "dqn": dict(agent_steps=160, learning_starts=40, replay_capacity=1000, batch_size=8, hidden=16, env_threads=1),
    "impala": dict(agent_steps=160, unroll=10, hidden=16, lstm=16, channels=(4, 4), minibatches=1),
    "dreamerv3": dict(
        size="debug", agent_steps=160, learning_starts=100, batch_size=2, batch_length=8, train_ratio=16,
        imag_horizon=3, replay_on_disk=False,
    ),
}  # fmt: skip
MINIGRID, CRAFTER, MAZE = "MiniGrid-Empty-5x5-v0", "CrafterReward-v1", "rl_interp/Maze-v0"
SOKOBAN = "rl_interp/Sokoban-v0"
ATARI, VECTOR = "ALE/Pong-v5", "CartPole-v1"
MINIGRID_PIXELS = MiniGridConfig(MINIGRID, observation="pixels")
SMALL_SCREEN = ("gymnasium.wrappers:AddRenderObservation", "gymnasium.wrappers:ResizeObservation(shape=(36, 48))")


def pictures():
    """A Gymnasium environment outside the suite's families, that shows its screen."""
    return env_config("FrozenLake-v1", wrappers=SMALL_SCREEN)


def small(kind, env_id, **changes):
    drc = {"channels": (4,), "lstm": 0, "layers": 1, "ticks": 1} if (kind, env_id) == ("impala", SOKOBAN) else {}
    return AGENTS[kind].default_config(env_id, **{**SHORT, **SMALL[kind], **drc, **changes})


def start(kind, config, directory=None):
    package = AGENTS[kind]
    return package.Training(config, 0, "cpu") if kind == "impala" else package.Training(config, 0, directory, "cpu")


def advanced(training, steps):
    while training.agent_steps < steps:
        training.advance()
    return training


@pytest.mark.parametrize(
    ("kind", "env_id"),
    [
        ("dqn", MINIGRID), ("dqn", VECTOR), ("impala", VECTOR), *in_full(("impala", ATARI), ("dreamerv3", VECTOR)),
        *in_full(("dqn", CRAFTER), ("dqn", MAZE), ("dreamerv3", ATARI), ("dreamerv3", MAZE)),
        *in_full(("impala", SOKOBAN)),
        *(pytest.param(kind, SOKOBAN, marks=pytest.mark.slow) for kind in ("dqn", "dreamerv3")),
    ],
)  # fmt: skip
def test_it_learns_is_saved_and_loads(kind, env_id, tmp_path):
    learns_is_saved_and_loads(kind, env_id, True, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize(("kind", "env_id"), [("dqn", MAZE), ("impala", ATARI), ("dreamerv3", VECTOR)])
def test_it_learns_without_a_bonus_too(kind, env_id, tmp_path):
    learns_is_saved_and_loads(kind, env_id, False, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["dqn", "dreamerv3"])
def test_it_learns_from_minigrids_pixels(kind, tmp_path):
    learns_is_saved_and_loads(kind, MINIGRID_PIXELS, False, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["dqn", "impala"])
def test_it_learns_from_pictures_of_any_gymnasium_environment(kind, tmp_path):
    learns_is_saved_and_loads(kind, pictures(), False, tmp_path)


def learns_is_saved_and_loads(kind, env, cbet, tmp_path):
    config = small(kind, env)
    config = replace(config, cbet=default_bonus(config.env)) if cbet else config
    training = advanced(start(kind, config), 160)
    try:
        figures = training.metrics()
        assert figures["updates"] > 0
        assert all(np.isfinite(value) for value in figures.values())
        assert ("bonus" in figures) == cbet
        run = Run.create(tmp_path / "run", kind, config, 0)
        run.save_checkpoint(160, training.agent.state_dict(), training.state())
    finally:
        training.close()
    loaded = load_agent(run.path, device="cpu")
    shape = config.env.observation_shape
    if config.env.observation_kind == "vector":
        obs = torch.randn(3, *shape)
    else:
        most = 256 if config.env.categories is None else min(config.env.categories)
        obs = torch.randint(0, most, (3, *shape), dtype=torch.uint8)
    check_agent(loaded.agent, obs)


@pytest.mark.parametrize("env_id", [VECTOR, MINIGRID, *in_full(MAZE)])
def test_a_dqn_resumes_bit_for_bit_where_its_environments_do(env_id, tmp_path):
    config = small("dqn", env_id)
    stopped = advanced(start("dqn", config, tmp_path / "replay"), 80)
    run = Run.create(tmp_path / "run", "dqn", config, 0)
    run.save_checkpoint(80, stopped.agent.state_dict(), stopped.state())
    resumed = start("dqn", config, tmp_path / "replay")
    resumed.restore(run.load_weights(), run.load_state(), run.path)
    whole = advanced(start("dqn", config), 160)
    advanced(resumed, 160)
    for ours, right in zip(resumed.agent.parameters(), whole.agent.parameters(), strict=True):
        assert torch.equal(ours, right)


@pytest.mark.parametrize(
    ("env_id", "points"),
    [
        (ATARI, {"conv1.pre", "conv3.post"}),
        (MINIGRID, {"embed", "conv2.post"}),
        (VECTOR, {"mlp1.pre", "mlp1.post"}),
    ],
)
def test_the_encoder_of_a_dqn_follows_from_what_it_sees(env_id, points):
    agent = dqn.make_agent(dqn.default_config(env_id))
    assert points < set(agent.hook_points)


def test_pictures_too_small_for_the_nature_cnn_go_through_the_resnet():
    agent = dqn.DQN(5, (3, 20, 30))
    assert "block3.pool" in agent.hook_points
    check_agent(agent.eval(), torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8))


def test_a_transfer_of_a_dqn_starts_as_its_explorer_plays(tmp_path):
    config = small("dqn", MINIGRID)
    config = replace(config, cbet=default_bonus(config.env), pretrain=True)
    explorer = advanced(start("dqn", config), 160)
    run = Run.create(tmp_path / "explorer", "dqn", config, 0)
    run.save_checkpoint(160, explorer.agent.state_dict(), explorer.state())
    training = start("dqn", small("dqn", MINIGRID, explorer=str(run.path)))
    obs = torch.randint(0, 4, (3, 3, 7, 7), dtype=torch.uint8)
    assert torch.equal(training.agent.step(obs).preferences, explorer.agent.step(obs).preferences)
    before = [weight.clone() for weight in training.agent.explorer.parameters()]
    advanced(training, 160)
    assert all(map(torch.equal, before, training.agent.explorer.parameters()))
    assert not torch.equal(training.agent.step(obs).preferences, explorer.agent.step(obs).preferences)


def test_dreamerv3_predicts_pictures_of_the_environments_size():
    config = small("dreamerv3", ATARI)
    assert config.env.observation_shape == (1, 84, 84)
    agent = dreamerv3.make_agent(config)
    obs = torch.randint(0, 256, (2, 1, 84, 84), dtype=torch.uint8)
    assert agent.world_model.scaled(obs).shape == (2, 1, 64, 64)
    assert agent.world_model.picture(agent.world_model.rssm.initial(2)).shape == obs.shape


@pytest.mark.parametrize(
    ("env", "key"),
    [
        (MINIGRID, "exact"), (MINIGRID_PIXELS, "exact"), (MAZE, "exact"), (SOKOBAN, "exact"),
        (CRAFTER, "simhash"), (VECTOR, "simhash"),
    ],
)  # fmt: skip
def test_observations_are_counted_as_they_are_where_they_come_again_and_else_by_their_hash(env, key):
    config, seen, old = env_config(env), set(), 0
    vector, rng = make_vector(config, 4, 1), np.random.default_rng(0)
    vector.reset(0)
    for _ in range(100):
        vector.send(rng.integers(len(config.action_names), size=4))
        for obs in vector.recv().obs:
            old += obs.tobytes() in seen
            seen.add(obs.tobytes())
    vector.close()
    assert default_bonus(config).key == key
    assert config.observations_recur == (key == "exact") == (old > 200)


def test_ataris_frames_are_counted_by_their_hash():
    """Most of them are new, but for those of a game's start, which stands still."""
    assert default_bonus(env_config(ATARI)).key == "simhash"


@pytest.mark.parametrize("kind", AGENTS)
def test_continuous_actions_are_refused_by_name(kind):
    with pytest.raises(UserError, match=r"Pendulum-v1 has continuous actions.*DiscretizeAction"):
        AGENTS[kind].default_config("Pendulum-v1")
