"""What is true of a board, as it is, and as a solver sees what is to come of it."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.sokoban.kinds import A_BOX, ACTIONS, BOX_ON_TARGET, KINDS, MOVES, WALL
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.envs.sokoban.plans import CLASSES, future
from rl_interp.core.envs.sokoban.rules import push
from rl_interp.core.envs.sokoban.solve import Plan, solve

BOARDS = 2_000
"""Boards that the solver looks at for the truth of one: it then knows that of all but a few boards in Boxoban."""

CONCEPTS: dict[str, Concept] = {
    "row": Concept("the player's row", "number"),
    "column": Concept("the player's column", "number"),
    "boxes_on_target": Concept("boxes on targets", "number"),
    "boxes_left": Concept("boxes off the targets", "number"),
    "steps": Concept("steps since the episode began", "number"),
    "controllable": Concept("actions act: in some direction the player can go, or push a box"),
    **{f"open_{side}": Concept(f"a step {side} moves the player") for side in ACTIONS},
    **{f"push_{side}": Concept(f"a step {side} pushes a box") for side in ACTIONS},
    "unsolvable": Concept(f"no play solves the board any more, as a search of {BOARDS:,} boards proves"),
    "pushes_left": Concept("pushes that a solution with the fewest still needs; -1 where none is known", "number"),
    **{f"plan_push_{side}": Concept(f"the next push of that solution goes {side}") for side in ACTIONS},
    **{f"plan_step_{side}": Concept(f"the next step of that solution goes {side}") for side in ACTIONS},
}


def labels(board: NDArray[np.uint8], steps: int) -> dict[str, float]:
    """A board's value of each of `CONCEPTS`."""
    row, column = (int(n) for n in players(board[None])[0])
    moved = [push(board.copy(), row, column, down, right) for down, right in MOVES]
    plan = plan_of(board)
    pushes = next_push(board, plan)
    step = -1 if plan.actions is None or not len(plan.actions) else int(plan.actions[0])
    return {
        "row": float(row),
        "column": float(column),
        "boxes_on_target": float((board == BOX_ON_TARGET).sum()),
        "boxes_left": float((board == A_BOX).sum()),
        "steps": float(steps),
        "controllable": float(max(moved) >= 0),
        **{f"open_{side}": float(moved[i] >= 0) for i, side in enumerate(ACTIONS)},
        **{f"push_{side}": float(moved[i] > 0) for i, side in enumerate(ACTIONS)},
        "unsolvable": float(plan.solvable is False),
        "pushes_left": -1.0 if plan.actions is None else float(plan.pushes),
        **{f"plan_push_{side}": float(pushes == i) for i, side in enumerate(ACTIONS)},
        **{f"plan_step_{side}": float(step == i) for i, side in enumerate(ACTIONS)},
    }


def cells(board: NDArray[np.uint8]) -> Cells:
    """Ways to sort cells into classes: what they are, and from which side the solver's plan steps onto them, and pushes
    boxes off them. The plan's have no class where there are walls, or no plan is known."""
    plan = plan_of(board)
    steps, pushes = np.full((2, *board.shape), -1)
    if plan.actions is not None and len(plan.actions):
        come = future(board, plan.actions)
        floor = board != WALL
        steps, pushes = np.where(floor, come.agent[0], -1), np.where(floor, come.box[0], -1)
    return {
        "kind": (board.astype(np.int64), KINDS),
        "plan's steps": (steps.astype(np.int64), CLASSES),
        "plan's pushes": (pushes.astype(np.int64), CLASSES),
    }


def plan_of(board: NDArray[np.uint8]) -> Plan:
    """What the solver finds of a board; the last ones are kept."""
    return _plan(board.tobytes(), board.shape)


@lru_cache(256)
def _plan(board: bytes, shape: tuple[int, int]) -> Plan:
    return solve(np.frombuffer(board, np.uint8).reshape(shape), BOARDS)


def next_push(board: NDArray[np.uint8], plan: Plan) -> int:
    """The direction of a plan's first push; -1 if there is none."""
    if plan.actions is None or not len(plan.actions):
        return -1
    come = future(board, plan.actions)
    first = np.where(come.box_ahead[0] < 0, len(plan.actions), come.box_ahead[0]).min()
    return int(plan.actions[first])
