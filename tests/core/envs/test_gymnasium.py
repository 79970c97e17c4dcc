"""Any Gymnasium environment: by id, by a function, wrapped, labelled; alone, and many at once."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from selection import in_full

from rl_interp.core import rollout
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.collect import collect
from rl_interp.core.config import from_plain, to_plain
from rl_interp.core.envs import AtariConfig, EnvConfig, GymConfig, env_config, make_labelled, make_vector
from rl_interp.core.envs.games import episode_seed
from rl_interp.core.envs.gym.config import Part
from rl_interp.core.envs.gym.game import GymVector, make_games
from rl_interp.core.envs.gym.spaces import converter, spaces_of, writer
from rl_interp.core.envs.gym.vector import GymnasiumVector
from rl_interp.core.envs.workers import WorkerVector
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.replay import revisit

MINE = '''
import gymnasium
import numpy as np


def make(length=5, render_mode=None):
    return Walk(length, render_mode)


class Walk(gymnasium.Env):
    """A walk on a line, whose start is drawn; the end pays."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}
    action_names = ("back", "forth")
    observation_names = ("place",)

    def __init__(self, length=5, render_mode=None):
        self.length, self.render_mode = length, render_mode
        self.observation_space = gymnasium.spaces.Box(0, length, (1,))
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = int(self.np_random.integers(self.length)), 0
        return self.look()

    def step(self, action):
        self.at, self.steps = max(0, self.at + (1 if action else -1)), self.steps + 1
        return self.look()[0], float(self.at >= self.length), self.at >= self.length, self.steps >= 20, self.look()[1]

    def look(self):
        return np.array([self.at], np.float32), {"at": self.at, "near": self.at > 2, "name": "walk"}

    def render(self):
        screen = np.zeros((4, self.length + 1, 3), np.uint8)
        screen[:, min(self.at, self.length)] = 255
        return screen


class Noisy(Walk):
    """Its start is drawn by no seed."""

    def look(self):
        obs, info = super().look()
        return obs + np.random.rand(1).astype(np.float32), info


class Twice(gymnasium.RewardWrapper):
    def __init__(self, env, factor=2):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


def labels(info, obs):
    return {"far": bool(obs[0] > 3), "place": obs[0]}
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with `mine.py`, to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


class Hashing(Agent):
    """An agent whose actions differ from one observation to the next, and follow from each alone."""

    hook_points = {"seen": HookPoint("seen", "B D")}

    def __init__(self, actions: int, continuous: bool = False):
        super().__init__()
        self.actions, self.preference_kind = actions, "mean" if continuous else "q_values"
        self.seen = torch.nn.Flatten()

    def step(self, obs, state=(), first=None):
        self.seen(obs.float())
        rows = np.stack([self.alone(row) for row in obs.numpy()])
        return PolicyOutput(**{self.preference_kind: torch.from_numpy(rows)})

    def alone(self, obs):
        """Preferences `[A]` for one observation, as the suite gives it."""
        drawn = np.random.default_rng(zlib.crc32(np.ascontiguousarray(obs).data))
        return drawn.uniform(-1, 1, self.actions).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """An environment as its package makes it, and an independent account of what agents get and give."""

    id: str
    kwargs: tuple[tuple[str, object], ...] = ()
    steps: int = 25
    wrapped: tuple[str, ...] = ()

    def make(self):
        import ale_py
        import minigrid  # noqa: F401 - registers the ids

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        gymnasium.register_envs(ale_py)
        env = gymnasium.make(self.id, max_episode_steps=self.steps, **dict(self.kwargs))
        for name in self.wrapped:
            env = (gymnasium.wrappers.FilterObservation(env, ["image", "direction"]) if name == "filter" else
                   gymnasium.wrappers.DiscretizeAction(env, bins=3, multidiscrete=True))  # fmt: skip
        return env

    def seen(self, env, obs):
        space = env.observation_space
        if isinstance(space, spaces.Box) and space.dtype == np.uint8:
            return np.moveaxis(obs, -1, 0) if obs.ndim == 3 else obs[None]
        return spaces.flatten(space, obs).astype(np.float32)

    def taken(self, env, preferences):
        space = env.action_space
        if isinstance(space, spaces.Box):
            return np.clip(preferences, space.low, space.high)
        best = int(preferences.argmax())
        return np.array(np.unravel_index(best, space.nvec)) if isinstance(space, spaces.MultiDiscrete) else best


CASES = [
    Case("CartPole-v1"),
    Case("Taxi-v4"),
    Case("Blackjack-v1"),
    Case("MiniGrid-Empty-Random-5x5-v0", wrapped=("filter",)),
    Case("Pendulum-v1"),
    Case("ALE/Breakout-v5", steps=12),
    Case("MountainCar-v0"),
    Case("Acrobot-v1"),
    Case("FrozenLake-v1", (("map_name", "8x8"),)),
    Case("MountainCarContinuous-v0", wrapped=("discretize",)),
]


def in_a_loop(case, agent, env, seeds):
    """Returns and lengths of the episodes that begin with the given seeds; without one, with what there is."""
    returns, lengths = [], []
    for seed in seeds:
        obs, _ = env.reset(seed=seed)
        total, length, over = 0.0, 0, False
        while not over:
            action = case.taken(env, agent.alone(case.seen(env, obs)))
            obs, reward, terminated, truncated, _ = env.step(action)
            total, length, over = total + float(np.float32(reward)), length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    return returns, lengths


def agent_of(env):
    given = spaces_of(env, "a test")
    return Hashing(len(given.actions), given.action_kind == "continuous")


@pytest.mark.parametrize("case", [*CASES[:5], *in_full(*CASES[5:])], ids=lambda case: case.id)
@pytest.mark.parametrize("mode", gymnasium.vector.AutoresetMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("form", ["sync", *in_full("async")])
def test_episodes_of_a_users_vector_are_those_of_a_plain_loop_whichever_way_it_resets(case, mode, form):
    kind = {"sync": gymnasium.vector.SyncVectorEnv, "async": gymnasium.vector.AsyncVectorEnv}[form]
    vector, single = kind([case.make] * 3, autoreset_mode=mode), case.make()
    agent = agent_of(single)
    got = rollout.evaluate(agent, vector, 7, seed=11, epsilon=0)
    vector.close()
    wanted = [in_a_loop(case, agent, case.make(), [11 + i, None, None][:n]) for i, n in enumerate((3, 2, 2))]
    assert got.returns.tolist() == [each for returns, _ in wanted for each in returns]
    assert got.lengths.tolist() == [each for _, lengths in wanted for each in lengths]


@pytest.mark.parametrize("case", [*CASES[:2], *in_full(*CASES[2:])], ids=lambda case: case.id)
def test_counts_of_wrappers_change_nothing(case):
    """Those inside lie in `final_info` with SAME_STEP, and those outside are wiped by a reset of some with DISABLED."""
    single = case.make()
    agent, found = agent_of(single), []
    for mode in gymnasium.vector.AutoresetMode:
        made = [lambda: gymnasium.wrappers.RecordEpisodeStatistics(case.make())] * 2
        vector = gymnasium.vector.SyncVectorEnv(made, autoreset_mode=mode)
        counted = gymnasium.wrappers.vector.RecordEpisodeStatistics(vector, stats_key="outer")
        found.append(rollout.evaluate(agent, counted, 4, seed=3, epsilon=0))
    wanted = [in_a_loop(case, agent, case.make(), [3 + i, None]) for i in range(2)]
    for got in found:
        assert got.returns.tolist() == [each for returns, _ in wanted for each in returns]
        assert got.lengths.tolist() == [each for _, lengths in wanted for each in lengths]


def test_one_environment_of_gymnasiums_can_be_handed_to_evaluate():
    case = Case("CartPole-v1")
    got = rollout.evaluate(agent_of(case.make()), case.make(), 3, seed=5, epsilon=0)
    wanted = in_a_loop(case, agent_of(case.make()), case.make(), [5, None, None])
    assert (got.returns.tolist(), got.lengths.tolist()) == wanted


def test_a_vector_that_does_not_say_when_it_resets_is_refused():
    vector = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    vector.metadata = {}
    with pytest.raises(UserError, match="does not say when it resets what is done; set metadata"):
        GymnasiumVector(vector)


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[4], *in_full(CASES[1], CASES[2], CASES[6], CASES[7])], ids=lambda case: case.id
)
def test_the_suites_own_vector_plays_the_episodes_of_a_plain_loop_each_with_a_seed_of_its_own(case):
    config = env_config(case.id, kwargs=(f"max_episode_steps={case.steps}",))
    single = case.make()
    agent = agent_of(single)
    got = rollout.evaluate(agent, make_vector(config, 2), 5, seed=2, epsilon=0)
    wanted = [in_a_loop(case, agent, single, [episode_seed(2, i, n) for n in range(3 - i)]) for i in range(2)]
    assert got.returns.tolist() == [each for returns, _ in wanted for each in returns]
    assert got.lengths.tolist() == [each for _, lengths in wanted for each in lengths]
    assert make_vector(config, 2).reset(0).dtype == np.float32


@pytest.mark.full
def test_worker_processes_play_what_this_process_plays(mine):
    config = env_config("mine.py:make")
    here, agent = GymVector(config, make_games(config, 4)), Hashing(2)
    there = make_vector(config, 4, workers=2)
    assert isinstance(there, WorkerVector)
    try:
        played = [rollout.evaluate(agent, env, 10, seed=1, epsilon=0.3) for env in (here, there)]
    finally:
        there.close()
    assert played[0].returns.tolist() == played[1].returns.tolist()
    assert played[0].lengths.tolist() == played[1].lengths.tolist()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_vector_goes_on_from_where_its_state_was_taken(env_id):
    config = env_config(env_id)
    first, second = make_vector(config, 2), make_vector(config, 2)
    rng = np.random.default_rng(0)
    drawn = rng.integers(2, size=(80, 2)) if config.action_kind == "discrete" else rng.uniform(-2, 2, (80, 2, 1))
    first.reset(4)
    for actions in drawn[:40]:
        first.send(actions)
        last = first.recv()
    np.testing.assert_array_equal(second.restore(first.state()), last.obs)
    for actions in drawn[40:]:
        steps = []
        for env in (first, second):
            env.send(actions)
            steps.append(env.recv())
        np.testing.assert_array_equal(steps[0].obs, steps[1].obs)
        np.testing.assert_array_equal(steps[0].first, steps[1].first)


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
    normal = env_config("CartPole-v1", wrappers=("gymnasium.wrappers:NormalizeObservation",))
    assert normal.input_names[0] == "cart position"
    assert not normal.spaces.seeded  # it goes by what it has seen in other episodes
    assert env_config("CartPole-v1").spaces.seeded


def test_an_environment_of_ones_own_is_made_by_a_function_wrapped_and_labelled(mine):
    config = env_config(
        "mine.py:make", kwargs=("length=6",), wrappers=("mine.py:Twice(factor=3)",), labels="mine.py:labels"
    )
    assert config.action_names == ("back", "forth")
    assert config.input_names == ("place",)
    assert config.steps_per_second == 7
    env = make_labelled(config)
    assert {name: each.kind for name, each in env.concepts.items()} == {"far": "boolean", "place": "number"}
    obs, info = env.reset(seed=1)
    total = 0.0
    while total == 0:
        assert info["labels"] == {"far": float(obs[0] > 3), "place": obs[0]}
        assert env.render()[0, :, 0].argmax() == obs[0]
        obs, reward, *_, info = env.step(1)
        total += reward
    assert (total, obs[0]) == (3, 6)


def test_entries_of_info_are_labels_if_they_are_named(mine):
    env = make_labelled(env_config("mine.py:make", info=("at", "near")))
    obs, info = env.reset(seed=0)
    assert info["labels"] == {"at": obs[0], "near": float(obs[0] > 2)}
    assert {name: each.kind for name, each in env.concepts.items()} == {"near": "boolean", "at": "number"}


def test_an_id_of_another_package_is_found_by_importing_it(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine)
    (mine / "theirs.py").write_text(
        'import gymnasium\ngymnasium.register("Theirs-v0", entry_point="mine:make", max_episode_steps=4)\n'
    )
    config = env_config("theirs:Theirs-v0")
    assert (config.spaces.max_steps, config.observation_shape) == (4, (1,))
    with pytest.raises(UserError, match="unknown environment 'Theirs-v1'; the nearest are Theirs-v0"):
        env_config("theirs:Theirs-v1")


def test_an_id_of_a_family_is_gymnasiums_own_if_it_is_wrapped():
    assert isinstance(env_config("ALE/Pong-v5"), AtariConfig)
    wrapped = env_config("MiniGrid-Empty-5x5-v0", wrappers=("minigrid.wrappers:ImgObsWrapper",), symbols=(11, 6, 4))
    assert isinstance(wrapped, GymConfig)
    assert (wrapped.observation_kind, wrapped.categories, wrapped.observation_shape) == (
        "symbols", (11, 6, 4), (3, 7, 7),
    )  # fmt: skip
    assert wrapped.action_names[:3] == ("left", "right", "forward")


@dataclass(frozen=True)
class Played:
    env: EnvConfig


def test_a_config_from_a_file_runs_nothing_until_it_is_trusted(mine, monkeypatch):
    (mine / "mine.py").write_text(MINE + "\nfrom pathlib import Path\nPath('ran').touch()\n")
    config = env_config("mine.py:make", labels="mine.py:labels", wrappers=("mine.py:Twice",))
    assert Path("ran").exists()
    Path("ran").unlink()
    plain = to_plain(Played(config))
    monkeypatch.setenv("RL_INTERP_TRUST", str(mine / "nobody"))
    monkeypatch.setattr("sys.modules", {k: v for k, v in __import__("sys").modules.items() if "mine" not in k})
    read = from_plain(Played, plain, "config.yaml").env
    assert read == config
    with pytest.raises(UserError, match="is run only if you trust it"):
        make_labelled(read)
    with pytest.raises(UserError, match="is run only if you trust it"):
        make_vector(read, 2)
    assert not Path("ran").exists()
    without = from_plain(Played, {"env": {**plain["env"], "code": []}}, "config.yaml").env
    with pytest.raises(UserError, match="without a hash"):
        make_labelled(without)


def test_episodes_that_do_not_follow_from_seeds_are_not_played_again(mine, tmp_path):
    config = env_config("mine.py:Noisy")
    assert not config.spaces.seeded
    store = collect(Hashing(2), config, "seen", 20, tmp_path / "store", seed=0, num_envs=2)
    with pytest.raises(UserError, match="episodes of mine.py:Noisy do not follow from their seeds and actions"):
        list(revisit(config, store))


def test_an_environment_that_has_changed_is_noticed_when_it_is_played_again(mine, tmp_path):
    config = env_config("mine.py:make")
    store = collect(Hashing(2), config, "seen", 20, tmp_path / "store", seed=0, num_envs=2)
    assert len(list(revisit(config, store))) == store.samples
    (mine / "mine.py").write_text(MINE.replace("self.at, self.steps = int(", "self.at, self.steps = 1 + int("))
    changed = env_config("mine.py:make")
    with pytest.raises(UserError, match=r"step 0 of episode 0 looks otherwise now that it is played again"):
        list(revisit(changed, store))


BAD = """
import gymnasium
import numpy as np
import mine


def raises():
    raise RuntimeError("no luck")


def gives_none():
    return None


class Texts(mine.Walk):
    def __init__(self):
        super().__init__()
        place, said = self.observation_space, gymnasium.spaces.Text(5)
        self.observation_space = gymnasium.spaces.Dict({"place": place, "said": said})


class Changes(mine.Walk):
    made = 0

    def __init__(self):
        Changes.made += 1
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 1, (Changes.made,))


class Lies(mine.Walk):
    def look(self):
        return np.zeros(3, np.float32), {}


class Fails(mine.Walk):
    def step(self, action):
        raise ValueError("stuck")


class Old(mine.Walk):
    def step(self, action):
        return super().step(action)[:4]


class Unpaid(mine.Walk):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return (obs, float("nan"), *rest)


class Many(mine.Walk):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.MultiDiscrete([100, 100])


class Steers(mine.Walk):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.Tuple([self.action_space])


def says_words(info, obs):
    return {"where": "here"}


def says_nan(info, obs):
    return {"where": float("nan")}


def says_a_number(info, obs):
    return 3
"""


@pytest.mark.parametrize(
    ("env_id", "asked", "sentence"),
    [
        ("CartPoll-v1", {}, r"unknown environment 'CartPoll-v1'; the nearest are CartPole-v1, "),
        ("MsPacman-v5", {}, "the nearest are .*ALE/MsPacman-v5"),
        ("bad.py:raises", {}, r"bad.py:raises raised an error: RuntimeError: no luck \(line 8\)"),
        ("bad.py:gives_none", {}, "bad.py:gives_none gave NoneType, where a gymnasium.Env is wanted"),
        ("bad.py:nothing", {}, "unknown function of bad.py 'nothing'"),
        ("bed.py:make", {}, r"there is no file bed.py .*did you mean bad.py"),
        ("bad.py:Texts", {}, r"shows a Text as 'said', .*FilterObservation\(filter_keys=\['place'\]\)"),
        ("bad.py:Changes", {}, r"has observations \('vector', 2\), where \('vector', 1\) was recorded"),
        ("bad.py:Lies", {}, r"showed an array of shape \(3,\), which is not of its Box"),
        ("bad.py:Fails", {}, "failed at a step with action .: ValueError: stuck"),
        ("bad.py:Old", {}, "failed at a step with action .: ValueError: not enough values to unpack"),
        ("bad.py:Unpaid", {}, "gave the reward nan"),
        ("bad.py:Many", {}, "which are 10,000 joint ones; at most 4,096 are taken"),
        ("bad.py:Steers", {}, "takes actions of Tuple; wanted are Discrete, MultiDiscrete, MultiBinary or Box"),
        ("CartPole-v1", {"kwargs": ("speed",)}, "'speed' given as a setting of an environment; give name=value"),
        ("CartPole-v1", {"kwargs": ("speed=3",)}, "CartPole-v1 can't be made: TypeError: .*speed"),
        ("CartPole-v1", {"wrappers": ("Flat",)}, "'Flat' given as a wrapper; name a class"),
        ("CartPole-v1", {"wrappers": ("mine.py:Twice(factor=open('x'))",)}, "name a class, as in"),
        ("CartPole-v1", {"wrappers": ("gymnasium.wrappers:ResizeObservation",)}, "can't wrap CartPole-v1: TypeError"),
        ("CartPole-v1", {"wrappers": ("bad.py:gives_none",)}, "bad.py:gives_none raised an error: TypeError"),
        ("CartPole-v1", {"symbols": (2,)}, r"symbols=\(2,\) given, and CartPole-v1 shows Box"),
        (
            "CartPole-v1",
            {"labels": "bad.py:says_words"},
            "gave 'here' for 'where', where true, false or a finite number",
        ),
        ("CartPole-v1", {"labels": "bad.py:says_nan"}, "gave nan for 'where', where true, false or a finite number"),
        ("CartPole-v1", {"labels": "bad.py:says_a_number"}, "gave int; wanted is a dict of numbers by name"),
        ("CartPole-v1", {"labels": "bad.py:raises"}, "bad.py:raises raised an error: TypeError"),
        ("mine.py:make", {"info": ("name",)}, "gave 'walk' for 'name', where true, false or a finite number"),
        ("mine.py:make", {"info": ("speed",)}, "info=speed given, and mine.py:make gave at, near, name as info"),
        ("mine.py:make", {"info": ("at",), "labels": "mine.py:labels"}, "both labels and info given"),
        ("LunarLander-v3", {}, "LunarLander-v3 can't be made: DependencyNotInstalled"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(mine, env_id, asked, sentence):
    (mine / "bad.py").write_text(BAD)
    if env_id == "LunarLander-v3" and __import__("importlib.util").util.find_spec("Box2D"):
        pytest.skip("its extra is installed")
    with pytest.raises(UserError, match=sentence):
        env_config(env_id, **asked)


def test_labels_that_come_and_go_are_refused(mine):
    (mine / "goes.py").write_text("def labels(info, obs):\n    return {'here': True} if abs(obs[0]) < 0.06 else {}\n")
    env = make_labelled(env_config("CartPole-v1", labels="goes.py:labels"))
    env.reset(seed=0)
    with pytest.raises(UserError, match="the label 'here' of CartPole-v1 is there in some states only"):
        for _ in range(50):
            env.step(1)


@pytest.mark.parametrize(
    ("renders", "sentence"),
    [
        (
            "def __init__(self): super().__init__(); self.metadata = {}",
            r"has no screen to show \(its render_modes are \[\]\)",
        ),
        ("def render(self): return None", r"gave NoneType, where uint8 \[H, W, 3\] is wanted"),
        ("def render(self): return np.zeros((3, 3))", r"gave float64 \(3, 3\), where uint8"),
        ("def render(self): raise OSError('no display')", "the renderer of .* failed: OSError: no display"),
    ],
)
def test_a_renderer_that_gives_nothing_is_said(mine, renders, sentence):
    (mine / "drawn.py").write_text(f"import mine, numpy as np\nclass Drawn(mine.Walk):\n    {renders}\n")
    env = make_labelled(env_config("drawn.py:Drawn"))
    env.reset(seed=0)
    with pytest.raises(UserError, match=sentence):
        env.render()


def test_a_damaged_config_is_refused_with_its_file():
    plain = to_plain(Played(env_config("CartPole-v1")))
    plain["env"]["spaces"]["shape"] = [0]
    with pytest.raises(RunError, match="config.yaml: env: spaces: shape="):
        from_plain(Played, plain, "config.yaml")
