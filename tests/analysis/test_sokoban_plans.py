"""Sokoban's plans are read, written and given time, on states and an agent whose plan is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_interp.agents.impala.drc import DRC
from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import Part, Recipe, Recording, parse_changes, record
from rl_interp.analysis.probes.cells import CellProbe
from rl_interp.analysis.sokoban.larger import Anywhere, zigzags
from rl_interp.analysis.sokoban.pacing import Cycle, by_time, cycles_of, substituted
from rl_interp.analysis.sokoban.plan import Arrow, arrows, arrows_of_what_came, board_in, cells_that_differ, plans_in
from rl_interp.analysis.sokoban.play import Game, Play
from rl_interp.analysis.sokoban.reading import CONCEPTS, Point, read_states
from rl_interp.analysis.sokoban.steering import Fork, random_vectors, steered
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.envs.sokoban.files import load, parse
from rl_interp.core.envs.sokoban.kinds import FLOOR, MOVES, PLAYER, WALL
from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.sokoban.routes import routes
from rl_interp.core.envs.sokoban.solve import solve
from rl_interp.core.errors import UserError
from rl_interp.core.run import Run

UP, DOWN, LEFT, RIGHT, NEVER = range(5)
TWO_WAYS = """
########
#      #
# #### #
#@#### #
# #### #
#      #
#.$    #
########
"""


def boards_of(text: str) -> np.ndarray:
    return parse(text.strip("\n"), "test").boards


class Walker(Agent):
    """Steps onto the neighbouring free cell whose direction stands in its plan, written at `layer.c`, a channel a
    class. Where the cell below the start is free, it first sees the board `slow` times, walking against walls."""

    def __init__(self, ways: list[tuple[float, list[tuple[tuple[int, int], int]]]], slow: int = 0):
        super().__init__()
        self.ways, self.slow, self.layer = ways, slow, nn.Identity()
        self.hook_points = {"layer.c": HookPoint("layer", "B C H W", "spatial")}

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1)

    def step(self, obs, state=(), first=None) -> PolicyOutput:
        plan = torch.zeros(len(obs), 5, *obs.shape[-2:])
        for strength, way in self.ways:
            for (row, column), direction in way:
                plan[:, direction, row, column] = strength
        plan, logits = self.layer(plan), torch.zeros(len(obs), 4)
        for i, row, column in np.argwhere(np.isin(obs[:, 0].numpy(), (5, 6))):
            for direction, (down, right) in enumerate(MOVES):
                free = obs[i, 0, row + down, column + right] != WALL
                logits[i, direction] = plan[i, direction, row + down, column + right] if free else -1
            if state[i, 0] < self.slow and obs[i, 0, 4, 1] != WALL:
                logits[i, RIGHT] = 100
        return PolicyOutput(state + 1, logits=logits)


START = (3, 1)
ENV = SokobanConfig(rows=8, columns=8, boxes=1, observation="symbols", min_steps=40, max_steps=40)
SHORT, LONG = "DDRRDL", "UURRRRRDDDDDLLLL"


def way(letters: str, start: tuple[int, int] = START) -> list[tuple[tuple[int, int], int]]:
    found, at = [], start
    for letter in letters:
        direction = "UDLR".index(letter)
        at = at[0] + MOVES[direction][0], at[1] + MOVES[direction][1]
        found.append((at, direction))
    return found


def played(agent: Agent, boards: np.ndarray, **options: Any) -> list[Game]:
    return Play(agent, boards, ENV, **options).finish()


def letters(game: Game) -> str:
    return "".join("UDLR"[action] for action in game.actions)


def only_the_long_way() -> np.ndarray:
    board = boards_of(TWO_WAYS)[0]
    board[4, 1] = WALL
    return board


def test_the_two_ways_are_found_and_turn_with_the_board():
    board = boards_of(TWO_WAYS)[0]
    found = routes(board, "agent")
    assert found is not None
    assert found.short == tuple(way("DD"))  # after which another cell may be gone by
    assert found.long[:11] == tuple(way(LONG[:11]))
    for turns in range(4):
        for mirrored in (False, True):
            moved = found.symmetric(turns, mirrored, 8, 8)
            turned = Levels(board[None], ("level",)).symmetric(turns, mirrored)
            assert moved.start == tuple(turned.players[0])
            assert moved.long[:11] == tuple(
                way("".join("UDLR"[direction] for _, direction in moved.long[:11]), moved.start)
            )
            assert all(turned.boards[0][cell] == FLOOR for cell, _ in moved.long)


def test_no_second_way_is_found_where_there_is_none():
    board = boards_of(TWO_WAYS)[0]
    board[1, 3] = WALL
    assert routes(board, "agent") is None


def test_the_two_ways_of_a_box_are_found_in_published_levels():
    # Where Bush et al. see the box at the end of the short way, of the first levels of their set.
    levels = load("box_shortcut", 10, 10)
    for board, checkpoint in zip(levels.boards[:3], [(4, 2), (3, 2), (4, 1)], strict=True):
        found = routes(board, "box")
        assert found is not None
        assert checkpoint in [cell for cell, _ in found.short]
        assert found.long[0] == (found.start, RIGHT)


def test_a_planted_vector_makes_the_agent_take_the_long_way_and_others_do_not():
    agent, board = Walker([(0.5, way(LONG)), (1.0, way(SHORT))]), boards_of(TWO_WAYS)
    assert letters(played(agent, board)[0]) == SHORT
    found = routes(board[0], "agent")
    assert found is not None
    forks = [Fork(board[0], found, level) for level in range(12)]
    vectors = {"layer.c": torch.eye(5) - 0.2}
    noise = random_vectors(vectors, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise["layer.c"].norm(dim=1), vectors["layer.c"].norm(dim=1))
    result = steered(agent, ENV, forks, "agent", {"probe": [vectors], "random": [noise]}, (0.01, 3.0))
    assert result["alpha"] == 3.0
    assert result["success"] == 1
    assert result["untouched"] == result["opposite"] == result["doses"]["probe"][0]["success"] == 0


def test_draws_of_vectors_are_apart_and_their_levels_together():
    agent, board = Walker([(0.5, way(LONG)), (1.0, way(SHORT))]), boards_of(TWO_WAYS)[0]
    found = routes(board, "agent")
    assert found is not None
    forks = [Fork(board, found, level) for level in range(12)]
    working, idle = {"layer.c": torch.eye(5) - 0.2}, {"layer.c": torch.zeros(5, 5)}
    result = steered(agent, ENV, forks, "agent", {"probe": [working], "random": [working, idle, idle]}, (3.0,))
    assert result["random"] == pytest.approx(1 / 3)
    assert result["random_range"] == result["doses"]["random"][0]["range"] == [0, 1]
    assert "range" not in result["doses"]["probe"][0]
    assert result["random_interval"] is None  # every level is as the others


def test_thinking_takes_the_place_of_walking_to_and_fro():
    boards = np.stack([boards_of(TWO_WAYS)[0], only_the_long_way()])
    agent = Walker([(0.5, way(LONG)), (1.0, way(SHORT))], slow=3)
    games = played(agent, boards)
    assert [letters(game) for game in games] == ["RRR" + SHORT, LONG]
    assert [letters(game) for game in played(agent, boards, thinking=3)] == [SHORT, LONG]
    assert cycles_of(games[0]) == [Cycle(0, 0, 3)]
    assert cycles_of(games[1]) == []
    assert by_time(games)[0] | {"steps": 10, "share": 0.3, "share_solved": 0.3} == by_time(games)[0]
    found = substituted(agent, ENV, games)
    assert found is not None
    assert (found["cycles"], found["length"]) == (1, 3)
    assert found["replaced"]["same_way"]["share"] == found["replaced"]["solved"]["share"] == 1


def test_thinking_is_told_from_walking_where_it_is_not_the_same():
    class Counter(Walker):
        """Its clock goes on with its actions alone."""

        def step(self, obs, state=(), first=None):
            return replace(super().step(obs, state), state=state)

        def after_action(self, state, actions):
            return state + 1

    agent = Counter([(0.5, way(LONG)), (1.0, way(SHORT))], slow=3)
    games = played(agent, np.stack([boards_of(TWO_WAYS)[0], only_the_long_way()]))
    found = substituted(agent, ENV, games)
    assert found is not None
    assert (found["replaced"]["same_way"]["share"], found["control"]["same_way"]["share"]) == (0, 1)


def test_who_thinks_where_nothing_is_left_out_has_all_the_steps_that_there_were():
    env = replace(ENV, min_steps=len(LONG), max_steps=len(LONG))
    agent = Walker([(0.5, way(LONG)), (1.0, way(SHORT))], slow=3)
    games = Play(agent, np.stack([boards_of(TWO_WAYS)[0], only_the_long_way()]), env).finish()
    assert [game.solved for game in games] == [True, True]
    found = substituted(agent, env, games)
    assert found is not None
    assert found["control"]["solved"]["share"] == found["control"]["same_way"]["share"] == 1


def test_as_many_steps_are_compared_after_a_cycle_as_in_its_control():
    class Late(Walker):
        """After ten looks it walks against a wall."""

        def step(self, obs, state=(), first=None):
            out = super().step(obs, state)
            late = (state >= 10) * torch.tensor([0.0, 0, 200, 0])
            return replace(out, logits=out.logits + late)

    agent = Late([(0.5, way(LONG)), (1.0, way(SHORT))], slow=3)
    games = played(agent, np.stack([boards_of(TWO_WAYS)[0], only_the_long_way()]))
    assert letters(games[0]) == "RRR" + SHORT
    assert letters(games[1])[:12] == LONG[:10] + "LL"
    found = substituted(agent, ENV, games)
    assert found is not None  # six steps follow the cycle; the eighth of the control is another
    assert found["replaced"]["same_way"]["share"] == found["control"]["same_way"]["share"] == 1


def test_states_hold_what_the_agent_then_did():
    agent = Walker([(1.0, way(SHORT))])
    states, games = read_states(agent, ENV, boards_of(TWO_WAYS), ["layer.c"])
    assert letters(games[0]) == SHORT
    assert states.steps.tolist() == list(range(6))
    come, plan = states.come["agent"], states.maps[Point("layer.c", 0)].float()
    for step in range(6):
        left = way(SHORT)[step:]
        assert {
            (tuple(cell), come[step][tuple(cell)]) for cell in np.argwhere((come[step] >= 0) & (come[step] < 4))
        } == {(cell, direction) for cell, direction in left}
        assert [states.ahead["agent"][step][cell] for cell, _ in left] == list(range(6 - step))
    assert plan[0, DOWN, 4, 1] == 1
    assert (states.come["box"][0] == LEFT).sum() == 1


@pytest.fixture
def recorded(tmp_path):
    """`recorded(agent, parts)`: its episode on the board with two ways."""
    (tmp_path / "two-ways.txt").write_text(TWO_WAYS.strip("\n"))

    def make(agent: Agent, *parts: Part) -> Recording:
        env = replace(ENV, levels=str(tmp_path / "two-ways.txt"))
        return record(Loaded(Run(tmp_path / "walker"), 0, agent, env, ""), Recipe(0, parts or (Part(40),)))

    return make


WRITTEN = CellProbe(20 * torch.eye(5)[:, :, None, None], torch.tensor([0.0, 0, 0, 0, 10]))
"""Reads the class that a `Walker` has written, and elsewhere never."""
PROBES = {(concept, Point("layer.c", 0)): WRITTEN for concept in CONCEPTS}


def drawn(found: list[Arrow]) -> set[tuple[tuple[int, int], int]]:
    return {((row, column), direction) for row, column, direction, _ in found}


def test_arrows_are_the_way_that_is_written_and_what_came_is_the_rest_of_it(recorded):
    recording = recorded(Walker([(50.0, way(SHORT))]))
    assert "".join("UDLR"[action] for action in recording.actions) == SHORT
    for step in (0, 2):
        moment = recording.moment(step)
        board = board_in(recording.loaded.env, moment)
        read = plans_in(recording.loaded, moment, PROBES).probabilities["agent"]
        assert read.shape == (1, 1, 1, 5, 8, 8)
        assert drawn(arrows(board, read[0, 0, 0])) == set(way(SHORT))
        came = arrows_of_what_came(recording, step)
        assert drawn(came["agent"]) == set(way(SHORT)[step:])
        assert drawn(came["box"]) == {((6, 2), LEFT)}
    assert arrows_of_what_came(recording, 6) == {"agent": [], "box": []}


def test_an_agent_that_thinks_first_plays_on_as_it_then_would(recorded):
    slow = Walker([(50.0, way(SHORT))], slow=2)
    whole = recorded(slow, Part(1), Part(9, thinking=2))
    assert whole.actions.tolist() == [RIGHT] + ["UDLR".index(letter) for letter in SHORT]
    assert recorded(slow, Part(10)).actions.tolist()[:4] == [RIGHT, RIGHT, DOWN, DOWN]
    moments = whole.light()
    assert [float(moment.state[0, 0]) for moment in moments[:3]] == [0, 3, 4]
    for beginning in (recorded(slow, Part(10)), whole, recorded(slow, Part(1), Part(9, thinking=1))):
        for parts in ((Part(1), Part(9, thinking=2)), (Part(1),), (Part(3),), (Part(2), Part(5, thinking=1))):
            recipe = Recipe(0, parts)
            again = record(whole.loaded, recipe, beginning=beginning)
            fresh = record(whole.loaded, recipe)
            assert again.actions.tolist() == fresh.actions.tolist()
            states = [[float(moment.state[0, 0]) for moment in each.light()] for each in (again, fresh)]
            assert states[0] == states[1]
    with pytest.raises(UserError, match="at most 100"):
        Part(3, thinking=101)


def test_what_came_of_an_edited_board_is_not_taken_for_what_came_of_this_one(recorded):
    recording = recorded(Walker([(50.0, way(SHORT))]), Part(2), Part(9, edits=("wall:3,6",)))
    assert drawn(arrows_of_what_came(recording, 0)["agent"]) == set(way("DD"))
    assert len(arrows_of_what_came(recording, 2)["agent"]) > 0


def test_no_arrow_is_drawn_in_a_wall_or_where_never_is_likelier():
    board = np.full((1, 3), 1, np.uint8)
    board[0, 0] = WALL
    plan = np.array([[0.9, 0, 0, 0, 0.1], [0, 0.6, 0, 0, 0.4], [0.3, 0.19, 0, 0, 0.51]], np.float32).T[:, None]
    assert arrows(board, plan) == [(0, 1, DOWN, pytest.approx(0.6))]
    plan[:, 0, 1] = [0.15, 0.15, 0.15, 0.15, 0.4]  # likelier than never together, and none of them likely
    assert arrows(board, plan) == []


def test_a_plan_is_read_under_changes_and_again_after_further_looks(recorded):
    recording = recorded(Walker([(1.0, way(SHORT))], slow=2))
    loaded, moment = recording.loaded, recording.moment(0)
    board = board_in(loaded.env, moment)
    before = plans_in(loaded, moment, PROBES, thinking=2)
    changes = parse_changes(["ablate:layer.c:1", "ablate:layer.c:3"], loaded)
    after = plans_in(loaded, moment, PROBES, changes, thinking=2)
    assert drawn(arrows(board, after.probabilities["agent"][0, 2, 0])) == {
        (cell, direction) for cell, direction in way(SHORT) if direction not in (DOWN, RIGHT)
    }
    assert cells_that_differ(board, before, after).tolist() == [[[5], [5], [5]]]
    assert (
        cells_that_differ(board, before, plans_in(loaded, moment, PROBES, (), 2, times=3)).tolist() == [[[0]] * 3] * 3
    )
    assert before.preferences[0].argmax(-1).tolist() == [RIGHT, RIGHT, DOWN]
    with pytest.raises(UserError, match="from 0 to"):
        plans_in(loaded, moment, PROBES, thinking=-1)


def test_a_zigzag_can_be_solved_and_is_as_long_as_the_board():
    for size in (12, 13):
        boards = zigzags(size)
        plan = solve(boards[0], fewest="steps")
        assert plan.actions is not None
        assert len(plan.actions) > size * size / 3
        assert len({board.tobytes() for board in boards}) == 8


def test_a_drc_plays_boards_larger_than_its_own():
    torch.manual_seed(0)
    agent = DRC(4, (1, 6, 6), (7,), layers=1, ticks=1, channels=4, hidden=8)
    head = CellProbe(torch.randn(4, 4, 3, 3), torch.zeros(4))
    obs = torch.from_numpy(zigzags(12)[:, None])
    wide = Anywhere(agent, head, (12, 12))
    out = wide.step(obs, wide.initial_state(8))
    hidden = agent.swept(obs[None], wide.initial_state(8))[0][0]
    row, column = np.argwhere(zigzags(12)[3] == PLAYER)[0]
    around = nn.functional.pad(hidden[3], (1, 1, 1, 1))[:, row : row + 3, column : column + 3]
    assert out.logits is not None
    torch.testing.assert_close(out.logits[3], (head.weight * around).sum((1, 2, 3)))
    scaled = Anywhere(agent, head, (12, 12), scale=1.4)
    assert not torch.equal(scaled.step(obs, out.state).preferences, wide.step(obs, out.state).preferences)
