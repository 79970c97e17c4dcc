"""The solver: its solutions solve, and are as short as what trying everything finds."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from rl_interp.core.envs import SokobanConfig, make_vector
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.files import load, parse
from rl_interp.core.envs.sokoban.guidance import DEAD_END
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


def test_guidance_pays_the_steps_that_are_saved_and_ends_lost_boards():
    """Random play, from a board where pushes can be taken back and from others. What is lost, and how far the end is at
    least, is told by trying everything."""
    config = SokobanConfig(rows=6, columns=7, boxes=1)
    room = parse("#######\n#     #\n#  $  #\n# @   #\n# .   #\n#######", "room").boards.repeat(4, 0)
    env, free = make_vector(replace(config, guidance=0.5), 4), make_vector(config, 1)
    env.reset(0)
    rng, paid, known = np.random.default_rng(0), [], {}

    def to_go(board: np.ndarray) -> int | None:
        """Of a solution with the fewest pushes."""
        if board.tobytes() not in known:
            plan, least = solve(board), fewest(board)
            assert plan.solvable == (least is not None)
            assert least is None or (plan.pushes == least[0] and len(plan.actions) >= least[1])
            known[board.tobytes()] = None if least is None else len(plan.actions)
        return known[board.tobytes()]

    for t in range(150):
        if t % 30 == 0:
            env.set_state(Levels(room, tuple("abcd")))
        before, actions = env.boards, rng.integers(4, size=4)
        if rng.random() < 0.1:  # gone on from a checkpoint
            env.restore(env.state())
        env.send(actions)
        step = env.recv()
        assert not (step.first & (step.done | (step.reward != 0))).any()
        for i in np.flatnonzero(~step.first):
            free.set_state(Levels(before[i : i + 1], ("level",)))
            free.send(actions[i : i + 1])
            unguided, was, after = free.recv(), to_go(before[i]), to_go(env.boards[i])
            assert was is not None
            nearer = -DEAD_END if after is None else was - after
            assert step.reward[i] == pytest.approx(unguided.reward[0] + 0.5 * nearer)
            assert step.terminated[i] == (after is None or unguided.terminated[0])
            paid.append(nearer)
    assert {-DEAD_END, -1, 0, 1} <= set(paid)


def test_scores_are_without_guidance():
    eased = SokobanConfig(guidance=1).eased
    assert (eased.guidance, eased.scored.guidance, replace(eased, held_out="medium").scored.guidance) == (1, 0, 0)
