"""Every byte that the labels read, checked against the screen, by writing it, or by playing on from a restored state:
a label is to say what happens, and not only what is in the memory."""

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
    """12,000 random frames: RAM, reward and lives of each, and the screen of every fourteenth."""
    ale, actions = emulator()
    rng = np.random.default_rng(0)
    ram, reward, lives, screens = [], [], [], {}
    for t in range(12_000):
        if t % 12 == 0:
            action = actions[rng.integers(1, 5)]
        reward.append(ale.act(action))
        ram.append(ale.getRAM())
        lives.append(ale.lives())
        if t % 14 == 0:
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
    assert len(gaps) > 150
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
        moved = (ram[1:, 5] & 3 == direction) & (np.abs(dx) + np.abs(dy) > 0) & (np.abs(dx) + np.abs(dy) < 4)
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


def futures(ale, actions, held: int = 1, steps: int = 4) -> list[list[bytes]]:
    """The RAM after each of some steps to come, for each action held for the first of them, and none after."""
    start, found = ale.cloneSystemState(), []
    for action in actions[:5]:
        ale.restoreSystemState(start)
        found.append([])
        for step in range(steps):
            for _ in range(4):
                ale.act(action if step < held else actions[0])
            found[-1].append(ale.getRAM().tobytes())
    ale.restoreSystemState(start)
    return found


def before_the_start(ale):
    ale.reset_game()


def before_a_ghost_is_eaten(ale):
    ale.setRAM(6, int(ale.getRAM()[10]))
    ale.setRAM(12, int(ale.getRAM()[16]))


def before_the_maze_is_cleared(ale):
    ale.setRAM(119, 148)


def before_a_ghost_comes(ale):
    for ghost in range(4):
        ale.setRAM(1 + ghost, 0)
    before_a_ghost_is_eaten(ale)


@pytest.mark.parametrize("phase", range(0, 8, 3))
@pytest.mark.parametrize(
    "before", [before_the_start, before_a_ghost_is_eaten, before_the_maze_is_cleared, before_a_ghost_comes]
)
def test_controllable_is_when_actions_make_a_difference_before_in_and_after_each_pause(after_a_pill, before, phase):
    """Whatever frame of eight a decision falls on: a pause ends within one."""
    ale, actions, state = after_a_pill
    ale.restoreState(state)
    for _ in range(phase):
        ale.act(actions[0])
    before(ale)
    label, truth = [], []
    for _ in range(80):
        label.append(bool(labels(ale.getRAM())["controllable"]))
        truth.append(len({*map(tuple, futures(ale, actions))}) > 1)
        for _ in range(4):
            ale.act(actions[2])
    assert label == truth
    assert 2 < len(label) - sum(label) < 78


@pytest.fixture(scope="module")
def deaths():
    """Two lives lost in random play: the emulator, and its state before each of the steps up to either loss."""
    ale, actions = emulator(seed=3)
    rng, found, states = np.random.default_rng(1), [], []
    while len(found) < 2:
        lives = ale.lives()
        if len(states) % 12 == 0:
            action = actions[rng.integers(1, 5)]
        states.append(ale.cloneSystemState())
        for _ in range(4):
            ale.act(action)
        if ale.lives() < lives:
            found.append(states)
            states = []
    return ale, actions, found


@pytest.mark.full
def test_once_dying_nothing_changes_and_while_it_dies_soon_the_player_can_be_saved(deaths):
    ale, actions, lives = deaths
    saved = []
    for states in lives:
        columns = {"dying": [], "controllable": []}
        for state in states:
            ale.restoreSystemState(state)
            for name, column in columns.items():
                column.append(labels(ale.getRAM())[name])
        soon, dying = hindsight(columns)["dies_soon"], np.array(columns["dying"]) > 0
        assert dying[-17:].all()  # up to the loss, from the collision
        assert 17 <= dying.sum() <= 21
        assert soon.sum() == HORIZON
        assert np.flatnonzero(soon)[-1] + 1 == np.flatnonzero(dying)[0]
        for at in np.flatnonzero(dying | soon):
            ale.restoreSystemState(states[at])
            left = len(states) - at
            ends = futures(ale, actions, held=left, steps=left)
            if dying[at]:
                assert len({*map(tuple, ends)}) == 1
            else:  # some action is held, and no ghost has come by the time
                saved.append(any(not labels(np.frombuffer(end[-18], np.uint8))["dying"] for end in ends))
    assert np.mean(saved) > 0.5


def test_dies_soon_counts_back_from_the_collision_and_leaves_out_what_cannot_be_helped():
    dying, controllable = np.zeros(80, bool), np.ones(80, bool)
    dying[30:48] = dying[70:] = True
    controllable[25:28], controllable[30:60] = False, False
    soon = hindsight({"dying": dying, "controllable": controllable})["dies_soon"]
    wanted = np.zeros(80, bool)
    wanted[15:25], wanted[28:30], wanted[60:70] = True, True, True  # 55 to 59 are the pause before the next life
    np.testing.assert_array_equal(soon, wanted)


def test_an_episode_that_is_cut_off_ends_in_no_death():
    nobody = {"dying": np.zeros(40), "controllable": np.ones(40), "lives": np.full(40, 3)}
    assert not hindsight(nobody)["dies_soon"].any()


def test_what_is_near_does_what_its_label_says(after_a_pill):
    """Each ghost in turn is put in the player's way: one that is near kills, an edible one pays, and one that was eaten
    does neither."""
    ale, actions, start = after_a_pill
    ale.restoreState(start)
    rng, seen = np.random.default_rng(0), []
    for moment in range(150):
        if moment % 12 == 0:
            action = actions[rng.integers(1, 5)]
        for _ in range(4):
            ale.act(action)
        if moment == 8:
            before_a_ghost_is_eaten(ale)
        if moment % 5 or not labels(ale.getRAM())["controllable"]:
            continue
        state = ale.cloneSystemState()
        for ghost in range(4):
            ale.restoreSystemState(state)
            for other in range(4):
                ale.setRAM(6 + other, 18)
                ale.setRAM(12 + other, 2 if ale.getRAM()[16] > 60 else 150)
            said, reward, caught = None, 0, False
            for _ in range(6):
                ale.setRAM(6 + ghost, int(ale.getRAM()[10]))
                ale.setRAM(12 + ghost, int(ale.getRAM()[16]))
                known = labels(ale.getRAM())
                said = said or (known["ghost_near"], known["edible_ghost_near"])
                reward = max(reward, ale.act(actions[0]))
                caught |= labels(ale.getRAM())["dying"]
            assert said == (caught, reward >= 200)
            seen.append(said)
        ale.restoreSystemState(state)
    counts = {each: seen.count(each) for each in sorted({*seen})}
    assert all(counts[each] >= 3 for each in ((True, False), (False, True), (False, False))), counts


def test_the_player_moves_the_way_it_is_said_to_be_moving_whatever_the_stick_did():
    ale, actions = emulator(seed=2)
    rng, moved = np.random.default_rng(0), 0
    steps = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}
    for _ in range(250):
        for _ in range(4):
            ale.act(actions[0] if rng.random() < 0.3 else actions[rng.integers(1, 9)])
        known, state, ram = labels(ale.getRAM()), ale.cloneSystemState(), ale.getRAM().astype(int)
        assert sum(known[f"moving_{side}"] for side in steps) == 1
        for _ in range(2):
            ale.act(actions[0])
        gone = np.sign(ale.getRAM().astype(int) - ram)[[10, 16]]
        going = labels(ale.getRAM())["controllable"] and known["controllable"]
        ale.restoreSystemState(state)
        if going and gone.any():
            moved += 1
            assert tuple(gone) == next(step for side, step in steps.items() if known[f"moving_{side}"])
    assert moved > 100


def test_a_fruit_that_is_present_pays_when_it_is_met():
    ale, actions = emulator(seed=1)
    start, present = ale.cloneState(), []
    for dots in range(0, 146, 12):
        ale.restoreState(start)
        ale.setRAM(119, dots)
        for _ in range(40):
            for ghost in range(4):
                ale.setRAM(6 + ghost, 18)
                ale.setRAM(12 + ghost, 2)
            ale.act(actions[3])
        known = labels(ale.getRAM())["fruit_present"]
        present.append(known)
        ale.setRAM(10, int(ale.getRAM()[11]))
        ale.setRAM(16, int(ale.getRAM()[17]))
        assert (sum(ale.act(actions[0]) for _ in range(6)) >= 100) == known, dots
    assert 0 < sum(present) < len(present)


def test_the_table_of_concepts_is_what_the_labels_give():
    ale, _ = emulator(warm_up=1)
    given = labels(ale.getRAM())
    assert given.keys() | {"dies_soon"} == CONCEPTS.keys()
    for name, value in given.items():
        assert CONCEPTS[name].kind == "number" or value in (0, 1)
