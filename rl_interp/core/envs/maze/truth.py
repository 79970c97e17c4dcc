"""What is true of each cell of a maze, and of the mouse's place in it."""

import itertools

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import Concept
from rl_interp.core.envs.maze.config import ACTIONS, WORLD
from rl_interp.core.envs.maze.layout import NOWHERE
from rl_interp.core.envs.maze.mazes import Mazes

_SIDES = ACTIONS[:4]
_KINDS = (
    "wall", "dead end", "corridor up-down", "corridor left-right", "turn up-left", "turn up-right", "turn down-left",
    "turn down-right", "junction", "mouse", "cheese",
)  # fmt: skip
_DISTANCES = (0, 4, 8, 16, 32, 64)
"""Where classes of steps to the cheese begin."""

CONCEPTS: dict[str, Concept] = {
    "row": Concept("the mouse's row in the world of 25", "number"),
    "column": Concept("the mouse's column", "number"),
    "cheese_row": Concept("the cheese's row; -1 where there is none", "number"),
    "cheese_column": Concept("the cheese's column; -1 where there is none", "number"),
    "to_cheese": Concept("steps from the mouse to the cheese; -1 where there is none", "number"),
    "to_corner": Concept("steps from the mouse to the maze's top right", "number"),
    "side": Concept("cells along the maze's side", "number"),
    **{f"open_{side}": Concept(f"the mouse can go {side}") for side in _SIDES},
    **{f"cheese_{side}": Concept(f"the way to the cheese goes {side}") for side in _SIDES},
    **{f"corner_{side}": Concept(f"the way to the top right goes {side}") for side in _SIDES},
    "controllable": Concept("actions act: the mouse can go somewhere, as it can in every random maze"),
    "dead_end": Concept("the mouse is in a dead end"),
    "junction": Concept("the mouse is at a junction of three or four ways"),
    "parting": Concept("here the way to the cheese leaves the way to the top right"),
}


def open_sides(walls: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`[4, N, 25, 25]`: whether a step up, down, left, right leads from a free cell to a free cell."""
    free = np.pad(~walls, ((0, 0), (1, 1), (1, 1)))
    beside = [free[:, :-2, 1:-1], free[:, 2:, 1:-1], free[:, 1:-1, :-2], free[:, 1:-1, 2:]]
    return np.stack(beside) & ~walls


def nearer(distances: NDArray[np.int16], walls: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`[4, N, 25, 25]`: whether a step up, down, left, right leads nearer to where `distances [N, 25, 25]` are 0."""
    padded = np.pad(distances, ((0, 0), (1, 1), (1, 1)), constant_values=NOWHERE)
    beside = np.stack([padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]])
    return open_sides(walls) & (beside == distances - 1)


def way(mazes: Mazes, to: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`[N, 25, 25]`: the cells on a shortest way from the mouse to `to [N, 2]`, both ends included."""
    from_mouse, left = mazes.distances(mazes.mouse), mazes.distances(to)
    whole = left[np.arange(len(mazes)), mazes.mouse[:, 0], mazes.mouse[:, 1]][:, None, None]
    return (from_mouse != NOWHERE) & (left != NOWHERE) & (from_mouse + left == whole)


def cells(mazes: Mazes) -> dict[str, tuple[NDArray[np.int64], tuple[str, ...]]]:
    """Ways to sort cells into classes: name to class numbers `[N, 25, 25]`, -1 where it does not apply, and the names
    of the classes. The world around a maze is of no class: that it is all wall is no finding."""
    up, down, left, right = open_sides(mazes.walls)
    count = up.astype(int) + down + left + right
    straight = [up & down & (count == 2), left & right & (count == 2)]
    turns = [a & b & (count == 2) for a, b in ((up, left), (up, right), (down, left), (down, right))]
    kind = np.select([mazes.walls, count <= 1, *straight, *turns, count >= 3], range(9), default=NOWHERE)
    for name, places in (("cheese", mazes.cheese), ("mouse", mazes.mouse)):
        there = places[:, 0] != NOWHERE
        kind[np.flatnonzero(there), places[there, 0], places[there, 1]] = _KINDS.index(name)
    to_cheese, to_corner = way(mazes, mazes.cheese), way(mazes, mazes.corner)
    of_way = np.where(mazes.walls, NOWHERE, to_cheese + 2 * to_corner)
    steps = mazes.distances(mazes.cheese)
    far = np.where(steps == NOWHERE, NOWHERE, np.digitize(steps, _DISTANCES) - 1)
    start = ((WORLD - mazes.side) // 2)[:, None]
    within = (np.arange(WORLD) >= start) & (np.arange(WORLD) < WORLD - start)
    outside = ~(within[:, :, None] & within[:, None])
    bounds = [*(f"{a} to {b - 1}" for a, b in itertools.pairwise(_DISTANCES)), f"{_DISTANCES[-1]} on"]
    classes = {
        "kind": (kind, _KINDS),
        "wall": (mazes.walls, ("free", "wall")),
        "way": (of_way, ("off both ways", "to the cheese", "to the top right", "to both")),
        "steps to the cheese": (far, tuple(bounds)),
    }
    return {name: (np.where(outside, NOWHERE, of).astype(np.int64), labels) for name, (of, labels) in classes.items()}


def labels(mazes: Mazes) -> list[dict[str, float]]:
    """Each maze's value of each of `CONCEPTS`."""
    each = np.arange(len(mazes)), mazes.mouse[:, 0], mazes.mouse[:, 1]
    to_cheese, to_corner = mazes.distances(mazes.cheese), mazes.distances(mazes.corner)
    ways = open_sides(mazes.walls)[:, *each]
    at_cheese, at_corner = nearer(to_cheese, mazes.walls)[:, *each], nearer(to_corner, mazes.walls)[:, *each]
    there = to_cheese[each] > 0
    columns: dict[str, NDArray] = {
        "row": mazes.mouse[:, 0],
        "column": mazes.mouse[:, 1],
        "cheese_row": mazes.cheese[:, 0],
        "cheese_column": mazes.cheese[:, 1],
        "to_cheese": to_cheese[each],
        "to_corner": to_corner[each],
        "side": mazes.side,
        **{f"open_{side}": ways[i] for i, side in enumerate(_SIDES)},
        **{f"cheese_{side}": at_cheese[i] & there for i, side in enumerate(_SIDES)},
        **{f"corner_{side}": at_corner[i] for i, side in enumerate(_SIDES)},
        "controllable": ways.sum(0) > 0,
        "dead_end": ways.sum(0) == 1,
        "junction": ways.sum(0) >= 3,
        "parting": (mazes.decision == mazes.mouse).all(1),
    }
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(mazes))]
