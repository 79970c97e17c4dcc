"""Many of Gymnasium's environments at once: the suite's own vectors, and those of users, however they reset."""

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from selection import in_full, mostly_in_full
from walk import Hashing

from rl_interp.core import rollout
from rl_interp.core.envs import env_config, make_vector
from rl_interp.core.envs.gym.game import GymVector, make_games
from rl_interp.core.envs.gym.spaces import spaces_of
from rl_interp.core.envs.gym.vector import GymnasiumVector
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.envs.workers import WorkerVector
from rl_interp.core.errors import UserError


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


def seeds_of(mode, seed, i, count):
    """Seeds of an environment's episodes: of its own for each where the suite resets it, else for the first alone."""
    later = (episode_seed(seed, i, n) if mode is gymnasium.vector.AutoresetMode.DISABLED else None for n in range(1, 9))
    return [seed + i, *later][:count]


def agent_of(env):
    given = spaces_of(env, "a test")
    return Hashing(len(given.actions), given.action_kind == "continuous")


@pytest.mark.parametrize(
    ("form", "case"),
    mostly_in_full(
        [*(("sync", case) for case in CASES), *(("async", case) for case in CASES[:5])],
        [("sync", case) for case in CASES[:5]],
    ),
    ids=lambda each: getattr(each, "id", each),
)
@pytest.mark.parametrize("mode", gymnasium.vector.AutoresetMode, ids=lambda mode: mode.name)
def test_episodes_of_a_users_vector_are_those_of_a_plain_loop_whichever_way_it_resets(case, mode, form):
    kind = {"sync": gymnasium.vector.SyncVectorEnv, "async": gymnasium.vector.AsyncVectorEnv}[form]
    vector, single = kind([case.make] * 3, autoreset_mode=mode), case.make()
    agent = agent_of(single)
    got = rollout.evaluate(agent, vector, 7, seed=11, epsilon=0)
    vector.close()
    wanted = [in_a_loop(case, agent, case.make(), seeds_of(mode, 11, i, n)) for i, n in enumerate((3, 2, 2))]
    assert got.returns.tolist() == [each for returns, _ in wanted for each in returns]
    assert got.lengths.tolist() == [each for _, lengths in wanted for each in lengths]


@pytest.mark.parametrize("case", [*CASES[:2], *in_full(*CASES[2:])], ids=lambda case: case.id)
def test_counts_of_wrappers_change_nothing(case):
    """Those inside lie in `final_info` with SAME_STEP, and those outside are wiped by a reset of some with DISABLED."""
    agent = agent_of(case.make())
    for mode in gymnasium.vector.AutoresetMode:
        made = [lambda: gymnasium.wrappers.RecordEpisodeStatistics(case.make())] * 2
        vector = gymnasium.vector.SyncVectorEnv(made, autoreset_mode=mode)
        counted = gymnasium.wrappers.vector.RecordEpisodeStatistics(vector, stats_key="outer")
        got = rollout.evaluate(agent, counted, 4, seed=3, epsilon=0)
        wanted = [in_a_loop(case, agent, case.make(), seeds_of(mode, 3, i, 2)) for i in range(2)]
        assert got.returns.tolist() == [each for returns, _ in wanted for each in returns]
        assert got.lengths.tolist() == [each for _, lengths in wanted for each in lengths]


def test_one_environment_of_gymnasiums_can_be_handed_to_evaluate():
    case = Case("CartPole-v1")
    got = rollout.evaluate(agent_of(case.make()), case.make(), 3, seed=5, epsilon=0)
    seeds = seeds_of(gymnasium.vector.AutoresetMode.DISABLED, 5, 0, 3)
    assert (got.returns.tolist(), got.lengths.tolist()) == in_a_loop(case, agent_of(case.make()), case.make(), seeds)


def test_episodes_of_one_environment_begin_alike_whatever_was_played_in_those_before():
    """Pendulum's starts are drawn, and noise in its steps would move them."""

    class Noisy(gymnasium.Wrapper):
        def reset(self, **named):
            obs, info = self.env.reset(**named)
            starts.append(obs.tolist())
            return obs, info

        def step(self, action):
            self.unwrapped.np_random.normal(size=int(abs(action[0]) * 10))
            return self.env.step(action)

    class Still(Hashing):
        def alone(self, obs):
            return 0 * super().alone(obs)

    begun = []
    for agent in (Hashing(1, continuous=True), Still(1, continuous=True)):
        starts = []
        rollout.evaluate(agent, Noisy(gymnasium.make("Pendulum-v1")), 3, seed=2, epsilon=0)
        begun.append(starts[:3])
    assert begun[0] == begun[1]
    assert len({tuple(start) for start in begun[0]}) == 3


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


def test_where_episodes_do_not_follow_from_seeds_nothing_is_saved_to_go_on_from(mine):
    assert not hasattr(make_vector(env_config("mine.py:Noisy"), 2), "state")
    assert hasattr(make_vector(env_config("CartPole-v1"), 2), "state")


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
