"""The two Atari environments against each other, and the vector convention against the emulator."""

import ale_py
import gymnasium
import numpy as np
import pytest
from selection import in_full

from rl_interp.core.envs import AtariConfig, make_labelled, make_vector
from rl_interp.core.envs.atari.config import emulator, rom_path
from rl_interp.core.errors import UserError

gymnasium.register_envs(ale_py)
GAMES = [each for each in gymnasium.registry if each.startswith("ALE/")]


@pytest.mark.parametrize(
    "config",
    [
        AtariConfig(),
        *in_full(AtariConfig(noop_max=0, sticky_actions=0.0)),
        AtariConfig("ALE/Pong-v5", frame_skip=3, frame_stack=2),
    ],
)
def test_the_labelled_environment_shows_what_the_vector_one_shows(config):
    vector, single = make_vector(config, 1, workers=1), make_labelled(config)
    rng = np.random.default_rng(0)
    episodes, ended = 0, False
    np.testing.assert_array_equal(vector.reset(seed=11)[0], single.reset(seed=11)[0])
    for _ in range(1000):
        action = int(rng.integers(len(vector.action_names)))
        vector.send(np.array([action]))
        step = vector.recv()
        assert step.first[0] == ended
        if ended:
            obs, info = single.reset()
            reward, ended = 0.0, False
        else:
            obs, reward, ended, truncated, info = single.step(action)
            assert step.truncated[0] == truncated
        np.testing.assert_array_equal(step.obs[0], obs)
        assert (step.reward[0], step.terminated[0], step.info["lives"][0]) == (reward, ended, info["lives"])
        episodes += ended
    assert episodes >= (config.id == "ALE/MsPacman-v5")


@pytest.mark.parametrize(
    "env_id",
    [pytest.param(each, marks=pytest.mark.full if each == "ALE/Pong-v5" else pytest.mark.slow) for each in GAMES],
)
def test_actions_are_what_the_emulator_does_by_their_names(env_id):
    """Each held for some seconds, in the environment, in the vector one, and by the name in the emulator itself."""
    steps = 70 if env_id == "ALE/MsPacman-v5" else 25  # longer than the pause at its start
    config = AtariConfig(env_id, sticky_actions=0.0, noop_max=0)
    single, ale, names = make_labelled(config), emulator(), config.action_names
    vector = make_vector(config, len(names), workers=1)
    vector.reset(seed=0)
    for _ in range(steps):
        vector.send(np.arange(len(names)))
        last = vector.recv().obs
    vector.close()
    ale.setFloat("repeat_action_probability", 0.0)
    for index, name in enumerate(names):
        single.reset(seed=index)  # as the vector environment seeds its environments
        ale.setInt("random_seed", index)
        ale.loadROM(rom_path(env_id))
        ale.reset_game()
        for _ in range(steps):
            obs, *_ = single.step(index)
            for _ in range(4):
                ale.act(ale_py.Action[name])
        np.testing.assert_array_equal(obs, last[index])
        np.testing.assert_array_equal(ale.getScreenRGB(), single._ale.getScreenRGB())


@pytest.mark.parametrize("max_frames", [*in_full(200), 201, *in_full(202, 203)])
def test_both_truncate_at_the_same_frame_also_in_mid_skip(max_frames):
    config = AtariConfig(max_frames=max_frames)
    vector, single = make_vector(config, 1, workers=1), make_labelled(config)
    rng = np.random.default_rng(max_frames)
    vector.reset(seed=3)
    single.reset(seed=3)
    for decision in range(1, 60):
        action = int(rng.integers(9))
        vector.send(np.array([action]))
        step = vector.recv()
        obs, _, terminated, truncated, _ = single.step(action)
        np.testing.assert_array_equal(step.obs[0], obs)
        assert (step.terminated[0], step.truncated[0]) == (terminated, truncated)
        if truncated:
            assert decision == -(-max_frames // 4)
            return
    pytest.fail("the episode was never truncated")


def test_a_lost_life_does_not_restart_the_game():
    env = make_vector(AtariConfig(noop_max=0), 1, workers=1)
    env.reset(seed=0)
    lives, ends = [], []
    for _ in range(900):
        env.send(np.array([2]))
        step = env.recv()
        lives.append(int(step.info["lives"][0]))
        ends.append(bool(step.done[0]))
        if ends[-1]:
            break
    assert [n for n, before in zip(lives[1:], lives, strict=False) if n != before] == [2, 1, 0]
    assert ends.count(True) == 1, "only the last life ends the episode"


def test_an_episode_can_be_played_again_from_its_seed_and_actions():
    config, rng = AtariConfig(), np.random.default_rng(0)
    env = make_labelled(config)
    obs, _ = env.reset(seed=4)
    actions, observations, screens = rng.integers(9, size=300), [], []
    for action in actions:
        observations.append(obs)
        screens.append(env.render())
        obs, *_ = env.step(int(action))
    again, visited = make_labelled(config), []
    for step, seen in again.replay(4, actions, [0, 2, 150, 151, 299]):
        visited.append(step)
        np.testing.assert_array_equal(seen, observations[step])
        np.testing.assert_array_equal(again.render(), screens[step])
    assert visited == [0, 2, 150, 151, 299]


@pytest.mark.parametrize("env_id", ["ALE/MsPacmann-v5", "Nothing-v0"])
def test_an_unknown_game_is_refused(env_id):
    with pytest.raises(UserError, match=f"unknown environment '{env_id}'"):
        make_vector(AtariConfig(env_id), 1)


def test_a_bad_convention_is_refused():
    with pytest.raises(UserError, match="sticky_actions=1.5 given; it is a probability"):
        AtariConfig(sticky_actions=1.5)
