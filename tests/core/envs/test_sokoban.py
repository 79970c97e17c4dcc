"""Sokoban: its rules beside an independently written player of them, episodes, observations and labels."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rl_interp.core.envs import SokobanConfig, make_labelled, make_vector
from rl_interp.core.envs.sokoban.files import parse
from rl_interp.core.envs.sokoban.kinds import COLOURS, SIGNS
from rl_interp.core.errors import UserError

STEPS = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1), 4: (0, 0)}

CORRIDOR = "########\n#@ $ .##\n########"


class Rules:
    """Sokoban in sets of cells, as its rules are told: nothing is shared with what is tested."""

    def __init__(self, text: str):
        cells = {(row, column): sign for row, line in enumerate(text.split("\n")) for column, sign in enumerate(line)}
        self.walls = {cell for cell, sign in cells.items() if sign == "#"}
        self.boxes = {cell for cell, sign in cells.items() if sign in "$*"}
        self.targets = {cell for cell, sign in cells.items() if sign in ".*+"}
        (self.player,) = (cell for cell, sign in cells.items() if sign in "@+")
        self.cells = cells

    def step(self, action: int) -> tuple[float, bool]:
        down, right = STEPS[action]
        ahead = (self.player[0] + down, self.player[1] + right)
        beyond = (ahead[0] + down, ahead[1] + right)
        before = len(self.boxes & self.targets)
        if (
            action < 4
            and ahead not in self.walls
            and (ahead not in self.boxes or beyond not in self.walls | self.boxes)
        ):
            if ahead in self.boxes:
                self.boxes = self.boxes - {ahead} | {beyond}
            self.player = ahead
        solved = self.boxes == self.targets
        return -0.1 + len(self.boxes & self.targets) - before + 10 * solved, solved

    def text(self) -> str:
        def sign(cell: tuple[int, int]) -> str:
            on = cell in self.targets
            if cell in self.walls:
                return "#"
            if cell in self.boxes:
                return "*" if on else "$"
            if cell == self.player:
                return "+" if on else "@"
            return "." if on else " "

        rows = sorted({row for row, _ in self.cells})
        return "\n".join("".join(sign(cell) for cell in sorted(self.cells) if cell[0] == row) for row in rows)


def text_of(board: np.ndarray) -> str:
    return "\n".join("".join(SIGNS[kind] for kind in row) for row in board)


@pytest.mark.parametrize("config", [
    SokobanConfig(none=True, min_steps=20),
    SokobanConfig(rows=6, columns=7, boxes=1, observation="symbols", none=True),
])  # fmt: skip
def test_steps_follow_the_rules_as_another_program_plays_them(config):
    """5,000 random steps of each, and whole boards compared."""
    env, rng = make_vector(config, 10), np.random.default_rng(0)
    env.reset(3)
    games, solved = [Rules(text_of(board)) for board in env.boards], 0
    lengths = np.zeros(10, int)
    for _ in range(500):
        actions = rng.integers(5, size=10)
        env.send(actions)
        step = env.recv()
        for i in range(10):
            if step.first[i]:
                games[i], lengths[i] = Rules(text_of(env.boards[i])), 0
                assert step.reward[i] == 0
                assert not step.done[i]
                continue
            reward, over = games[i].step(int(actions[i]))
            lengths[i] += 1
            assert text_of(env.boards[i]) == games[i].text()
            assert step.reward[i] == pytest.approx(reward, abs=1e-5)
            assert step.terminated[i] == over
            assert step.info["boxes_left"][i] == len(games[i].boxes - games[i].targets)
            assert tuple(step.info["player"][i]) == games[i].player
            assert step.info["steps"][i] == lengths[i]
            assert not step.truncated[i] or config.min_steps <= lengths[i] <= config.max_steps
            solved += over
        symbols = env.boards[:, None]
        colours = np.array(COLOURS, np.uint8)[env.boards].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(step.obs, symbols if config.observation == "symbols" else colours)
    assert config.boxes > 1 or solved > 0


def test_a_box_on_its_target_is_worth_one_and_taken_back_if_it_is_pushed_off():
    env = make_vector(SokobanConfig(rows=3, columns=10, boxes=1), 1)
    env.set_state(parse("##########\n#@$. $ .##\n##########", "level"))
    rewards = []
    for action in (3, 3, 3, 2):
        env.send(np.array([action]))
        rewards.append(float(env.recv().reward[0]))
    np.testing.assert_allclose(rewards, [0.9, -1.1, -0.1, -0.1], atol=1e-6)  # the third step is into two boxes


def test_the_last_box_ends_the_episode_with_ten_more():
    env = make_vector(SokobanConfig(rows=3, columns=8, boxes=1), 1)
    env.set_state(parse(CORRIDOR, "level"))
    for _ in range(3):
        env.send(np.array([3]))
        step = env.recv()
    assert step.reward[0] == pytest.approx(10.9)
    assert step.terminated[0]
    assert not step.truncated[0]
    assert env.config.summary(np.array([10.7]), step.info)["success_rate"] == 1


def test_limits_are_drawn_in_training_and_fixed_in_evaluation():
    def lengths(config: SokobanConfig) -> set[int]:
        env, found = make_vector(config, 64), set()
        env.reset(0)
        for _ in range(130):
            env.send(np.full(64, 4))
            step = env.recv()
            found |= set(step.info["steps"][step.truncated].tolist())
        return found

    trained = lengths(replace(SokobanConfig(none=True, levels="medium").eased))
    assert min(trained) >= 30
    assert max(trained) <= 120
    assert len(trained) > 40
    assert lengths(SokobanConfig(none=True, levels="medium").eased.scored) == {120}


def test_environments_go_on_from_where_their_state_was_taken():
    config = SokobanConfig(min_steps=30)
    env, again = make_vector(config, 5), make_vector(config, 5)
    env.reset(0)
    actions = np.random.default_rng(0).integers(4, size=(150, 5))
    for each in actions[:75]:
        env.send(each)
        env.recv()
    again.restore(env.state())
    for each in actions[75:]:
        env.send(each)
        again.send(each)
        one, other = env.recv(), again.recv()
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.info["seed"], other.info["seed"])


def test_every_level_of_a_set_is_played_once_before_any_is_again():
    env = make_vector(SokobanConfig(levels="box_shortcut", max_steps=1, min_steps=1, none=True), 5)
    env.reset(0)
    played = [env.info()["level"]]
    for _ in range(18):
        env.send(np.full(5, 4))
        step = env.recv()
        played += [step.info["level"]] * bool(step.first.any())
    passes = np.concatenate(played).reshape(2, 25)
    assert all(sorted(each) == list(range(25)) for each in passes.tolist())
    assert passes[0].tolist() != passes[1].tolist()


def test_one_board_shows_what_many_do_and_replays_from_its_seed():
    config = SokobanConfig(levels="medium", min_steps=30)
    vector, one = make_vector(config, 1), make_labelled(config)
    obs, actions = vector.reset(7), np.random.default_rng(1).integers(4, size=20)
    seed = int(vector.info()["seed"][0])
    np.testing.assert_array_equal(one.reset(seed=seed)[0], obs[0])
    for action in actions:
        vector.send(np.array([action]))
        step = vector.recv()
        seen, reward, terminated, truncated, info = one.step(int(action))
        np.testing.assert_array_equal(seen, step.obs[0])
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
        assert info["level"] == step.info["level"][0]
    (_, last), = list(one.replay(seed, actions, [20]))  # fmt: skip
    np.testing.assert_array_equal(last, seen)


def test_gymnasium_makes_it_and_finds_nothing_wrong():
    env = gymnasium.make("rl_interp/Sokoban-v0", rows=7, columns=8, boxes=2).unwrapped
    check_env(env, skip_render_check=True)
    assert env.render().shape == (224, 256, 3)


def test_a_level_is_begun_by_its_id_and_any_board_can_be_set():
    env = make_labelled(SokobanConfig(levels="hard"))
    env.reset(options={"level": "hard:3"})
    assert env.level_id == "hard:3"
    with pytest.raises(UserError, match=r"unknown level 'hard:9999'\. Did you mean"):
        env.reset(options={"level": "hard:9999"})
    small = make_labelled(SokobanConfig(rows=3, columns=8, boxes=1))
    small.set_state(parse(CORRIDOR, "level"), steps=119)
    assert small.step(3)[2:4] == (False, True)
