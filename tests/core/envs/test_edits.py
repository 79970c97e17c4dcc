"""Edited states: what the environments' own rules and pictures make of them, and that nothing is left of those that are
taken back."""

import numpy as np
import pytest

from rl_interp.core.envs import (
    AtariConfig,
    CrafterConfig,
    MazeConfig,
    MiniGridConfig,
    SokobanConfig,
    make_labelled,
)
from rl_interp.core.envs.atari.edits import MsPacmanLabelled
from rl_interp.core.envs.crafter.labelled import CrafterLabelled
from rl_interp.core.envs.editing import require_editable
from rl_interp.core.envs.minigrid.labelled import MiniGridLabelled
from rl_interp.core.envs.sokoban.files import parse
from rl_interp.core.envs.sokoban.labelled import SokobanLabelled
from rl_interp.core.errors import UserError


def minigrid(task: str = "MiniGrid-UnlockPickup-v0") -> MiniGridLabelled:
    env = MiniGridLabelled(MiniGridConfig(task))
    env.reset(seed=3)
    return env


def things(env) -> dict[str, str]:
    return {thing.name: thing.key for thing in env.editing().things}


def free_cell(env) -> str:
    x, y = next(
        (x, y)
        for x in range(1, env.game.env.width)
        for y in range(1, env.game.env.height)
        if env.game.env.grid.get(x, y) is None and (x, y) != tuple(env.game.env.agent_pos)
    )
    return f"{x},{y}"


def test_an_edited_grid_is_the_packages_and_seen_as_the_package_sees_it():
    env = minigrid()
    key = next(name for name in things(env) if name.endswith("key"))
    env.edit([f"move:{things(env)[key]}:{free_cell(env)}"])
    env.edit([f"place:{free_cell(env)}:ball:red"])
    env.edit([f"colour:{things(env)['red ball']}:blue", "face:left"])
    assert {"blue ball", key} <= things(env).keys()
    np.testing.assert_array_equal(env.game.grid, env.game.env.grid.encode())
    seen = type(env.game.env).gen_obs(env.game.env)["image"]
    np.testing.assert_array_equal(env.seen_with([]), seen.transpose(2, 1, 0))


def test_the_door_that_is_dragged_still_ends_the_task():
    env = minigrid("MiniGrid-Unlock-v0")
    x, y = map(int, env.game.env.agent_pos)
    dx, dy = map(int, env.game.env.dir_vec)
    door = next(key for name, key in things(env).items() if name.endswith("door"))
    key = next(key for name, key in things(env).items() if name.endswith("key"))
    env.edit([f"move:{key}:{x + dx},{y + dy}"])
    env.step(3)
    env.edit([f"move:{door}:{x + dx},{y + dy}"])
    _, reward, ended, *_ = env.step(5)
    assert ended
    assert reward > 0


@pytest.mark.parametrize("make", [minigrid, lambda: CrafterLabelled(CrafterConfig())])
def test_nothing_is_left_of_edits_that_are_taken_back_or_refused(make):
    env, other = make(), make()
    first, _ = env.reset(seed=5)
    other.reset(seed=5)
    if isinstance(env, MiniGridLabelled):
        edits = [f"remove:{list(things(env).values())[-1]}", f"place:{free_cell(env)}:box:red"]
    else:
        edits = ["material:31,32:water", "place:32,33:zombie", "remove:32,33", "item:health:3"]
        assert (env.seen_with(edits) != first).any()
    env.seen_with(edits)
    with pytest.raises(UserError, match="one of the forms"):
        env.edit([*edits, "nonsense"])
    actions = np.random.default_rng(0).integers(0, len(env.action_names), 25)
    for action in actions.tolist():
        one, two = env.step(action), other.step(action)
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1:3] == two[1:3]


def test_a_crafter_world_is_edited_and_goes_by_its_rules():
    env = CrafterLabelled(CrafterConfig())
    env.reset(seed=1)
    x, y = map(int, env.game.env._player.pos)
    ahead = f"{x},{y + 1}"  # a player faces down at first
    _, info = env.edit([f"material:{ahead}:tree", "item:health:4", "item:wood:0"])
    assert (info["labels"]["tree_ahead"], info["labels"]["health"]) == (1, 4)
    _, reward, *_, info = env.step(env.action_names.index("do"))
    assert info["labels"]["wood"] == 1, "it is chopped as any other"
    assert reward == 1, "for the wood, and nothing for the health that was given"
    env.edit([f"material:{ahead}:grass", f"place:{ahead}:zombie"])
    assert env.labels()["zombie_ahead"] == 1
    env.edit([f"move:{ahead}:{x},{y - 1}"])
    assert env.labels()["zombie_ahead"] == 0
    shown = env.editing()
    assert shown.grid is not None
    assert (shown.grid.first, shown.things[0].key) == ((x - 4, y - 3), f"{x},{y}")


def test_ghosts_pills_and_lives_are_written_where_the_game_reads_them():
    config = AtariConfig(sticky_actions=0.0, noop_max=0)
    env = MsPacmanLabelled(config)
    assert isinstance(require_editable(make_labelled(config), config), MsPacmanLabelled)
    env.reset(seed=0)
    for _ in range(80):
        env.step(0)
    _, info = env.edit(["ghost:blinky:80,99", "pill:3:0", "lives:2", "edible:sue:1"])
    labels = info["labels"]
    assert (labels["power_pills"], labels["ghost_edible"]) == (3, 1)
    assert labels["player_x"] != 0
    *_, info = env.step(0)
    assert info["lives"] == 2
    [blinky] = [thing for thing in env.editing().things if thing.name == "blinky"]
    assert abs(blinky.x - 80) + abs(blinky.y - 99) < 12


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ("remove:1,2,3", "one of the forms"),
        ("place:99,1:ball:red", "of a grid"),
        ("place:{key}:ball:red", "free cell"),
        ("place:{free}:bal:red", "Did you mean 'ball'"),
        ("colour:{free}:red", "nothing at"),
        ("face:north", "unknown direction"),
    ],
)
def test_an_edit_that_can_not_be_made_is_said(edit, sentence):
    env = minigrid()
    key = next(key for name, key in things(env).items() if name.endswith("key"))
    with pytest.raises(UserError, match=sentence):
        env.edit([edit.format(key=key, free=free_cell(env))])


def test_what_can_not_be_edited_is_said():
    for config in (MazeConfig(), AtariConfig("ALE/Breakout-v5")):
        with pytest.raises(UserError, match="can't be edited"):
            require_editable(make_labelled(config), config)


SOKOBAN = """
######
#@$ .#
#  $.#
######
"""


def sokoban(text: str = SOKOBAN) -> SokobanLabelled:
    env = SokobanLabelled(SokobanConfig(rows=4, columns=6, boxes=1, observation="symbols"))
    env.reset(seed=0)
    env.set_state(parse(text.strip("\n"), "test"), 3)
    return env


def text_of(board) -> list[str]:
    return ["".join("# .*$@+"[kind] for kind in row) for row in board]


@pytest.mark.parametrize(
    ("edit", "rows"),
    [
        ("move:1,1:1,2", ["# $ .#", "#@ $.#"]),
        ("move:1,1:4,1", ["# $ +#", "#  $.#"]),
        ("move:2,1:4,1", ["#@  *#", "#  $.#"]),
        ("move:4,1:3,2", ["#@$  #", "#  *.#"]),
        ("move:4,1:1,1", ["#+$  #", "#  $.#"]),
        ("wall:2,2", ["#@$ .#", "# #$.#"]),
        ("move:4,1:4,1", ["#@$ .#", "#  $.#"]),
    ],
)
def test_an_edited_board_is_what_it_is_said_to_be_and_is_seen_so(edit, rows):
    env = sokoban()
    obs, info = env.edit([edit])
    assert text_of(env.board)[1:3] == rows
    np.testing.assert_array_equal(obs[0], env.board)
    assert info["steps"] == 3


def test_what_is_moved_off_a_target_leaves_it_there():
    env = sokoban("######\n#+$ *#\n#    #\n######")
    env.edit(["move:4,1:4,2", "move:1,1:1,2"])
    assert text_of(env.board)[1:3] == ["#.$ .#", "#@  $#"]
    env.edit(["move:2,1:1,1"])
    assert text_of(env.board)[1] == "#*  .#"


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        ("move:1,1:0,0", "has a wall; choose a free cell"),
        ("move:1,1:2,1", "has a box; choose a free cell"),
        ("move:2,2:3,2", "there is floor at 2,2"),
        ("move:4,1:4,2", "can't be put on a target"),
        ("move:1,1:9,1", "9,1 given of a board of 6 x 4 cells"),
        ("wall:2,1", "there is a box; choose free floor"),
        ("floor:3,1", "there is floor; choose a wall"),
        ("floor:0,1", "is not closed: the player can walk out at row 2, column 1"),
        ("place:1,1:box", "one of the forms move:X,Y:X,Y"),
    ],
)
def test_a_board_that_could_not_be_played_is_refused_and_the_old_one_stays(edit, want):
    env, other = sokoban(), sokoban()
    with pytest.raises(UserError, match=want):
        env.edit(["move:3,2:1,2", edit])
    for action in (3, 1, 3, 0):
        one, two = env.step(action), other.step(action)
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1:3] == two[1:3]


def test_the_last_box_can_not_be_put_on_its_target_and_a_board_past_solving_is_said():
    env = sokoban()
    assert env.editing().caveat == ""
    env.edit(["move:2,1:4,1"])
    with pytest.raises(UserError, match="is solved as it begins"):
        env.edit(["move:3,2:4,2"])
    env.edit(["move:1,1:2,2", "move:3,2:1,1"])
    assert "No play solves this board" in env.editing().caveat
    assert [thing.name for thing in env.editing().things] == ["box", "box on target", "player", "target"]
