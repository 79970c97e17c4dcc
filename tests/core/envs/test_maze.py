"""Mazes: layout, solver, decision square, the vector convention, and what is true of cells."""

import hashlib
from dataclasses import replace

import gymnasium
import networkx
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from selection import in_full

from rl_interp.core.envs import MazeConfig, env_config, make_labelled, make_vector
from rl_interp.core.envs.maze.config import CELL, MARGIN
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import cells, labels, nearer, way
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.errors import UserError


def graph(walls: np.ndarray) -> networkx.Graph:
    """The free cells, joined to those beside them."""
    grid = networkx.grid_2d_graph(*walls.shape)
    grid.remove_nodes_from([tuple(cell) for cell in np.argwhere(walls)])
    return grid


@pytest.fixture(scope="module")
def mazes() -> Mazes:
    return Mazes.draw(MazeConfig(), range(200))


def test_free_cells_are_a_tree_of_the_maze_s_side(mazes):
    assert set(mazes.side.tolist()) == set(range(3, 26, 2))
    for i in range(50):
        free = graph(mazes.walls[i])
        rooms = (int(mazes.side[i]) + 1) // 2
        assert networkx.is_tree(free)
        assert len(free) == 2 * rooms**2 - 1
        assert tuple(mazes.corner[i]) in free
        assert tuple(mazes.mouse[i]) == ((25 + mazes.side[i]) // 2 - 1, (25 - mazes.side[i]) // 2)


def test_the_spanning_trees_of_the_smallest_maze_are_all_drawn_about_as_often():
    """Four walls of which one stays shut: Kruskal in random order leaves each with probability 1/4."""
    drawn = Mazes.draw(MazeConfig(max_side=3), range(4000)).walls[:, 11:14, 11:14]
    shut = np.stack([drawn[:, 0, 1], drawn[:, 1, 0], drawn[:, 1, 2], drawn[:, 2, 1]], 1)
    assert (shut.sum(1) == 1).all()
    np.testing.assert_allclose(shut.mean(0), 0.25, atol=0.03)


def test_a_seed_gives_this_maze_on_every_platform():
    drawn = Mazes.draw(MazeConfig(), [0, 1, 2, 2**31 - 1])
    parts = (np.packbits(drawn.walls), *(a.astype("<i8") for a in (drawn.side, drawn.mouse, drawn.cheese)))
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    assert digest == "bea5a91c5f3d366b64339df5cb50539dcc2f524be6063dd35550d98480a086d4"


@pytest.mark.parametrize("region", [1, 2, 5, 25])
def test_the_cheese_lies_in_its_region(region):
    drawn = Mazes.draw(MazeConfig(region=region), range(300))
    down, left = (drawn.cheese - drawn.corner).T
    size = np.minimum(region, drawn.side)
    assert ((down >= 0) & (down < size) & (left <= 0) & (-left < size)).all()
    assert (drawn.cheese != drawn.mouse).any(1).all()
    if region == 1:
        np.testing.assert_array_equal(drawn.cheese, drawn.corner)


def test_distances_and_ways_are_those_of_an_independent_solver(mazes):
    steps, on_way = mazes.distances(mazes.cheese), way(mazes, mazes.cheese)
    for i in range(30):
        free, cheese = graph(mazes.walls[i]), tuple(mazes.cheese[i])
        wanted = np.full((25, 25), -1)
        for cell, length in networkx.single_source_shortest_path_length(free, cheese).items():
            wanted[cell] = length
        np.testing.assert_array_equal(steps[i], wanted)
        path = networkx.shortest_path(free, tuple(mazes.mouse[i]), cheese)
        assert {tuple(cell) for cell in np.argwhere(on_way[i])} == set(path)


def test_the_decision_square_is_the_last_cell_of_both_ways(mazes):
    found = mazes.decision
    for i in range(100):
        free = graph(mazes.walls[i])
        ways = [
            networkx.shortest_path(free, tuple(mazes.mouse[i]), tuple(to[i])) for to in (mazes.cheese, mazes.corner)
        ]
        common = [a for a, b in zip(*ways, strict=False) if a == b]
        parts = len(common) < min(map(len, ways))
        assert tuple(found[i]) == (common[-1] if parts else (-1, -1))
    only = Mazes.draw(MazeConfig(decision=True, region=5), range(50))
    assert (only.decision >= 0).all()


def test_pictures_show_the_cells(mazes):
    seen, large = mazes.observations(), mazes.picture(3)
    wall = seen[3, :, 0, 0]
    assert large.shape == (512, 512, 3)
    for row in range(25):
        for column in range(25):
            block = seen[3, :, MARGIN + CELL * row :, MARGIN + CELL * column :][:, :CELL, :CELL]
            assert (block == block[:, :1, :1]).all()
            assert (block[:, 0, 0] == wall).all() == mazes.walls[3, row, column]
    np.testing.assert_array_equal(large[0, 0], wall)


def test_the_vector_environment_plays_by_the_rules():
    """Beside a step written out in Python."""
    config = MazeConfig(max_side=9)
    env = make_vector(config, 16)
    obs, rng = env.reset(4), np.random.default_rng(0)
    state, steps, ended = env.mazes, np.zeros(16, int), np.zeros(16, bool)
    seen = {"cheese": 0, "cut off": 0}
    for _ in range(400):
        np.testing.assert_array_equal(obs, state.observations())
        actions = rng.integers(5, size=16)
        env.send(actions)
        step = env.recv()
        np.testing.assert_array_equal(step.first, ended)
        wanted = state.mouse + np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])[actions]
        inside = ((wanted >= 0) & (wanted < 25)).all(1)
        walled = state.walls[np.arange(16), *np.clip(wanted, 0, 24).T]
        mouse = np.where((inside & ~walled)[:, None], wanted, state.mouse)
        steps = np.where(ended, 0, steps + 1)
        now = env.mazes
        np.testing.assert_array_equal(now.mouse[~ended], mouse[~ended])
        np.testing.assert_array_equal(now.walls[~ended], state.walls[~ended])
        found = (mouse == state.cheese).all(1) & ~ended
        np.testing.assert_array_equal(step.reward, found.astype(np.float32))
        np.testing.assert_array_equal(step.terminated, found)
        np.testing.assert_array_equal(step.truncated, (steps == 8 * state.side) & ~ended & ~found)
        seen["cheese"] += found.sum()
        seen["cut off"] += step.truncated.sum()
        obs, state, ended = step.obs, now, step.done
    assert min(seen.values()) > 10


def test_the_info_says_where_the_mouse_has_been_and_by_which_seed():
    config = MazeConfig(decision=True, max_side=7)
    env, rng = make_vector(config, 8), np.random.default_rng(1)
    env.reset(0)
    been = (env.mazes.mouse == env.mazes.decision).all(1)
    for _ in range(300):
        env.send(rng.integers(4, size=8))
        step = env.recv()
        now = env.mazes
        start = Mazes.draw(config, step.info["seed"])
        np.testing.assert_array_equal(start.walls, now.walls)
        here = (now.mouse == start.decision).all(1)
        been = np.where(step.first, here, been | here)
        np.testing.assert_array_equal(step.info["at_decision"], been)
        np.testing.assert_array_equal(step.info["mouse"], now.mouse)


def test_the_labelled_environment_sees_what_the_vector_one_sees():
    config = MazeConfig(max_side=7)
    vector, single = make_vector(config, 2), make_labelled(config)
    many, (one, info) = vector.reset(9), single.reset(seed=episode_seed(9, 1, 0))
    rng = np.random.default_rng(1)
    for _ in range(30):
        np.testing.assert_array_equal(many[1], one)
        assert set(info["labels"]) == set(single.concepts)
        actions = rng.integers(5, size=2)
        vector.send(actions)
        step = vector.recv()
        one, reward, terminated, truncated, info = single.step(actions[1])
        many = step.obs
        assert (step.reward[1], step.terminated[1], step.truncated[1]) == (np.float32(reward), terminated, truncated)
        if terminated or truncated:
            break


def test_environments_go_on_from_where_their_state_was_taken():
    config, rng = MazeConfig(max_side=7, curriculum=True), np.random.default_rng(0)
    env, other = make_vector(config, 4), make_vector(config, 4)
    env.reset(5)

    def play(target, actions):
        steps = []
        for each in actions:
            target.send(each)
            steps.append(target.recv())
        return [(s.obs, s.reward, s.done, s.first, s.info["at_decision"]) for s in steps]

    play(env, rng.integers(5, size=(50, 4)))
    after = rng.integers(5, size=(60, 4))
    np.testing.assert_array_equal(other.restore(env.state()), env.scene())
    for ours, theirs in zip(play(env, after), play(other, after), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_curriculum_goes_on_to_larger_mazes_as_they_are_solved():
    env = make_vector(MazeConfig(max_side=9, curriculum=True), 32)
    env.reset(0)
    sides = []
    for _ in range(400):  # an oracle plays: always a step nearer to the cheese
        mazes = env.mazes
        sides.append(int(mazes.side.max()))
        better = nearer(mazes.distances(mazes.cheese), mazes.walls)[:, np.arange(32), *mazes.mouse.T]
        env.send(better.argmax(0))
        env.recv()
    assert sides[0] == 3
    assert sides[-1] == 9
    assert (np.diff(np.maximum.accumulate(sides)) <= 2).all()
    lost = make_vector(MazeConfig(max_side=9, curriculum=True), 32)
    lost.reset(0)
    for _ in range(400):  # nobody moves
        lost.send(np.full(32, 4))
        lost.recv()
    assert lost.mazes.side.max() == 3


def test_scores_are_of_mazes_of_all_sides_from_the_bottom_left():
    config = MazeConfig(max_side=9, curriculum=True, start="anywhere", region=5)
    assert config.scored == MazeConfig(max_side=9, region=5)


def test_labels_and_classes_of_cells_tell_what_is_so():
    walls = np.ones((1, 25, 25), bool)
    for cell in [(24, 0), (23, 0), (22, 0), (22, 1), (22, 2), (21, 0), (20, 0)]:
        walls[0, *cell] = False
    maze = Mazes(walls, np.array([25]), np.array([[23, 0]]), np.array([[22, 2]]))
    (told,) = labels(maze)
    assert (told["row"], told["column"], told["to_cheese"], told["to_corner"]) == (23, 0, 3, -1)
    assert (told["open_up"], told["open_down"], told["open_left"], told["open_right"]) == (1, 1, 0, 0)
    assert (told["cheese_up"], told["cheese_down"], told["corner_up"]) == (1, 0, 0)
    sorted_ = {name: (numbers[0], names) for name, (numbers, names) in cells(maze).items()}

    def kind(cell):
        numbers, names = sorted_["kind"]
        return names[numbers[cell]]

    assert [kind(c) for c in [(22, 0), (24, 0), (23, 0), (22, 1), (21, 0), (22, 2), (0, 0)]] == [
        "junction", "dead end", "mouse", "corridor left-right", "corridor up-down", "cheese", "wall",
    ]  # fmt: skip
    ways, names = sorted_["way"]
    assert names[ways[22, 1]] == "to the cheese"
    assert names[ways[21, 0]] == "off both ways"
    assert ways[0, 0] == -1
    steps, names = sorted_["steps to the cheese"]
    assert (names[steps[22, 2]], names[steps[24, 0]], steps[0, 0]) == ("0 to 3", "4 to 7", -1)


def test_labels_say_what_each_action_leads_to():
    """From every state of some episodes, by trying all actions."""
    single, rng = make_labelled(MazeConfig(max_side=9)), np.random.default_rng(0)
    for seed in range(4):
        single.reset(seed=seed)
        for _ in range(15):
            maze, known, ends = single.maze, single.labels(), set()
            for action, name in enumerate(single.action_names):
                single.reset(options={"maze": maze})
                _, _, caught, _, info = single.step(action)
                then = info["labels"]
                ends.add((then["row"], then["column"]))
                if name == "stay":
                    assert (then["row"], then["column"]) == (known["row"], known["column"])
                    continue
                moved = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[name]
                way = then["row"] - known["row"], then["column"] - known["column"]
                assert way == (moved if known[f"open_{name}"] else (0, 0))
                assert known[f"cheese_{name}"] == (then["to_cheese"] < known["to_cheese"])
                assert known[f"corner_{name}"] == (then["to_corner"] < known["to_corner"])
                assert caught == (then["to_cheese"] == 0)
            assert known["controllable"] == (len(ends) > 1)
            single.reset(options={"maze": maze})
            if single.step(int(rng.integers(4)))[2]:
                break


def test_a_walled_in_mouse_controls_nothing():
    maze = Mazes.draw(MazeConfig(), [0])
    walls = np.ones_like(maze.walls)
    walls[0, *maze.mouse[0]] = False
    assert labels(replace(maze, walls=walls, cheese=np.array([[-1, -1]])))[0]["controllable"] == 0


@pytest.mark.parametrize("imports", ["gymnasium, rl_interp", *in_full("rl_interp, gymnasium")])
def test_gymnasium_knows_it_whichever_is_imported_first(imports, program):
    code = f"import {imports}; print(gymnasium.make('rl_interp/Maze-v0', region=5).observation_space.shape)"
    assert program(code).stdout == "(3, 64, 64)\n"


def test_gymnasium_makes_it_and_finds_nothing_wrong():
    env = gymnasium.make("rl_interp/Maze-v0", region=5, max_side=9)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=3)
    base = env.unwrapped
    maze = base.maze.edit(cheese=base.maze.corner)
    obs, info = base.reset(options={"maze": maze})
    np.testing.assert_array_equal(obs, maze.observations()[0])
    assert info["labels"]["to_cheese"] == info["labels"]["to_corner"]
    assert base.render().shape == (512, 512, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_side": 8}, "max_side=8 given; it is an odd number from 3 to 25"),
        ({"min_side": 27}, "min_side=27 given; it is an odd number"),
        ({"min_side": 9, "max_side": 5}, "it must not be larger"),
        ({"region": -1}, "region=-1 given"),
        ({"region": 2, "decision": True}, "in a region of at least 3"),
        ({"cheese": False, "decision": True}, "there must be a cheese"),
        ({"patience": 0}, "patience=0 given"),
        ({"start": "top"}, "start='top' given"),
    ],
)
def test_impossible_configurations_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        MazeConfig(**options)


def test_impossible_edits_are_refused(mazes):
    maze = mazes[:1]
    wall = np.argwhere(maze.walls[0])[0]
    with pytest.raises(UserError, match=r"the mouse of maze 0 is at \(\d+, \d+\), on a wall: move it"):
        maze.edit(mouse=wall)
    with pytest.raises(UserError, match="the cheese of maze 0 is at .*, outside the world"):
        maze.edit(cheese=(25, 3))
    shut = maze.walls.copy()
    rows, columns = np.nonzero(way(maze, maze.cheese)[0])
    inner = next(
        (r, c)
        for r, c in zip(rows, columns, strict=True)
        if (r, c) not in {tuple(maze.mouse[0]), tuple(maze.cheese[0])}
    )
    shut[0, *inner] = True
    with pytest.raises(UserError, match="no way from its mouse .* to its cheese .*: open a wall"):
        maze.edit(walls=shut)
    with pytest.raises(UserError, match="2 mazes given for 3 environments"):
        make_vector(MazeConfig(), 3).start(mazes[:2])
    with pytest.raises(UserError, match="unknown environment 'rl_interp/Maze-v1'"):
        env_config("rl_interp/Maze-v1")
