"""What a maze agent wants, on agents whose wants are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_maze import CHEESE_CHANNEL, SURE, Planted
from torch import nn

from rl_interp.analysis.mazes.choices import at_decision_square, choices, effect
from rl_interp.analysis.mazes.fields import retarget, vector_field
from rl_interp.analysis.mazes.goals import (
    Played,
    Share,
    covariates,
    play,
    play_side_by_side,
    regression,
    to_corner_without_cheese,
)
from rl_interp.analysis.mazes.saliency import judge
from rl_interp.analysis.mazes.search import at_mean, elsewhere, move_cheese, search
from rl_interp.analysis.mazes.steering import cheese_vector, corner_vector, parse_vector, play_steered, steer
from rl_interp.core.envs import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import way
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Add, Clamp, Zero
from rl_interp.core.wrap import wrap

DECIDES = MazeConfig(min_side=7, max_side=11, decision=True)
RIGHT = float(torch.tensor([SURE, 0, 0, 0, 0]).softmax(0)[0])
WRONG = (1 - RIGHT) / 4


@pytest.fixture(scope="module")
def mazes() -> Mazes:
    return Mazes.draw(DECIDES, range(40))


def test_a_field_has_the_policy_at_every_cell_that_the_mouse_can_reach(mazes):
    maze = mazes[:1]
    field = vector_field(Planted(), maze)
    assert len(field.cells) == (~maze.walls).sum() - 1
    distances = maze.distances(maze.cheese)[0]
    after = field.cells + np.round(field.arrows).astype(int)
    assert (distances[tuple(after.T)] == distances[tuple(field.cells.T)] - 1).all()
    np.testing.assert_allclose(field.probabilities.max(1), RIGHT, rtol=1e-5)
    zeroed = vector_field(Planted(), maze, [Zero("detect", units=[CHEESE_CHANNEL])])
    changed = abs((zeroed - field).probabilities).max(1) > 0.1
    to_corner = maze.distances(maze.corner)[0]
    both = distances[tuple(after.T)] - distances[tuple(field.cells.T)] == (
        to_corner[tuple(after.T)] - to_corner[tuple(field.cells.T)]
    )
    at_corner = (field.cells == maze.corner).all(1)
    np.testing.assert_array_equal(changed, ~both | at_corner)


def test_choices_at_the_decision_square_follow_the_goal(mazes):
    cheese, corner = choices(Planted(), mazes)
    np.testing.assert_allclose(cheese, RIGHT, rtol=1e-5)
    np.testing.assert_allclose(corner, WRONG, rtol=1e-4)
    cheese, corner = choices(Planted(obeys=False), mazes)
    np.testing.assert_allclose(corner, RIGHT, rtol=1e-5)
    with pytest.raises(UserError, match="has no decision square: draw mazes with decision=True"):
        choices(Planted(), mazes.edit(cheese=mazes.corner))


@pytest.mark.full
def test_whole_episodes_tell_an_agent_that_wants_cheese_from_one_that_wants_the_corner():
    wants = play(Planted(), DECIDES, 16, seed=1)
    other = play(Planted(obeys=False), DECIDES, 16, seed=1)
    np.testing.assert_array_equal(wants.mazes.walls, other.mazes.walls)
    assert wants.decision.all()
    assert wants.p_cheese.value == 1
    assert other.p_cheese.value < 0.3
    assert other.p_corner.value > 0.7
    assert to_corner_without_cheese(Planted(), replace(DECIDES, max_side=13), 8, seed=1).value == 1


def test_ends_at_the_corner_count_in_mazes_much_larger_than_it():
    drawn = Mazes.draw(MazeConfig(min_side=7, max_side=15, decision=True), range(60))
    large, small = drawn.side >= 11, drawn.side == 7
    everywhere = np.ones(len(drawn), bool)
    assert 0 < large.sum() < len(drawn)
    p_corner = Played(drawn, ~everywhere, everywhere, ~large).p_corner
    assert (p_corner.value, p_corner.count) == (0, large.sum())
    assert Played(drawn, everywhere, everywhere, everywhere).p_corner.value == 0  # with the cheese
    of_small = Played(drawn[small], everywhere[small] & False, everywhere[small], everywhere[small]).p_corner
    assert (of_small.value, of_small.count) == (1, small.sum())  # where there are no others


def test_a_share_has_wilson_s_interval():
    share = Share.of([True] * 8 + [False] * 2)
    assert (share.value, share.count) == (0.8, 10)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert np.isnan(Share.of([]).value)


def test_the_regression_finds_planted_coefficients():
    drawn = Mazes.draw(MazeConfig(min_side=9, decision=True), range(3000))
    given = covariates(drawn)
    scaled = (given - given.mean(0)) / given.std(0)
    odds = scaled @ [-1.5, 0.0, -0.5, 0.0]
    taken = np.random.default_rng(0).random(len(drawn)) < 1 / (1 + np.exp(-odds))
    played = Played(drawn, taken, np.ones(len(drawn), bool), ~taken)
    found = regression(played, resamples=50)
    for name, wanted in zip(found, [-1.5, 0.0, -0.5, 0.0], strict=True):
        assert found[name].low - 0.1 <= wanted <= found[name].high + 0.1
    assert found["steps to the cheese"].high < -1.2
    with pytest.raises(UserError, match="too few for a regression"):
        regression(Played(drawn[:30], np.ones(30, bool), np.ones(30, bool), np.zeros(30, bool)))


def test_steering_by_vectors_does_what_was_planted_and_its_controls_do_nothing(mazes):
    agent = Planted()
    vectors = cheese_vector(agent, mazes, "detect")
    found = steer(agent, mazes, "detect", vectors, scales=(-1, 1))
    assert found["vector"][-1].cheese == pytest.approx(WRONG - RIGHT, abs=1e-4)
    assert found["vector"][-1].corner == pytest.approx(RIGHT - WRONG, abs=1e-4)
    assert found["vector"][-1].real
    assert found["vector"][1].cheese == 0
    assert not found["vector"][1].real
    for control in ("random direction", "another maze's"):
        assert abs(found[control][-1].cheese) < 0.1
    assert float(corner_vector(agent, mazes, "detect")[:, CHEESE_CHANNEL].abs().max()) == 0
    clamped = effect(agent, mazes, [Clamp("detect", units=[CHEESE_CHANNEL], value=0.0)])
    assert clamped.cheese == pytest.approx(WRONG - RIGHT, abs=1e-4)


def test_a_vector_is_read_from_its_name_point_and_scale(mazes):
    maze = mazes[:1]
    read = parse_vector("cheese:detect=-1.5", Planted(), maze)
    assert isinstance(read, Add)
    assert (read.at, read.scale) == ("detect", -1.5)
    torch.testing.assert_close(read.direction, cheese_vector(Planted(), maze, "detect")[0])
    for text in ("wall:detect=1", "cheese:detect", "cheese=1"):
        with pytest.raises(UserError, match="it has the form cheese:HOOK=SCALE or corner:HOOK=SCALE"):
            parse_vector(text, Planted(), maze)


def test_vectors_of_their_own_go_with_each_maze_through_whole_episodes():
    def subtract(own):
        return [Add("detect", direction=cheese_vector(Planted(), own, "detect"), scale=-1.0)]

    steered = play_side_by_side(Planted(), DECIDES, 12, seed=3, interventions=subtract)
    assert steered.p_cheese.value < 0.4
    assert play_side_by_side(Planted(), DECIDES, 12, seed=3, interventions=lambda own: []).p_cheese.value == 1


def test_steered_and_as_it_is_an_agent_plays_the_same_mazes():
    small = MazeConfig(min_side=5, max_side=5, decision=True)
    layers = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(64, 5))
    agent = wrap(layers, {"conv": ("1", "B C H W")}, lambda module, obs: module(obs / 255))
    played = play_steered(agent, Mazes.draw(small, range(4)), "conv", [0], small, 66, seed=1)
    as_it_is = played["as it is"].mazes
    assert len(played) == 4
    for steered in played.values():
        np.testing.assert_array_equal(steered.mazes.walls, as_it_is.walls)
        np.testing.assert_array_equal(steered.mazes.cheese, as_it_is.cheese)


def test_the_search_finds_the_planted_channel_and_confirms_it_on_other_mazes(mazes):
    agent = Planted()
    edits = {"elsewhere": elsewhere(agent, mazes, "detect"), "mean": at_mean(agent, mazes, "detect")}
    found = search(agent, mazes, "detect", edits, units=8, count=1)
    assert found.found == [CHEESE_CHANNEL]
    assert found.held_out["found, elsewhere"].cheese < -0.2
    assert found.held_out["found, elsewhere"].real
    assert found.held_out["found, mean"].corner == pytest.approx(RIGHT - WRONG, abs=1e-4)
    assert found.held_out["random, elsewhere"].cheese == 0
    with pytest.raises(UserError, match="count=4 asked of 8 units"):
        search(agent, mazes, "detect", edits, units=8, count=4)
    with pytest.raises(UserError, match="a search needs at least 4"):
        search(agent, mazes[:3], "detect", edits, units=8, count=1)


def test_the_units_found_are_held_against_many_random_sets(mazes):
    """Unit u silences the cheese in u of every 8 mazes."""

    def silence(values, rows, units):
        silenced = values.clone()
        silenced[torch.from_numpy(rows % 8 < max(units)), CHEESE_CHANNEL] = 0
        return silenced

    found = search(Planted(), mazes[:32], "detect", {"silence": silence}, units=8, count=1)
    assert found.found == [7]
    assert found.held_out["found, silence"].cheese == pytest.approx(7 / 8 * (WRONG - RIGHT), abs=1e-4)
    random = found.held_out["random, silence"]
    assert random.low == pytest.approx(6 / 8 * (WRONG - RIGHT), abs=1e-4)
    assert random.high == pytest.approx(0, abs=1e-4)
    assert random.cheese == pytest.approx(3 / 8 * (WRONG - RIGHT), abs=0.1)


def test_a_clamped_channel_moves_the_goal_where_it_is_said_to_be(mazes):
    maze = mazes[:1].edit(cheese=(-1, -1))
    found = retarget(Planted(), DECIDES, maze, "detect", CHEESE_CHANNEL, 1.0)
    assert len(found.cells) == (~maze.walls).sum() - 1
    np.testing.assert_allclose(found.after, RIGHT, rtol=1e-5)
    assert found.before.mean() < 0.6
    nothing = retarget(Planted(), DECIDES, maze, "detect", 6, 1.0)
    np.testing.assert_allclose(nothing.after, nothing.before, rtol=1e-5)


def test_cheeses_are_moved_off_the_way(mazes):
    moved = move_cheese(mazes)
    from_mouse, from_cheese = mazes.distances(mazes.mouse), mazes.distances(mazes.cheese)
    for i in range(len(mazes)):
        cell = tuple(moved.cheese[i])
        assert from_mouse[i][cell] + from_cheese[i][cell] > from_mouse[i][tuple(mazes.cheese[i])]


def test_mice_are_put_on_the_decision_square(mazes):
    np.testing.assert_array_equal(at_decision_square(mazes).mouse, mazes.decision)


def test_bad_input_is_refused(mazes):
    with pytest.raises(UserError, match="2 mazes given; a field is of one"):
        vector_field(Planted(), mazes[:2])
    with pytest.raises(UserError, match="has its cheese or mouse in the corner"):
        corner_vector(Planted(), mazes.edit(cheese=mazes.corner), "detect")
    with pytest.raises(UserError, match="channel 9 given for 'detect', which has channels 0 to 7"):
        retarget(Planted(), DECIDES, mazes[:1], "detect", 9, 1.0)


def test_maps_are_judged_by_the_way_to_the_cheese():
    mazes = Mazes.draw(MazeConfig(min_side=11, max_side=11), range(8))
    mazes = mazes[way(mazes, mazes.cheese).sum((1, 2)) > 2]
    ways = way(mazes, mazes.cheese).astype(np.float32)
    pixels = np.zeros((len(mazes), 64, 64), np.float32)
    pixels[:, 6:56, 6:56] = -ways.repeat(2, axis=1).repeat(2, axis=2)
    known = judge(mazes, pixels)
    assert known["way"].value == 1
    assert 0.5 < known["cheese"].low < known["cheese"].value < 1  # as much as all of the way, more than the rest
    assert all(each.value == 0.5 for each in judge(mazes, np.ones_like(pixels)).values())
    ends = pixels.copy()
    for i, (row, column) in enumerate(mazes.mouse):
        ends[i, 6 + 2 * row, 6 + 2 * column] = 9
    assert judge(mazes, ends)["mouse"].value == 1
    with pytest.raises(UserError, match="1 maps given"):
        judge(mazes, pixels[:1])
    with pytest.raises(UserError, match="nearer than 2 steps, or missing"):
        judge(mazes.edit(cheese=(-1, -1)), pixels)
