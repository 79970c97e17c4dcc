"""MiniGrid behind the vector convention, beside the package itself."""

from dataclasses import replace

import gymnasium
import minigrid  # noqa: F401 - registers the ids
import numpy as np
import pytest
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall
from minigrid.wrappers import RGBImgPartialObsWrapper

from rl_interp.core.envs import MiniGridConfig, env_config, make_labelled, make_vector
from rl_interp.core.envs.minigrid.config import make
from rl_interp.core.envs.minigrid.game import MiniGridGame
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.errors import RunError, UserError

TASKS = [
    "MiniGrid-Unlock-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-KeyCorridorS3R3-v0",
    "MiniGrid-BlockedUnlockPickup-v0",
    "MiniGrid-MultiRoom-N4-S5-v0",
    "MiniGrid-ObstructedMaze-2Dlh-v0",  # boxes that hold keys
    "MiniGrid-Dynamic-Obstacles-8x8-v0",  # things that move by themselves
    "MiniGrid-LavaCrossingS9N3-v0",
    "MiniGrid-PutNear-8x8-N3-v0",
    "MiniGrid-FourRooms-v0",
]
"""Every other task of the package agrees as well, but for MiniGrid-WFC-*, whose patterns it does not ship."""


@pytest.mark.parametrize("env_id", TASKS)
def test_observations_rewards_and_ends_are_the_packages(env_id):
    game, package = MiniGridGame(MiniGridConfig(env_id), env_id), gymnasium.make(env_id).unwrapped
    seen, panorama = np.empty((3, 7, 7), np.uint8), np.empty((4, 3, 7, 7), np.uint8)
    rng = np.random.default_rng(0)
    for episode in range(3):
        game.reset(episode)
        obs, _ = package.reset(seed=episode)
        for _ in range(120):
            game.observe(seen)
            np.testing.assert_array_equal(seen, obs["image"].transpose(2, 1, 0))
            game.scene(panorama)
            np.testing.assert_array_equal(panorama, looked_around(package))
            action = int(rng.choice([0, 1, 2, 2, 2, 3, 4, 5]))
            obs, reward, terminated, truncated, _ = package.step(action)
            assert game.step(action) == (reward, terminated, truncated)
            if terminated or truncated:
                break


def looked_around(package) -> np.ndarray:
    """The package's own views in the four directions."""
    facing, views = package.agent_dir, []
    for direction in range(4):
        package.agent_dir = direction
        views.append(package.gen_obs()["image"].transpose(2, 1, 0))
    package.agent_dir = facing
    return np.stack(views)


def test_pixels_are_the_packages():
    config = MiniGridConfig("MiniGrid-Unlock-v0", observation="pixels")
    game, package = MiniGridGame(config, config.id), RGBImgPartialObsWrapper(gymnasium.make(config.id))
    game.reset(3)
    obs, _ = package.reset(seed=3)
    out = np.empty(config.observation_shape, np.uint8)
    for action in (2, 1, 2, 2, 0, 2, 5, 3):
        game.observe(out)
        np.testing.assert_array_equal(out.transpose(1, 2, 0), obs["image"])
        game.step(action)
        obs = package.step(action)[0]


def test_the_labelled_environment_sees_what_the_vector_one_sees():
    config = env_config("MiniGrid-DoorKey-5x5-v0")
    vector, single = make_vector(config, 2), make_labelled(config)
    many = vector.reset(9)
    one, info = single.reset(seed=episode_seed(9, 1, 0))
    rng = np.random.default_rng(1)
    for _ in range(100):
        np.testing.assert_array_equal(many[1], one)
        assert set(info["labels"]) == set(single.concepts)
        actions = rng.integers(6, size=2)
        vector.send(actions)
        step = vector.recv()
        many = step.obs
        one, reward, terminated, truncated, info = single.step(actions[1])
        assert (step.reward[1], step.terminated[1], step.truncated[1]) == (np.float32(reward), terminated, truncated)


def test_labels_tell_what_is_so():
    single = make_labelled(env_config("MiniGrid-Unlock-v0"))
    _, info = single.reset(seed=0)
    env = single.game.env
    assert (info["labels"]["x"], info["labels"]["y"]) == tuple(env.agent_pos)
    assert info["labels"]["door_open"] == 0
    key = next(thing for thing in env.grid.grid if thing and thing.type == "key")
    door = next(thing for thing in env.grid.grid if thing and thing.type == "door")
    env.grid.set(*key.cur_pos, None)
    env.carrying, door.is_open, door.is_locked = key, True, False
    single.game._encode(door.cur_pos[1] * env.width + door.cur_pos[0])
    labels = single.labels()
    assert (labels["carries_key"], labels["carries"], labels["door_open"]) == (1, 1, 1)


def test_cells_are_those_of_the_view():
    single = make_labelled(env_config("MiniGrid-Unlock-v0"))
    obs, _ = single.reset(seed=0)
    (kinds, names), (colours, colour_names) = (single.cells()[name] for name in ("object", "colour"))
    assert kinds[-1, 3] == -1  # the agent's own
    kinds[-1, 3] = obs[0, -1, 3]
    np.testing.assert_array_equal(kinds, obs[0])
    assert names[obs[0][0, 0]] in ("unseen", "wall", "empty")
    things = np.isin(kinds, [names.index("key"), names.index("door")])
    np.testing.assert_array_equal(colours >= 0, things)
    np.testing.assert_array_equal(colours[things], obs[1][things])
    assert "red" in colour_names


def test_an_episodes_end_is_followed_by_a_step_that_only_resets():
    env = make_vector(MiniGridConfig("MiniGrid-Empty-5x5-v0"), 3)
    env.reset(0)
    rng, ended = np.random.default_rng(0), np.zeros(3, bool)
    seen = 0
    for _ in range(300):
        env.send(rng.integers(3, size=3))
        step = env.recv()
        np.testing.assert_array_equal(step.first, ended)
        assert not (step.reward[step.first].any())
        assert not (step.done[step.first].any())
        ended, seen = step.done, seen + step.done.sum()
    assert seen > 5


def test_environments_go_on_from_where_their_state_was_taken():
    config = env_config("MiniGrid-Dynamic-Obstacles-6x6-v0")
    env, rng = make_vector(config, 4), np.random.default_rng(0)
    env.reset(5)

    def play(target, actions):
        obs = []
        for each in actions:
            target.send(each)
            obs.append(target.recv().obs)
        return np.stack(obs)

    before, after = rng.integers(3, size=(50, 4)), rng.integers(3, size=(50, 4))
    last = play(env, before)[-1]
    state = env.state()
    wanted = play(env, after)
    other = make_vector(config, 4)
    np.testing.assert_array_equal(other.restore(state), last)
    np.testing.assert_array_equal(play(other, after), wanted)


EVERY = [i for i in gymnasium.registry if i.startswith(("MiniGrid-", "BabyAI-")) and "WFC" not in i]


def done(env_id: str, action: str, ahead=None, carrying=None) -> tuple:
    """What an action does with a thing ahead of the agent and one in its hands: by how much it turns, whether it goes
    on, and what is then carried, and is ahead of where it was."""
    env = make(env_id)
    env.reset(seed=0)
    here, facing, there = tuple(env.agent_pos), env.agent_dir, tuple(env.front_pos)
    env.grid.set(*there, ahead)
    env.carrying = carrying
    env.step(MiniGridConfig(env_id).action_names.index(action))
    return (env.agent_dir - facing) % 4, tuple(env.agent_pos) != here, env.carrying, env.grid.get(*there)


@pytest.mark.parametrize("env_id", EVERY)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_actions_do_what_they_are_called_in_every_task(env_id, capsys):
    ball = Ball("blue")
    names = MiniGridConfig(env_id).action_names
    assert done(env_id, "left")[:3] == (3, False, None)
    assert done(env_id, "right")[:3] == (1, False, None)
    assert done(env_id, "forward")[:2] == (0, True) or "Dynamic" in env_id  # an obstacle may come in between
    for name in names[3:]:
        if name == "pickup":
            assert done(env_id, name, ball) == (0, False, ball, None)
        elif name == "drop":
            assert done(env_id, name, carrying=ball) == (0, False, None, ball)
        elif name == "done":
            assert done(env_id, name, ball) == (0, False, None, ball)
        else:
            door = Door("blue")
            assert name in ("toggle", "toggle2")
            assert done(env_id, name, door) == (0, False, None, door)
            assert door.is_open
    assert len({*names}) == len(names) == make(env_id).action_space.n


def test_tasks_whose_actions_differ_do_not_take_turns():
    with pytest.raises(UserError, match="8x8-v0 has left, right, forward\\); those that take turns must share them"):
        env_config("MiniGrid-Unlock-v0,MiniGrid-Dynamic-Obstacles-8x8-v0")


def test_an_action_that_tasks_taking_turns_call_differently_has_all_of_its_names():
    names = env_config("MiniGrid-MemoryS7-v0,MiniGrid-Unlock-v0").action_names
    assert names == ("left", "right", "forward", "toggle2/pickup", "drop", "toggle", "done")
    assert env_config("MiniGrid-Unlock-v0,MiniGrid-Unlock-v0").action_names[3] == "pickup"


def test_a_run_that_was_given_actions_which_its_task_does_not_have_says_so(tmp_path):
    from rl_interp.agents.impala import default_config, make_agent
    from rl_interp.agents.load import load_agent
    from rl_interp.core.run import Run

    seven, three = (default_config(f"MiniGrid-{task}-v0") for task in ("Empty-5x5", "Dynamic-Obstacles-5x5"))
    run = Run.create(tmp_path / "old", "impala", three, 0)
    run.save_checkpoint(1, make_agent(seven).state_dict(), {})
    run.close()
    with pytest.raises(
        RunError, match="has the actions left, right, forward; a run of an earlier version, which gave it 7"
    ):
        load_agent(tmp_path / "old")


def test_nothing_else_that_is_wrong_with_such_a_run_is_said_to_need_a_new_training(tmp_path):
    from rl_interp.agents.impala import default_config, make_agent
    from rl_interp.agents.load import load_agent
    from rl_interp.core.run import Run

    config = default_config("MiniGrid-Dynamic-Obstacles-5x5-v0")
    run = Run.create(tmp_path / "run", "impala", config, 0)
    file = run.save_checkpoint(1, make_agent(replace(config, hidden=config.hidden + 8)).state_dict())
    with pytest.raises(RunError, match="has a different architecture") as other:
        load_agent(run.path)
    (file / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="sha256") as damaged:
        load_agent(run.path)
    with pytest.raises(RunError, match="unknown checkpoint step") as unknown:
        load_agent(run.path, 5)
    assert not any("must be trained again" in str(each.value) for each in (other, damaged, unknown))


def test_a_task_whose_files_the_package_lacks_is_refused_before_it_is_played():
    with pytest.raises(UserError, match=r"WFC-MazeSimple-v0 can't be played: .*minigrid .* lacks .*SimpleMaze.png"):
        env_config("MiniGrid-WFC-MazeSimple-v0")


@pytest.mark.parametrize("env_id", TASKS)
def test_some_actions_always_lead_elsewhere(env_id):
    """What `controllable` says, by playing on from each state of an episode with every action."""
    single, rng, played = make_labelled(env_config(env_id)), np.random.default_rng(0), []
    _, info = single.reset(seed=1)
    for _ in range(12):
        ends = set()
        for action in range(len(single.action_names)):
            single.reset(seed=1)
            for each in played:
                single.step(each)
            obs, *rest, _ = single.step(action)
            ends.add((obs.tobytes(), *rest))
        single.reset(seed=1)
        for each in played:
            _, _, _, _, info = single.step(each)
        assert info["labels"]["controllable"] == (len(ends) > 1)
        played.append(int(rng.integers(2)))


def test_what_is_ahead_is_what_the_agent_meets():
    single = make_labelled(env_config("MiniGrid-Empty-8x8-v0"))
    things = {"wall": Wall(), "key": Key(), "ball": Ball(), "box": Box("red"), "goal": Goal(), "lava": Lava()}
    for name, thing in things.items():
        single.reset(seed=0)
        env = single.game.env
        env.grid.set(*env.front_pos, thing)
        single.game._objects = [None] * len(env.grid.grid)  # of before: all that is there is looked at again
        single.step(6)
        known, place = single.labels(), tuple(env.agent_pos)
        assert [other for other in things if known[f"{other}_ahead"]] == [name]
        _, reward, terminated, _, info = single.step(3)
        assert info["labels"]["carries"] == (name in ("key", "ball", "box"))
        assert info["labels"]["carries_key"] == (name == "key")
        if not info["labels"]["carries"]:
            _, reward, terminated, _, _ = single.step(2)
            assert (tuple(env.agent_pos) == place) == (name == "wall")
            assert (terminated, reward > 0) == (name in ("goal", "lava"), name == "goal")


def test_steps_left_are_those_until_the_cut():
    single = make_labelled(env_config("MiniGrid-Empty-5x5-v0"))
    _, info = single.reset(seed=0)
    left, cut, taken = info["labels"]["steps_left"], False, 0
    while not cut:
        cut, taken = single.step(0)[3], taken + 1
    assert taken == left


def test_several_tasks_take_turns():
    env = make_vector(env_config("MiniGrid-Unlock-v0,MiniGrid-Empty-5x5-v0"), 3)
    assert [game.env.width for game in env.games] == [11, 5, 11]


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'MiniGrid-Unlock-v0'"):
        env_config("MiniGrid-Unlok-v0")


def test_different_seeds_environments_and_episodes_are_seeded_differently():
    seeds = {episode_seed(s, i, n) for s in range(5) for i in range(5) for n in range(5)}
    assert len(seeds) == 125
