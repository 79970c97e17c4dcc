"""Several games behind the vector convention, on one of which everything is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from rl_interp.core.envs.games import GameVector
from rl_interp.core.envs.seeds import episode_seed

CONFIG = SimpleNamespace(
    observation_shape=(1,), scene_shape=(1,), observation_dtype=np.uint8, action_kind="discrete",
    action_names=("wait", "end", "cut off"),
)  # fmt: skip


class Counting:
    """It shows how many steps there have been, and pays for each what it shows; actions 1 and 2 end it."""

    def __init__(self):
        self.seeds = []

    def reset(self, seed):
        self.seeds.append(seed)
        self.steps = 0

    def step(self, action):
        self.steps += 1
        return float(self.steps), action == 1, action == 2

    def observe(self, out):
        out[0] = self.steps

    def scene(self, out):
        out[0] = 100 + self.steps

    def info(self):
        return {"seed": np.array(self.seeds[-1])}


@pytest.fixture
def games():
    vector = GameVector(CONFIG, [Counting(), Counting()], offset=3)
    np.testing.assert_array_equal(vector.reset(seed=7), [[0], [0]])
    return vector


def play(vector, *actions):
    vector.send(np.array(actions))
    return vector.recv()


def test_the_step_after_an_episodes_end_resets_and_is_no_transition(games):
    last = play(games, 0, 1)
    assert (last.obs.tolist(), last.reward.tolist()) == ([[1], [1]], [1.0, 1.0])
    assert (last.terminated.tolist(), last.truncated.tolist()) == ([False, True], [False, False])
    after = play(games, 2, 1)  # the second game's action is ignored
    assert (after.obs.tolist(), after.reward.tolist()) == ([[2], [0]], [2.0, 0.0])
    assert (after.first.tolist(), after.terminated.tolist()) == ([False, True], [False, False])
    assert after.truncated.tolist() == [True, False]
    assert play(games, 0, 0).first.tolist() == [True, False]


def test_every_episode_of_every_game_has_a_seed_of_its_own_that_follows_from_the_first(games):
    for _ in range(5):
        play(games, 1, 0)
    first, second = (game.seeds for game in games.games)
    assert first == [episode_seed(7, 3, episode) for episode in range(3)]
    assert second == [episode_seed(7, 4, 0)]
    assert len({*first, *second}) == 4


def test_games_go_on_from_where_their_state_was_taken(games):
    play(games, 1, 0)
    play(games, 0, 0)
    play(games, 0, 0)
    state, other = games.state(), GameVector(CONFIG, [Counting(), Counting()], offset=3)
    np.testing.assert_array_equal(other.restore(state), [[1], [3]])
    for actions in ((0, 1), (1, 0), (0, 0)):
        wanted, got = play(games, *actions), play(other, *actions)
        for name in ("obs", "reward", "terminated", "truncated", "first"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
        np.testing.assert_array_equal(got.info["seed"], wanted.info["seed"])
    np.testing.assert_array_equal(games.scene(), [[100], [101]])


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1, 2**32 - 1, 2**32, 3**70])
def test_seeds_of_episodes_are_those_of_numpys_seed_sequence(seed):
    for game, episode in [(0, 0), (0, 127), (5, 128), (2**20 + 1, 300), (3, 2**20)]:
        word = np.random.SeedSequence([seed, game, episode]).generate_state(1)[0]
        assert episode_seed(seed, game, episode) == int(word) >> 1


def test_seeds_below_zero_are_refused():
    with pytest.raises(ValueError, match="none may be negative"):
        episode_seed(-1, 0, 0)
