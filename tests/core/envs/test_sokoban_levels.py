"""Levels: read from text, refused where they can't be played, generated, held out, and what is to come of them."""

import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from selection import in_full

from rl_interp.core.envs import SokobanConfig, make_labelled, make_vector
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.draw import kinds_of, picture
from rl_interp.core.envs.sokoban.files import load, parse
from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.sokoban.plans import NEVER, future, replayed
from rl_interp.core.envs.sokoban.solve import solve
from rl_interp.core.errors import UserError

LEVEL = "########\n#@ $ .##\n########"


@pytest.mark.parametrize(("name", "count", "boxes"), [
    ("unfiltered", 1000, 4), ("medium", 1000, 4), ("hard", 332, 4), ("agent_shortcut", 25, 4), ("box_shortcut", 25, 4)
])  # fmt: skip
def test_the_package_has_levels_of_boxoban_and_of_bush_et_al(name, count, boxes):
    levels = load(name)
    assert levels.boards.shape == (count, 10, 10)
    assert levels.ids[7] == f"{name}:7"
    assert (levels.boxes.sum((1, 2)) == boxes).all()
    assert (levels.targets.sum((1, 2)) == boxes).all()
    assert len(set(levels.hashes.tolist())) >= 0.9 * count


def test_text_is_read_and_written_as_it_is():
    text = "#######\n#@ $. #\n#+#*###\n#######".replace("+", " ")
    levels = parse(f"; first\n{text}\n\n;1\n{text.replace('*', '$').replace('@ ', ' +')}\n", "mine")
    assert levels.ids == ("mine:first", "mine:1")
    assert levels.text(0) == text
    assert levels.players.tolist() == [[1, 1], [1, 2]]


def test_smaller_levels_are_set_amid_walls_and_what_is_outside_is_wall():
    levels = parse("  ####\n###  #\n#@ $.#\n######", "mine", rows=6, columns=8)
    assert levels.text() == "########\n########\n####  ##\n##@ $.##\n########\n########"
    with pytest.raises(UserError, match="level mine:0 is 3 x 8 cells, larger than 3 x 7"):
        parse(LEVEL, "mine", columns=7)


@pytest.mark.parametrize(("text", "sentence"), [
    (LEVEL.replace("@", " "), r"level mine:0 \(line 3\) has no player; it must have one\."),
    (LEVEL.replace("#@ ", "#@@"), r"has 2 players; it must have one\."),
    (LEVEL.replace("@ ", "@."), r"has 1 box and 2 targets; there must be as many\."),
    (LEVEL.replace("@ ", "@$"), r"has 2 boxes and 1 target; there must be as many\."),
    (LEVEL.replace("$", " ").replace(".", " "), r"has no box; it must have one at least\."),
    (LEVEL.replace("$", " ").replace(".", "*"), r"is solved as it begins"),
    (LEVEL.replace("#@", " @"), r"is not closed: the player can walk out at line 4, column 1; put a wall there\."),
    ("#######\n#  @$.#\n## ####\n## #", r"can walk out at line 6, column 3"),
    (LEVEL.replace(".", "x"), r"level mine:0 has 'x' in line 4, column 6; its cells are # \(wall\), @"),
    ("", r"mine has no levels\."),
])  # fmt: skip
def test_levels_that_cannot_be_played_are_refused_with_the_reason_and_the_place(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(f"; 0\n\n{text}\n", "mine")


def test_a_board_that_is_changed_is_refused_alike():
    levels = parse(LEVEL, "mine")
    boards = levels.boards.copy()
    boards[0, 0, 3] = 1
    with pytest.raises(UserError, match=r"level mine:0 is not closed: the player can walk out at row 1, column 4"):
        Levels(boards, levels.ids)


def test_a_folder_is_read_with_all_within_it(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "a.txt").write_text(LEVEL)
    (tmp_path / "more" / "b.txt.gz").write_bytes(gzip.compress(f"; x\n{LEVEL}\n\n{LEVEL}\n".encode()))
    assert load(str(tmp_path)).ids == ("a:0", "more/b:x", "more/b:1")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="can't be read as levels"):
        load(str(tmp_path))
    with pytest.raises(
        UserError, match=r"unknown set of levels 'hrad'\. Did you mean 'hard'\?.*nor is there such a file"
    ):
        load("hrad")


@pytest.mark.parametrize(
    "sizes", [{"rows": 7, "columns": 7, "boxes": 1}, *in_full({}, {"rows": 13, "columns": 20, "boxes": 7})]
)
def test_generated_levels_can_be_solved_and_follow_from_their_seed(sizes):
    config = SokobanConfig(**sizes)
    seeds = np.arange(40)
    boards, _ = Choice(config).levels(seeds)
    levels = Levels(boards, tuple(map(str, seeds)))
    assert (levels.boxes.sum((1, 2)) == config.boxes).all()
    assert not (levels.boxes & levels.targets).any()
    assert len(set(levels.hashes.tolist())) > 36
    assert {solve(board).solvable for board in boards} <= {True, None}
    assert solve(boards[0]).solvable
    np.testing.assert_array_equal(Choice(config).levels(seeds[::-1])[0], boards[::-1])


def test_a_seed_gives_this_level_on_every_platform():
    boards, _ = Choice(SokobanConfig()).levels(np.arange(50))
    digest = hashlib.sha256(boards.tobytes()).hexdigest()
    assert digest == "02832a0d03d062253487892763012e297ed34607446bd0461c9cb0ec106eee11"


def test_training_and_held_out_levels_share_none_nor_its_mirror_images():
    config = SokobanConfig(rows=5, columns=6, boxes=1).eased
    seeds = np.arange(400)
    trained, scored = (
        Levels(Choice(each).levels(seeds)[0], tuple(map(str, seeds))) for each in (config, config.scored)
    )
    assert config.scored.part == "held out"
    pairs = {h for turns in range(4) for m in (0, 1) for h in scored.symmetric(turns, bool(m)).hashes.tolist()}
    assert pairs == set(scored.hashes.tolist())
    assert not set(trained.hashes.tolist()) & pairs


def test_a_set_is_split_alike_and_levels_named_for_scores_are_not_trained_in(tmp_path):
    medium = SokobanConfig(levels="medium").eased
    parts = [Choice(each).set for each in (medium, medium.scored)]
    assert sum(map(len, parts)) == 1000
    assert 80 < len(parts[1]) < 180
    tests = load("medium")[:10]
    (tmp_path / "tests.txt").write_text("\n\n".join(tests.symmetric(1, True).text(i) for i in range(10)))
    config = SokobanConfig(levels="medium", held_out=str(tmp_path / "tests.txt")).eased
    assert len(Choice(config).set) == 990
    assert Choice(config.scored).set.ids == tuple(f"tests:{i}" for i in range(10))


def test_nothing_left_of_a_part_is_a_sentence(tmp_path):
    (tmp_path / "one.txt").write_text(LEVEL)
    config = SokobanConfig(levels=str(tmp_path / "one.txt"), rows=3, columns=8, boxes=1)
    found = []
    for part in ("training", "held out"):
        try:
            Choice(replace(config, part=part))
        except UserError as error:
            found.append(str(error))
    assert len(found) == 1
    assert "has no levels of part=" in found[0]


@pytest.mark.parametrize(("values", "sentence"), [
    ({"rows": 2}, "rows=2 given; it is a number from 3 to 64"),
    ({"boxes": 0}, "boxes=0 given for 10 x 10 cells"),
    ({"boxes": 17}, "at most a box for every four of the 64 cells"),
    ({"min_steps": 130}, "min_steps=130 and max_steps=120 given"),
    ({"observation": "planes"}, "observation='planes' given; it is pixels or symbols"),
    ({"part": "test"}, "part='test' given"),
    ({"guidance": -1.0}, "guidance=-1.0 given; it is a reward, at least 0"),
])  # fmt: skip
def test_impossible_conventions_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        SokobanConfig(**values)


@pytest.mark.full
def test_what_is_to_come_is_what_then_happens():
    """Read forwards, step by step, against what `future` tells of every step."""
    rng, levels = np.random.default_rng(0), load("unfiltered")[:4]
    for board, player in zip(levels.boards, levels.players, strict=True):
        actions = rng.integers(5, size=60)
        boards, told = replayed(board, actions, player), future(board, actions)
        env = make_vector(SokobanConfig(none=True), 1)
        env.set_state(Levels(board[None], ("level",)))
        happened = []  # a step's cell and direction, and whether it pushed
        for t, action in enumerate(actions):
            np.testing.assert_array_equal(env.boards[0], boards[t])
            before, (was,) = env.boards[0], env.info()["player"]
            env.send(np.array([action]))
            (now,) = env.recv().info["player"]
            happened.append(None if (was == now).all() else (*now.tolist(), int(action), before[*now] in (3, 4)))
        for t in range(len(actions)):
            agent, box = np.full((2, 10, 10), NEVER)
            for each in reversed(happened[t:]):
                if each is not None:
                    agent[each[:2]] = each[2]
                    box[each[:2]] = each[2] if each[3] else box[each[:2]]
            np.testing.assert_array_equal(told.agent[t], agent)
            np.testing.assert_array_equal(told.box[t], box)
            later = np.argwhere(told.agent_ahead[t] >= 0)
            assert all(happened[t + told.agent_ahead[t][*cell]][:2] == tuple(cell) for cell in later)
            assert all(happened[t + told.box_ahead[t][*cell]][3] for cell in np.argwhere(told.box_ahead[t] >= 0))


def test_labels_are_what_the_environment_does():
    env, rng = make_labelled(SokobanConfig(levels="unfiltered")), np.random.default_rng(0)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        for _ in range(15):
            board, labels = env.board, info["labels"]
            for i, side in enumerate(("up", "down", "left", "right")):
                env.set_state(Levels(board[None], ("board",)))
                _, _, _, _, after = env.step(i)
                moved = (env.board != board).any()
                assert labels[f"open_{side}"] == moved
                assert labels[f"push_{side}"] == (np.isin(board, (3, 4)) != np.isin(env.board, (3, 4))).any()
                if labels[f"plan_step_{side}"]:
                    assert after["labels"]["pushes_left"] == labels["pushes_left"] - labels[f"push_{side}"]
            env.set_state(Levels(board[None], ("board",)))
            _, _, _, _, info = env.step(int(rng.integers(4)))


def test_following_the_plan_solves_the_level_and_a_box_in_a_corner_is_known_to_be_lost():
    env = make_labelled(SokobanConfig(levels="hard", max_steps=500, min_steps=500))
    _, info = env.reset(seed=0)
    sides = ("up", "down", "left", "right")
    pushes, done, steps = info["labels"]["pushes_left"], False, 0
    while not done and steps < 500:
        action = [info["labels"][f"plan_step_{side}"] for side in sides].index(1)
        cells, (row, column) = env.cells(), info["player"]
        down, right = ((-1, 0), (1, 0), (0, -1), (0, 1))[action]
        assert cells["plan's steps"][0][row + down, column + right] == action
        pushes -= info["labels"][f"push_{sides[action]}"]
        _, _, done, _, info = env.step(action)
        steps += 1
    assert done
    assert pushes == 0
    lost = make_labelled(SokobanConfig(rows=5, columns=6, boxes=1))
    _, info = lost.set_state(parse("######\n#@$ .#\n#    #\n#    #\n######", "mine"))
    assert info["labels"]["unsolvable"] == 0  # along the wall to the target
    _, info = lost.set_state(parse("######\n#$   #\n# @ .#\n#    #\n######", "mine"))
    assert (info["labels"]["unsolvable"], info["labels"]["pushes_left"]) == (1, -1)
    assert lost.step(0)[1] == pytest.approx(-0.1)  # and it is played all the same


def test_pictures_show_the_kinds_and_observations_are_read_back():
    board, config = load("box_shortcut").boards[0], SokobanConfig(levels="box_shortcut")
    env = make_vector(config, 1)
    obs = env.set_state(load("box_shortcut")[:1])[0]
    np.testing.assert_array_equal(kinds_of(obs), board)
    np.testing.assert_array_equal(config.picture(obs), picture(board))
    assert config.picture(obs // 2).shape == (320, 320, 3)
    tiles = picture(board).reshape(10, 32, 10, 32, 3).transpose(0, 2, 1, 3, 4)
    shown = {int(kind): {tile.tobytes() for tile in tiles[board == kind]} for kind in np.unique(board)}
    assert all(len(shown[kind]) == 1 for kind in shown if kind != 0)
    assert len({next(iter(each)) for each in shown.values()}) == len(shown)
