"""Gymnasium's spaces as the suite's, and what numbers and actions are called: by what the environments do."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rl_interp.core.envs import env_config, make_labelled, make_vector
from rl_interp.core.envs.gym.config import Part
from rl_interp.core.envs.gym.spaces import converter, spaces_of, writer
from rl_interp.core.errors import UserError

SPACES = [
    spaces.Dict(
        {"b": spaces.Box(-1, 1, (2, 3)), "a": spaces.Tuple([spaces.Discrete(3, start=2), spaces.MultiBinary(2)])}
    ),
    spaces.MultiDiscrete([3, 2]),
    spaces.Tuple([spaces.Box(0, 9, (), np.int64), spaces.Dict({"x": spaces.Discrete(2)})]),
    spaces.Box(0, 255, (6,), np.uint8),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_structured_observation_is_flattened_as_gymnasium_flattens_it(space):
    space.seed(0)
    write, size = writer(space, "a test"), spaces.flatdim(space)
    for _ in range(20):
        obs, out = space.sample(), np.full(size, np.nan, np.float32)
        write(obs, out)
        np.testing.assert_array_equal(out, spaces.flatten(space, obs).astype(np.float32))


class Showing(gymnasium.Env):
    """An environment of any spaces."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


def test_the_numbers_of_a_structured_observation_keep_their_names():
    given = spaces_of(Showing(SPACES[0], spaces.Discrete(2)), "a test")
    assert [name for part in given.parts for name in part.input_names] == [
        "a.0=2", "a.0=3", "a.0=4", "a.1[0]", "a.1[1]",
        "b[0,0]", "b[0,1]", "b[0,2]", "b[1,0]", "b[1,1]", "b[1,2]",
    ]  # fmt: skip
    assert given.shape == (11,)
    assert Part("x", names=("y", "z")).input_names == ("x.y", "x.z")


@pytest.mark.parametrize(
    ("shape", "as_agents_get_it", "place"),
    [
        ((4, 5), (1, 4, 5), lambda c, y, x: (y, x)),
        ((4, 5, 3), (3, 4, 5), lambda c, y, x: (y, x, c)),
        ((3, 4, 5), (3, 4, 5), lambda c, y, x: (c, y, x)),
        ((2, 4, 5, 3), (6, 4, 5), lambda c, y, x: (c // 3, y, x, c % 3)),
        ((2, 4, 5, 1), (2, 4, 5), lambda c, y, x: (c, y, x, 0)),
    ],
)
def test_a_bright_pixel_is_where_it_was_in_the_environments_image(shape, as_agents_get_it, place):
    space = spaces.Box(0, 255, shape, np.uint8)
    assert spaces_of(Showing(space, spaces.Discrete(2)), "a test").shape == as_agents_get_it
    write = writer(space, "a test")
    for c, y, x in np.ndindex(as_agents_get_it):
        image, out = np.zeros(shape, np.uint8), np.ones(as_agents_get_it, np.uint8)
        image[place(c, y, x)] = 255
        write(image, out)
        assert np.argwhere(out).tolist() == [[c, y, x]]


def test_a_joint_action_is_one_choice_of_each():
    space = spaces.MultiDiscrete([3, 2], start=[1, 0])
    given = spaces_of(Showing(spaces.Box(0, 1, (1,)), space), "a test")
    assert given.actions == ("1+0", "1+1", "2+0", "2+1", "3+0", "3+1")
    convert = converter(space)
    assert ["+".join(map(str, convert(i))) for i in range(6)] == list(given.actions)
    assert convert(np.array([0, 5])).tolist() == [[1, 0], [3, 1]]
    assert [converter(spaces.Discrete(2, start=-1))(i) for i in range(2)] == [-1, 0]
    assert converter(spaces.Box(-1, 1, (2, 1)))(np.array([3.0, -0.5], np.float32)).tolist() == [[1.0], [-0.5]]


def seen_after(env_id, *actions, seed=0, **kwargs):
    """Observations by name, before and after some actions by name."""
    env = make_labelled(env_config(env_id, **kwargs))
    seen = [env.reset(seed=seed)[0]]
    seen += [env.step(env.action_names.index(action))[0] for action in actions]
    return [dict(zip(env.config.input_names, map(float, obs), strict=True)) for obs in seen]


def test_numbers_and_actions_of_classic_control_are_what_they_are_called():
    _, left = seen_after("CartPole-v1", "left")
    start, right = seen_after("CartPole-v1", "right")
    assert left["cart velocity"] < start["cart velocity"] < right["cart velocity"]
    assert left["pole velocity"] > start["pole velocity"] > right["pole velocity"]
    assert right["cart position"] == pytest.approx(start["cart position"] + 0.02 * start["cart velocity"], abs=1e-6)
    assert right["pole angle"] == pytest.approx(start["pole angle"] + 0.02 * start["pole velocity"], abs=1e-6)
    speeds = [seen_after("MountainCar-v0", action)[1]["velocity"] for action in ("left", "none", "right")]
    assert speeds == sorted(speeds)
    assert speeds[1] - speeds[0] == pytest.approx(speeds[2] - speeds[1], abs=1e-6)
    before, after = seen_after("MountainCar-v0", "right")
    assert after["position"] == pytest.approx(before["position"] + after["velocity"], abs=1e-6)
    speeds = [seen_after("Acrobot-v1", f"torque {torque}")[1]["velocity 2"] for torque in ("-1", "0", "+1")]
    assert speeds == sorted(speeds)
    state = seen_after("Acrobot-v1", "torque +1")[1]
    assert all(state[f"cos angle {i}"] ** 2 + state[f"sin angle {i}"] ** 2 == pytest.approx(1) for i in (1, 2))


def test_forces_do_what_they_are_called():
    for env_id, number in (("MountainCarContinuous-v0", "force"), ("Pendulum-v1", "torque")):
        ends = []
        for value in (-1.0, 1.0):
            env = make_labelled(env_config(env_id))
            env.reset(seed=0)
            assert env.action_names == (number,)
            obs = env.step(np.array([value], np.float32))[0]
            ends.append(dict(zip(env.config.input_names, obs, strict=True))["velocity"])
        assert ends[0] < ends[1]
    pendulum = make_labelled(env_config("Pendulum-v1"))
    seen = dict(zip(pendulum.config.input_names, pendulum.reset(seed=1)[0], strict=True))
    angle, velocity = pendulum.game.env.unwrapped.state
    assert (seen["cos angle"], seen["sin angle"], seen["velocity"]) == pytest.approx(
        (np.cos(angle), np.sin(angle), velocity), abs=1e-6
    )


def test_moves_of_toy_texts_are_what_they_are_called():
    ways = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    for env_id, inside, start, kwargs in (
        ("FrozenLake-v1", ("down", "right"), 0, ("is_slippery=False", "desc=['SFFF','FFFF','FFFF','FFFG']")),
        ("CliffWalking-v1", ("up", "up", "right"), 36, ()),
    ):
        columns = 4 if start == 0 else 12
        for action, (down, right) in ways.items():
            seen = seen_after(env_id, *inside, action, kwargs=kwargs)
            at = [int(np.argmax(list(each.values()))) for each in seen]
            assert at[0] == start
            assert at[-1] - at[-2] == down * columns + right
    env = make_labelled(env_config("Taxi-v4"))
    ways = {"south": (1, 0), "north": (-1, 0), "east": (0, 1), "west": (0, -1)}
    moved = dict.fromkeys(ways, False)
    for seed in range(12):
        for action, way in ways.items():
            env.reset(seed=seed)
            row, column, *_ = env.game.env.unwrapped.decode(env.game.env.unwrapped.s)
            env.step(env.action_names.index(action))
            now, there, *_ = env.game.env.unwrapped.decode(env.game.env.unwrapped.s)
            assert (now - row, there - column) in (way, (0, 0))  # a wall
            moved[action] |= (now - row, there - column) == way
    assert all(moved.values())
    assert env.action_names[4:] == ("pickup", "dropoff")


def test_blackjack_shows_and_does_what_it_says():
    env = make_labelled(env_config("Blackjack-v1"))
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        shown = {name for name, value in zip(env.config.input_names, obs, strict=True) if value}
        table = env.game.env.unwrapped
        hand = sum(table.player)
        ace = 1 in table.player and hand + 10 <= 21
        assert shown == {f"player={hand + 10 * ace}", f"dealer={table.dealer[0]}", f"ace={int(ace)}"}
        cards = len(table.player)
        env.step(env.action_names.index("hit"))
        assert len(table.player) == cards + 1
        env.reset(seed=seed)
        assert env.step(env.action_names.index("stick"))[2]


def test_names_are_lost_where_a_wrapper_shows_other_numbers():
    stacked = env_config("CartPole-v1", wrappers=("gymnasium.wrappers:TimeAwareObservation(normalize_time=False)",))
    assert stacked.input_names[0] == "obs[0]"
    scaled = env_config("CartPole-v1", wrappers=("gymnasium.wrappers:DtypeObservation('float64')",))
    assert scaled.input_names[0] == "cart position"


@pytest.mark.parametrize("name", [":NormalizeObservation", ".NormalizeReward", ".stateful_reward:NormalizeReward"])
def test_what_scales_by_what_it_has_seen_is_refused_as_every_copy_would_have_seen_something_else(name):
    with pytest.raises(UserError, match=f"{name} scales by what this copy of the environment has seen"):
        env_config("CartPole-v1", wrappers=(f"gymnasium.wrappers{name}",))


@pytest.mark.parametrize("name", [":ClipReward", ".ClipReward", ".transform_reward:ClipReward"])
def test_rewards_that_are_clipped_to_learn_from_are_scored_as_they_are(name):
    """Pendulum's are costs of up to 16 a step."""
    wrappers = (f"gymnasium.wrappers{name}(min_reward=-1, max_reward=1)", "gymnasium.wrappers:TimeLimit(3)")
    config = env_config("Pendulum-v1", wrappers=wrappers)
    assert config.scored.wrappers == wrappers[1:]
    least = []
    for each in (config, config.scored):
        env = make_vector(each, 1)
        env.reset(0)
        env.send(np.zeros((1, 1), np.float32))
        least.append(env.recv().reward[0])
    assert least[0] == -1 > least[1]
