"""Every byte that the labels read, checked against the screen or by writing it."""

import numpy as np
import pytest
from scipy import ndimage

from rl_interp.core.envs import AtariConfig
from rl_interp.core.envs.atari.labelled import AtariLabelled
from rl_interp.core.envs.atari.mspacman import CONCEPTS, GHOSTS, HORIZON, PILLS, X_OFFSET, Y_OFFSET, hindsight, labels

COLOURS = {
    "sue": (180, 122, 48),
    "inky": (84, 184, 153),
    "pinky": (198, 89, 179),
    "blinky": (200, 72, 72),
    "player": (210, 164, 74),
    "fruit": (184, 50, 50),
}
PILL_COLOUR = (228, 111, 111)
POSITION_BYTES = {"sue": (6, 12), "inky": (7, 13), "pinky": (8, 14), "blinky": (9, 15), "player": (10, 16)}


def emulator(seed: int = 1, warm_up: int = 290):
    env = AtariLabelled(AtariConfig(sticky_actions=0.0, noop_max=0))
    env.reset(seed=seed)
    for _ in range(warm_up):
        env._ale.act(env._actions[0])
    return env._ale, env._actions


def pixels(screen, colour):
    return (screen[:172] == np.array(colour)).all(-1)


@pytest.fixture(scope="module")
def play():
    """12,000 random frames: RAM, reward and lives of each, and the screen of every seventh."""
    ale, actions = emulator()
    rng = np.random.default_rng(0)
    ram, reward, lives, screens = [], [], [], {}
    for t in range(12_000):
        if t % 12 == 0:
            action = actions[rng.integers(1, 5)]
        reward.append(ale.act(action))
        ram.append(ale.getRAM())
        lives.append(ale.lives())
        if t % 7 == 0:
            screens[t] = ale.getScreenRGB()
        if ale.game_over():
            ale.reset_game()
    return np.array(ram), np.array(reward), np.array(lives), screens


@pytest.fixture(scope="module")
def after_a_pill():
    """The emulator some frames after the player, put beside the power pill at the bottom left, ate it."""
    ale, actions = emulator()
    x, y = PILLS[4]
    ale.setRAM(10, round(x - X_OFFSET))
    ale.setRAM(16, round(y - Y_OFFSET) - 8)
    reward = sum(ale.act(actions[4]) for _ in range(16))  # down
    assert reward >= 50
    assert labels(ale.getRAM())["power_pills"] == 3
    return ale, actions, ale.cloneState()


@pytest.mark.parametrize("sprite", POSITION_BYTES)
def test_positions_are_those_of_the_sprites_on_the_screen(play, sprite):
    ram, _, _, screens = play
    x_byte, y_byte = POSITION_BYTES[sprite]
    gaps = []
    for t, screen in screens.items():
        ys, xs = np.nonzero(pixels(screen, COLOURS[sprite]))
        whole = len(xs) > 20 and np.ptp(xs) < 12 and np.ptp(ys) < 16
        if whole:
            centre = (xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2
            gaps.append((centre[0] - ram[t, x_byte] - X_OFFSET, centre[1] - ram[t, y_byte] - Y_OFFSET))
    assert len(gaps) > 300
    assert np.quantile(np.abs(gaps), 0.95, axis=0).max() < 3


def test_the_fruit_is_drawn_where_its_bytes_are_written():
    ale, actions = emulator()
    assert not labels(ale.getRAM())["fruit_present"]
    ale.setRAM(11, 60)
    ale.setRAM(17, 80)
    assert labels(ale.getRAM())["fruit_present"]
    for _ in range(4):
        ale.act(actions[0])
        ys, xs = np.nonzero(pixels(ale.getScreenRGB(), COLOURS["fruit"]))
        if len(xs) > 20:
            assert (xs.min() + xs.max()) / 2 == pytest.approx(60 + X_OFFSET, abs=2)
            assert (ys.min() + ys.max()) / 2 == pytest.approx(80 + Y_OFFSET, abs=2)
            return
    pytest.fail("no fruit was drawn")


def test_each_power_pill_disappears_from_the_screen_with_its_bit():
    ale, actions = emulator()
    start = ale.cloneState()

    def drawn(pills: int) -> np.ndarray:
        """What is drawn in the pills' colour over eight frames (they flicker), with RAM 117 written."""
        ale.restoreState(start)
        ale.setRAM(117, pills)
        seen = np.zeros((172, 160), bool)
        for _ in range(8):
            ale.act(actions[0])
            seen |= pixels(ale.getScreenRGB(), PILL_COLOUR)
        return seen

    full = int(ale.getRAM()[117])
    assert labels(ale.getRAM())["power_pills"] == 4
    everything = drawn(full)
    for bit, (x, y) in PILLS.items():
        gone, count = ndimage.label(everything & ~drawn(full & ~(1 << bit)))
        assert count == 1
        ys, xs = np.nonzero(gone)
        assert (xs.mean(), ys.mean()) == (pytest.approx(x, abs=1), pytest.approx(y, abs=1))


def test_a_power_pill_makes_the_ghosts_edible_and_counts_down_by_one(play):
    ram, reward, _, _ = play
    eaten = np.flatnonzero(reward == 50)
    assert len(eaten) >= 1
    for t in eaten:
        before, after = labels(ram[t - 3]), labels(ram[t + 3])
        assert not before["ghost_edible"]
        assert after["ghost_edible"]
        assert before["power_pills"] - after["power_pills"] == 1


@pytest.mark.parametrize("ghost", range(4))
def test_a_ghost_put_in_the_players_way_is_eaten_and_only_its_edible_bit_goes(after_a_pill, ghost):
    ale, actions, state = after_a_pill
    ale.restoreState(state)
    ram = ale.getRAM()
    assert [ram[1 + i] >> 7 for i in range(4)] == [1, 1, 1, 1]
    ale.setRAM(6 + ghost, int(ram[10]))
    ale.setRAM(12 + ghost, int(ram[16]))
    reward = sum(ale.act(actions[0]) for _ in range(8))
    assert reward >= 200, f"{GHOSTS[ghost]} was not eaten"
    assert [byte >> 7 for byte in ale.getRAM()[1:5]] == [int(i != ghost) for i in range(4)]


def test_score_lives_dots_and_direction_follow_the_game(play):
    ram, reward, lives, _ = play
    start = np.flatnonzero(lives < np.concatenate([[3], lives[:-1]]))[0]  # within the first game
    score = np.array([labels(r)["score"] for r in ram[:start]])
    np.testing.assert_array_equal(np.diff(score), reward[1:start])
    assert reward[1:start].sum() > 0
    settled = ram[:, 123] == np.roll(ram[:, 123], 90)  # the byte changes some frames after the emulator's count
    assert (ram[settled, 123] == np.maximum(lives[settled] - 1, 0)).mean() > 0.97
    dots = ram[:, 119].astype(int)
    assert (np.diff(dots)[:start][reward[1 : start + 1] == 10] == 1).mean() > 0.9
    dx, dy = np.diff(ram[:, 10].astype(int)), np.diff(ram[:, 16].astype(int))
    for direction, (sx, sy) in enumerate([(0, -1), (1, 0), (0, 1), (-1, 0)]):
        moved = (ram[1:, 56] == direction) & (np.abs(dx) + np.abs(dy) > 0) & (np.abs(dx) + np.abs(dy) < 4)
        agree = (dx[moved] * sx + dy[moved] * sy) > 0
        assert moved.sum() > 100
        assert agree.mean() > 0.9


def test_nearness_and_side_follow_positions():
    ram = np.zeros(128, np.uint8)
    ram[[10, 16]] = 90, 90
    ram[6:10], ram[12:16] = 200, 200
    ram[7], ram[13] = 80, 86  # Inky, 14 px away, mostly left
    seen = labels(ram)
    assert seen["ghost_near"]
    assert seen["inky_near"]
    assert seen["ghost_distance"] == 14
    assert [s for s in ("up", "right", "down", "left") if seen[f"ghost_near_{s}"]] == ["left"]
    ram[2] |= 0x80
    seen = labels(ram)
    assert seen["edible_ghost_near"]
    assert not seen["ghost_near"]
    assert not seen["ghost_near_left"]


def test_dies_soon_looks_ahead_to_each_lost_life_and_the_end():
    lives = np.array([3] * 30 + [2] * 40 + [1] * 5)
    soon = hindsight({"lives": lives})["dies_soon"]
    wanted = np.zeros(75, bool)
    for lost in (30, 70, 74):
        wanted[max(0, lost - HORIZON + 1) : lost + 1] = True
    np.testing.assert_array_equal(soon, wanted)


def test_the_table_of_concepts_is_what_the_labels_give():
    ale, _ = emulator(warm_up=1)
    given = labels(ale.getRAM())
    assert given.keys() | {"dies_soon"} == CONCEPTS.keys()
    for name, value in given.items():
        assert CONCEPTS[name].kind == "number" or value in (0, 1)
