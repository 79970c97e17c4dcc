"""Each game's table against the screen, against the emulator's rewards and lives, and by playing on from restored
states: a label is to say what happens, and not only what is in the memory."""

import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from selection import in_full

from rl_interp.agents.dqn import DQN
from rl_interp.core.collect import collect
from rl_interp.core.envs import AtariConfig
from rl_interp.core.envs.atari.config import rom_name
from rl_interp.core.envs.atari.games import GAMES
from rl_interp.core.envs.atari.labelled import LABELS, AtariLabelled


@dataclass(frozen=True)
class Drawn:
    """How an object looks when all of it is on the screen."""

    colour: tuple[int, int, int]
    width: int
    height: int
    area: tuple[int, int, int, int] = (0, 210, 0, 160)
    """First and last row, first and last column, the last ones not included, where nothing else has the colour."""
    alone: bool = True
    """Whether what has this colour there is this object; else only what is drawn around its position is looked at."""

    def around(self, x: float, y: float) -> "Drawn":
        top, left = round(y) - self.height, round(x) - self.width
        return replace(self, area=(max(0, top), round(y) + self.height, max(0, left), round(x) + self.width))

    def box(self, screen: np.ndarray) -> tuple[int, int, int, int] | None:
        """First and last column, first and last row, of what is drawn; None for nothing."""
        top, bottom, left, right = self.area
        ys, xs = np.nonzero((screen[top:bottom, left:right] == np.array(self.colour)).all(-1))
        return (xs.min() + left, xs.max() + left, ys.min() + top, ys.max() + top) if len(xs) else None

    def covers(self, x: float, y: float) -> bool:
        """Whether all of it is in the area with its centre there."""
        top, bottom, left, right = self.area
        return (
            abs(2 * x - left - right + 1) <= right - left - self.width
            and abs(2 * y - top - bottom + 1) <= bottom - top - self.height
        )


CARS = (
    *((167, 26, 26), (180, 231, 117), (105, 105, 15), (228, 111, 111), (24, 26, 167)),
    *((162, 98, 33), (84, 92, 214), (184, 50, 50), (135, 183, 84), (210, 210, 64)),
)
DRAWN = {
    "Pong": {
        "player": Drawn((92, 186, 92), 4, 16, (34, 194, 0, 160)),
        "enemy": Drawn((213, 130, 74), 4, 16, (34, 194, 0, 160)),
        "ball": Drawn((236, 236, 236), 2, 4, (34, 194, 0, 160)),
    },
    "Breakout": {
        "player": Drawn((200, 72, 72), 16, 4, (189, 193, 8, 152)),
        "ball": Drawn((200, 72, 72), 2, 4, (93, 189, 8, 152)),
    },
    "Freeway": {"player": Drawn((252, 252, 84), 6, 8, (106, 200, 40, 56))}
    | {f"car_{i + 1}": Drawn(colour, 8, 8, (24 + 16 * i, 40 + 16 * i, 8, 160)) for i, colour in enumerate(CARS)},
    "SpaceInvaders": {
        "player": Drawn((50, 132, 50), 7, 10, (180, 196, 0, 160)),
        "ship": Drawn((151, 25, 122), 7, 8, (0, 30, 8, 152)),
        "player_shot": Drawn((142, 142, 142), 1, 10, (20, 184, 0, 160)),
    },
    "Seaquest": {
        "player": Drawn((187, 187, 53), 16, 11, (44, 165, 0, 160)),
        **{f"enemy_{i}_{j}": Drawn((92, 186, 92), 8, 7, alone=False) for i in range(1, 5) for j in range(1, 4)},
        **{f"diver_{i}": Drawn((66, 72, 200), 8, 10, (44 + 24 * i, 56 + 24 * i, 0, 160)) for i in range(1, 5)},
    },
    "Qbert": {"player": Drawn((181, 83, 40), 8, 17, (20, 210, 0, 160))},
}
STEER = {"Pong": ("LEFT", "RIGHT"), "Breakout": ("LEFT", "RIGHT")}
"""What is done after an action to see what it did: a paddle that is pushed on at the wall moves later only."""


def game(name: str, seed: int = 1) -> AtariLabelled:
    env = AtariLabelled(AtariConfig(f"ALE/{name}-v5", sticky_actions=0.0, noop_max=0))
    env.reset(seed=seed)
    return env


def choices(name: str, env: AtariLabelled, seed: int = 0):
    """Random actions, each held for some decisions, of which many get somewhere; an endless iterator."""
    rng, names = np.random.default_rng(seed), env.action_names
    likely = {"Freeway": "UP", "Breakout": "FIRE"}.get(name)
    while True:
        action = names.index(likely) if likely and rng.random() < 0.6 else int(rng.integers(len(names)))
        for _ in range(1 if likely == "FIRE" else 8):
            yield action


@cache
def play(name: str, steps: int = 300):
    """RAM, screen, reward and lives after each of some steps of random play, over and over."""
    env = game(name)
    seen = []
    for _, action in zip(range(steps), choices(name, env), strict=False):
        _, reward, over, _, info = env.step(action)
        seen.append((env._ale.getRAM(), env._ale.getScreenRGB(), reward, info["lives"], info["labels"], over))
        if over:
            env.reset()
    return seen


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("steps", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_objects_are_drawn_where_their_bytes_say(name, steps):
    objects, gaps, there = GAMES[rom_name(f"ALE/{name}-v5")].objects, {}, {}
    assert DRAWN[name].keys() == objects.keys()
    for thing, drawn in DRAWN[name].items():
        kind = thing.rstrip("_0123456789")
        for ram, screen, *_ in play(name, steps):
            said = objects[thing].centre(ram.tolist())
            look = drawn if drawn.alone or said is None else drawn.around(*said)
            box = look.box(screen)
            if drawn.alone and (said is None or drawn.covers(*said)):
                there.setdefault(kind, []).append((box is None) == (said is None))
            if box and said and (box[1] - box[0] + 1, box[3] - box[2] + 1) == (drawn.width, drawn.height):
                gap = (box[0] + box[1]) / 2 - said[0], (box[2] + box[3]) / 2 - said[1]
                gaps.setdefault(kind, []).append(np.abs(gap))
    assert gaps.keys() == {thing.rstrip("_0123456789") for thing in objects}
    for kind, each in gaps.items():
        assert len(each) > 10, f"{kind}: drawn as a whole in {len(each)} states"
        assert np.quantile(each, 0.95, axis=0).max() <= (3 if name == "Qbert" else 1), kind
        as_said = np.mean(there.get(kind, True))  # Q*bert is drawn where he falls, too, outside the pyramid
        assert as_said > (0.85 if name == "Qbert" else 0.9), f"{kind}: as said, there or not, in {as_said:.2f}"


def acts(env: AtariLabelled, name: str, decisions: int = 5) -> bool:
    """Whether any action that is held for one decision makes a difference on the screen within some."""
    ale, start = env._ale, env._ale.cloneSystemState()
    named = dict(zip(env.action_names, env._actions, strict=True))
    for then in STEER.get(name, ("NOOP",)):
        futures = set()
        for action in env._actions:
            ale.restoreSystemState(start)
            seen = []
            for decision in range(decisions):
                for _ in range(4):
                    ale.act(named[then] if decision else action)
                seen.append(ale.getScreenGrayscale().tobytes())
            futures.add(tuple(seen))
        ale.restoreSystemState(start)
        if len(futures) > 1:
            return True
    return False


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("samples", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_controllable_is_when_an_action_makes_a_difference(name, samples):
    """At any frame of play, wherever it falls among those that the game counts."""
    env = game(name)
    named, agree = LABELS[env._rom], {True: [], False: []}
    for step, action in enumerate(choices(name, env, seed=1)):
        for _ in range(4 + step % 2):
            env._ale.act(env._actions[action])
        if env._ale.game_over():
            env.reset()
        if step % 7 == 0:
            label = bool(named.labels(env._ale.getRAM(), 4)["controllable"])
            agree[label].append(acts(env, name) == label)
        if step == 7 * samples:
            break
    for label, right in agree.items():
        assert np.mean(right or [True]) >= 0.9, f"{label} in {len(right)} states, {np.mean(right):.2f} of them so"


@pytest.mark.parametrize("name", ["Breakout", "Freeway", "SpaceInvaders", "Seaquest", "Qbert"])
def test_the_score_grows_by_the_reward(name):
    before, changes = 0, 0
    for *_, reward, _, known, over in play(name):
        assert known["score"] - before == reward
        before, changes = 0 if over else known["score"], changes + (reward > 0)
    assert changes >= 1


@pytest.mark.parametrize(
    ("name", "besides", "steps"), [("Seaquest", 1, 300), ("Qbert", 0, 300), *in_full(("SpaceInvaders", 0, 1000))]
)
def test_lives_are_those_of_the_emulator(name, besides, steps):
    lives = [(each[3], each[4]["lives"]) for each in play(name, steps) if not each[5]]
    assert np.mean([emulator == ram + besides for emulator, ram in lives]) > 0.97
    assert len({emulator for emulator, _ in lives}) > 1


def test_pong_counts_the_points_of_both_sides():
    before, changes = 0, 0
    for *_, reward, _, known, _ in play("Pong"):
        after = known["player_score"] - known["enemy_score"]
        assert after - before == reward
        before, changes = after, changes + (reward != 0)
    assert changes >= 2


def test_breakout_counts_bricks_as_they_are_drawn_and_lives_as_the_emulator_does():
    for _, screen, _, lives, known, _ in play("Breakout"):
        wall = screen[57:93, 8:152].reshape(6, 6, 18, 8, 3)
        bricks = (wall > 0).any(-1).mean((1, 3)) > 0.5
        assert bricks.sum() == known["bricks"]
        assert lives == known["lives"]


@pytest.mark.parametrize(
    ("name", "label", "axis", "sign"),
    [
        ("Pong", "ball_approaching", "x", 1),
        ("Pong", "ball_falling", "y", 1),
        ("Breakout", "ball_falling", "y", 1),
    ],
)
def test_the_ball_goes_where_it_is_said_to_go(name, label, axis, sign):
    known = [each[4] for each in play(name)]
    moved = [
        (after[f"ball_{axis}"] - before[f"ball_{axis}"], before[label])
        for before, after in pairwise(known)
        if before["ball_present"] and after["ball_present"] and before[label] == after[label]
    ]
    agree = [(step * sign > 0) == said for step, said in moved if 0 < abs(step) < 16]
    assert {bool(said) for _, said in moved} == {True, False}
    assert np.mean(agree) > 0.97


def test_the_invaders_formation_is_drawn_where_it_is_said_to_be_and_counts_whom_it_has():
    invaders, counts = Drawn((134, 134, 29), 88, 100, (20, 184, 0, 160)), []
    for _, screen, reward, _, known, _ in play("SpaceInvaders"):
        if box := invaders.box(screen):
            assert (box[0], box[2]) == (known["invaders_x"], known["invaders_y"])
        counts.append((known["invaders"], reward))
    fewer = [before[0] - after[0] for before, after in pairwise(counts) if after[1] > 0]
    assert fewer.count(1) >= 1
    assert len(fewer) == fewer.count(1)


def test_a_crossing_pays_and_whoever_is_hit_goes_back():
    known = [(each[2], each[4]) for each in play("Freeway")]
    crossed = hit = 0
    for (_, before), (reward, now) in pairwise(known):
        if reward:
            crossed += 1
            assert now["crossed"]
        if now["hit"] and before["hit"]:
            hit += 1
            assert now["player_y"] >= before["player_y"]
            assert not now["crossed"]
    assert crossed > 0
    assert hit > 0


def test_oxygen_is_as_long_as_its_bar_and_the_submarine_faces_where_it_goes():
    bar, seen, turned = Drawn((214, 214, 214), 63, 5, (170, 175, 49, 112)), set(), set()
    known = play("Seaquest")
    for before, after in pairwise(known):
        box = bar.box(after[1])
        if box and not after[4]["at_surface"] and after[4]["player_present"]:
            assert box[1] - box[0] + 1 == min(after[4]["oxygen"], 63)
            seen.add(after[4]["oxygen"])
        moved = after[4]["player_x"] - before[4]["player_x"]
        if 0 < abs(moved) < 16 and before[4]["player_present"] and after[4]["player_present"]:
            assert after[4]["facing_left"] == (moved < 0)
            turned.add(moved < 0)
    assert len(seen) > 3
    assert turned == {True, False}


@pytest.mark.parametrize(("side", "byte", "column"), [("left", 112, 12), ("right", 122, 140)])
def test_a_disk_of_qbert_goes_from_the_screen_with_its_byte(side, byte, column):
    env, known = game("Qbert"), LABELS["qbert"]
    for _ in range(60):
        env.step(0)
    for there in (True, False):
        if not there:
            env._ale.setRAM(byte, 0)
        for _ in range(4):
            env.step(0)
        assert (env._ale.getScreenRGB()[138:140, column : column + 8] > 0).any() == there
        assert known.labels(env._ale.getRAM(), 4)[f"{side}_disk"] == there


def test_an_untrained_agents_activations_are_stored_with_the_games_labels(tmp_path):
    config = AtariConfig("ALE/Pong-v5", max_frames=400)
    store = collect(DQN(len(config.action_names)).eval(), config, "fc.post", 90, tmp_path / "store", seed=1, num_envs=1)
    known = LABELS["pong"].concepts
    assert known.keys() <= set(store.columns())
    assert store.column("ball_present").any()
    assert len(np.unique(store.column("player_y"))) > 1


@pytest.mark.parametrize("rom", GAMES)
def test_the_labels_are_those_of_the_concepts_and_each_is_finite(rom):
    known, ram = LABELS[rom], np.random.default_rng(0).integers(0, 256, (200, 128), dtype=np.uint8)
    for each in ram:
        labels = known.labels(each, 4)
        assert labels.keys() == known.concepts.keys()
        assert np.isfinite(list(labels.values())).all()
        assert all(value in (0, 1) for key, value in labels.items() if known.concepts[key].kind == "boolean")


def concept_rows(rom: str) -> list[str]:
    """A line of the documentation's table for each concept of a game, alike ones of several lanes in one."""
    names = {}
    for name, concept in LABELS[rom].concepts.items():
        meaning = re.sub(r"(lane|slot) \d+", r"\1 N", concept.meaning)
        names.setdefault(re.sub(r"\d+", "N", name), f"| {concept.kind} | {meaning} |")
    return [f"| `{name}` {rest}" for name, rest in names.items()]


@pytest.mark.parametrize("rom", LABELS)
def test_the_documentation_lists_the_concepts_of_each_game(rom):
    page = (Path(__file__).parents[3] / "docs" / "atari.md").read_text(encoding="utf-8")
    section = page.split(f"(`{rom}`)\n")[1].split("\n## ")[0]
    assert section.split("|---|---|---|\n")[1].strip().splitlines() == concept_rows(rom)
