"""The solver: its solutions solve, and are as short as what trying everything finds."""

from collections import deque

import numpy as np
import pytest

from rl_interp.core.envs import SokobanConfig, make_vector
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.files import load, parse
from rl_interp.core.envs.sokoban.kinds import A_BOX
from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.sokoban.plans import replayed
from rl_interp.core.envs.sokoban.rules import push
from rl_interp.core.envs.sokoban.solve import solve
from rl_interp.core.errors import UserError


def small(count: int, **config: int) -> Levels:
    boards, numbers = Choice(SokobanConfig(**config)).levels(np.arange(count))  # pyright: ignore[reportArgumentType]
    return Levels(boards, tuple(map(str, numbers)))


def replay(levels: Levels, solutions: list[np.ndarray]) -> np.ndarray:
    """Which of the levels' solutions end their episode with their last action, and not before."""
    rows, columns = levels.boards.shape[1:]
    env = make_vector(SokobanConfig(rows=rows, columns=columns, boxes=1, none=True, max_steps=1000), len(levels))
    env.set_state(levels)
    ended = np.zeros(len(levels), int)
    for at in range(max(map(len, solutions))):
        env.send(np.array([actions[at] if at < len(actions) else 4 for actions in solutions]))
        step = env.recv()
        ended[step.terminated & (ended == 0)] = at + 1
    return ended == [len(actions) for actions in solutions]


def fewest(board: np.ndarray) -> tuple[int, int] | None:
    """The fewest pushes and the fewest steps of any solution, by trying everything; None if there is none."""
    best = []
    for cost in ((0, 1), (1, 1)):  # of a step without a push, and with one
        start = board.tobytes()
        queue, known = deque([(start, 0)]), {start: 0}
        found = None
        while queue:
            state, so_far = queue.popleft()
            if so_far > known[state]:
                continue
            here = np.frombuffer(state, np.uint8).reshape(board.shape)
            if not (here == 4).any():
                found = so_far
                break
            row, column = np.argwhere(here >= 5)[0]
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                after = here.copy()
                pushed = push(after, row, column, down, right)
                if pushed < 0:
                    continue
                total, key = so_far + cost[pushed], after.tobytes()
                if total < known.get(key, 10**9):
                    known[key] = total
                    (queue.appendleft if cost[pushed] == 0 else queue.append)((key, total))
        if found is None:
            return None
        best.append(found)
    return best[0], best[1]


def test_solutions_have_the_fewest_pushes_and_steps_that_there_are():
    boards = [*small(40, rows=6, columns=6, boxes=2).boards, *small(10, rows=5, columns=9, boxes=3).boards]
    for board in boards:
        by_pushes, by_steps = solve(board), solve(board, fewest="steps")
        assert by_steps.actions is not None
        assert (by_pushes.pushes, len(by_steps.actions)) == fewest(board)


def test_positions_are_unsolvable_just_when_no_play_solves_them():
    """Boards that random play leads to, many of them dead."""
    levels, rng, found = small(30, rows=6, columns=6, boxes=2), np.random.default_rng(0), []
    for board, player in zip(levels.boards, levels.players, strict=True):
        board = replayed(board, rng.integers(4, size=12), player)[-1]
        if (board == A_BOX).any():
            found.append(fewest(board) is not None)
            assert solve(board).solvable is found[-1]
    assert 5 < sum(found) < len(found) - 5


@pytest.mark.parametrize("by", ["pushes", "steps"])
def test_solutions_solve_published_levels(by):
    levels = load("unfiltered")[:60]
    plans = [solve(board, 20_000, by) for board in levels.boards]
    solved = [i for i, plan in enumerate(plans) if plan.actions is not None]
    assert len(solved) > 50
    assert replay(levels[solved], [plans[i].actions for i in solved]).all()


def test_a_search_that_ends_early_knows_nothing():
    plan = solve(load("hard").boards[0], 3)
    assert (plan.actions, plan.solvable) == (None, None)


def test_a_box_that_the_player_cannot_reach_is_no_matter_if_it_is_on_its_target():
    text = "########\n#@$ .###\n########\n#####{}##\n########"
    assert solve(parse(text.format("*"), "level").boards[0]).solvable
    apart = "##########\n#@$ . #$.#\n##########"
    assert solve(parse(apart, "level").boards[0]).solvable is False


def test_other_aims_are_refused():
    with pytest.raises(UserError, match="fewest='moves' given; it is pushes or steps"):
        solve(load("hard").boards[0], fewest="moves")
