"""What is true of a board."""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.sokoban.kinds import A_BOX, ACTIONS, BOX_ON_TARGET, KINDS, MOVES
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.envs.sokoban.rules import push

CONCEPTS: dict[str, Concept] = {
    "row": Concept("the player's row", "number"),
    "column": Concept("the player's column", "number"),
    "boxes_on_target": Concept("boxes on targets", "number"),
    "boxes_left": Concept("boxes off the targets", "number"),
    "steps": Concept("steps since the episode began", "number"),
    "controllable": Concept("actions act: in some direction the player can go, or push a box"),
    **{f"open_{side}": Concept(f"a step {side} moves the player") for side in ACTIONS},
    **{f"push_{side}": Concept(f"a step {side} pushes a box") for side in ACTIONS},
}


def labels(board: NDArray[np.uint8], steps: int) -> dict[str, float]:
    """A board's value of each of `CONCEPTS`."""
    row, column = (int(n) for n in players(board[None])[0])
    moved = [push(board.copy(), row, column, down, right) for down, right in MOVES]
    return {
        "row": float(row),
        "column": float(column),
        "boxes_on_target": float((board == BOX_ON_TARGET).sum()),
        "boxes_left": float((board == A_BOX).sum()),
        "steps": float(steps),
        "controllable": float(max(moved) >= 0),
        **{f"open_{side}": float(moved[i] >= 0) for i, side in enumerate(ACTIONS)},
        **{f"push_{side}": float(moved[i] > 0) for i, side in enumerate(ACTIONS)},
    }


def cells(board: NDArray[np.uint8]) -> Cells:
    """Ways to sort cells into classes."""
    return {"kind": (board.astype(np.int64), KINDS)}
