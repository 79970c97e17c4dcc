"""Pacing: an agent that walks in a circle has lost its steps and gained time to think (Taufeeque et al. 2024, arXiv
2407.15421, §4). A cycle is a walk back to a board that the episode has been in; as many steps of thinking are put in
its place, to see whether they do the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.analysis.sokoban.play import Game, Play
from rl_interp.core.agent import Agent, State, joined, tree_map
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.envs.sokoban.plans import replayed
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import plain, wilson

TIMES = (0, 5, 10, 20, 40, 80)
"""Steps of an episode at which bins begin."""
FOLLOWED = 10
"""Steps after a cycle that are compared, at most."""


@dataclass(frozen=True)
class Cycle:
    """Steps of a game that lead back to a board."""

    game: int
    start: int
    """The step at which the board is left."""
    length: int
    """Steps until it is there again."""


def cycles_of(game: Game, number: int = 0) -> list[Cycle]:
    """All cycles of a game, one after the other, each to the last time that its board is there. Steps against a wall,
    after which the board is the same at once, are cycles too."""
    keys = [board.tobytes() for board in boards_of(game)]
    last = {key: step for step, key in enumerate(keys)}
    found, step = [], 0
    while step < len(keys):
        if (end := last[keys[step]]) > step:
            found.append(Cycle(number, step, end - step))
        step = end + 1 if end > step else step + 1
    return found


def boards_of(game: Game) -> NDArray[np.uint8]:
    """`[T + 1, H, W]`."""
    return replayed(game.board, game.actions, players(game.board[None])[0])


def by_time(games: Sequence[Game]) -> list[dict[str, Any]]:
    """The share of steps that are within cycles, by the time in the episode, of all games and of those solved."""
    within = [_within(game) for game in games]
    found = []
    for start, end in zip(TIMES, (*TIMES[1:], None), strict=True):
        parts = [steps[start:end] for steps in within]
        solved = [part for part, game in zip(parts, games, strict=True) if game.solved]
        steps, of_solved = (np.concatenate([*each, np.zeros(0, bool)]) for each in (parts, solved))
        if len(steps):
            found.append({
                "from": start, "to": start + max(map(len, parts)) - 1, "steps": len(steps),
                "share": float(steps.mean()), "share_solved": float(of_solved.mean()) if len(of_solved) else None,
            })  # fmt: skip
    return found


def _within(game: Game) -> NDArray[np.bool_]:
    steps = np.zeros(len(game.actions), bool)
    for cycle in cycles_of(game):
        steps[cycle.start : cycle.start + cycle.length] = True
    return steps


def substituted(
    agent: Agent, env: SokobanConfig, games: Sequence[Game], seed: int = 0, progress: Progress = SILENT
) -> dict[str, Any] | None:
    """Replace the first cycle of each game by as many steps of thinking where it begins, and as a control, think as
    long at the same step of another game that has no cycle there. None where there are no cycles.

    Compared are the next steps with those that followed the cycle (in the control, with those that followed), as many
    in a case as in its control, and how many games are solved within the same number of steps in all.
    """
    first = [found[0] for number, game in enumerate(games) if (found := cycles_of(game, number))]
    ends = [c for c in first if c.start + c.length < len(games[c.game].actions)]  # after which something comes
    rng = np.random.default_rng(seed)
    free = [~_within(game) for game in games]
    pairs = []
    for cycle in ends:
        after = slice(cycle.start, cycle.start + FOLLOWED)
        others = [number for number, steps in enumerate(free) if steps[after].all() and len(steps) > cycle.start]
        if others:
            pairs.append((cycle, Cycle(int(rng.choice(others)), cycle.start, cycle.length)))
    if not pairs:
        return None
    cycles, controls = (list(column) for column in zip(*pairs, strict=True))
    # More steps are less often the same, and a game that goes on for long has more of them to compare.
    left = [[len(games[each.game].actions) - each.start for each in arm] for arm in (cycles, controls)]
    steps = np.minimum(np.subtract(left[0], [cycle.length for cycle in cycles]), left[1]).clip(max=FOLLOWED)
    return {
        "cycles": len(cycles),
        "length": float(np.mean([cycle.length for cycle in cycles])),
        "replaced": _thought(agent, env, games, cycles, steps, skipped=True, progress=progress),
        "control": _thought(agent, env, games, controls, steps, skipped=False, progress=progress),
    }


def _thought(
    agent: Agent, env: SokobanConfig, games: Sequence[Game], at: Sequence[Cycle], steps: NDArray[np.int64],
    skipped: bool, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Play on after thinking for as long as each cycle takes, and compare the next `steps [N]`. `skipped`: the cycles
    are left out, so that what follows is compared with what followed their ends, and their steps are not to be had
    again."""
    boards, state = _states(agent, env, games, at, progress)
    lengths, starts = np.array([each.length for each in at]), np.array([each.start for each in at])
    gone = lengths if skipped else np.zeros_like(lengths)
    play = Play(
        agent, boards, env, thinking=lengths, state=state, limits=env.max_steps - starts - gone, progress=progress
    )
    new = play.finish()
    same, before = [], []
    for game, cycle, left_out, count in zip(new, at, gone, steps, strict=True):
        old = games[cycle.game]
        then = boards_of(old)[cycle.start + left_out :][: count + 1]
        same.append(np.array_equal(boards_of(game)[: count + 1], then))
        before.append(old.solved)
    rates = {"same_way": wilson(same), "solved": wilson([game.solved for game in new]), "solved_before": wilson(before)}
    return {name: {"share": rate.value, "interval": plain(rate)} for name, rate in rates.items()}


def _states(
    agent: Agent, env: SokobanConfig, games: Sequence[Game], at: Sequence[Cycle], progress: Progress
) -> tuple[NDArray[np.uint8], State]:
    """Boards `[N, H, W]` and the agent's state where each cycle begins."""
    boards = np.stack([games[each.game].board for each in at])
    forced = [games[each.game].actions[: each.start + 1] for each in at]
    stops = np.array([each.start for each in at])
    out, found = np.empty_like(boards), {}
    play = Play(agent, boards, env, forced=forced, progress=progress)
    for turn in play:
        for row in np.flatnonzero(stops[turn.games] == turn.step):
            game = int(turn.games[row])
            out[game] = turn.boards[row]
            found[game] = tree_map(lambda leaf, row=row: leaf[row : row + 1].clone(), turn.state)
    return out, joined([found[game] for game in range(len(at))])
