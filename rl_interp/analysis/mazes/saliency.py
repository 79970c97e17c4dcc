"""Saliency maps judged by what a maze says must matter: the way to the cheese, and the cheese."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rl_interp.analysis.probes.regression import Score, auroc
from rl_interp.core.envs.maze.config import CELL, MARGIN, WORLD
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import way
from rl_interp.core.errors import UserError
from rl_interp.core.stats import bootstrap, mean, plain

SHORTEST = 2
"""Steps from the mouse to the cheese below which there is nothing between them."""


def judge(mazes: Mazes, maps: NDArray[np.floating]) -> dict[str, Score]:
    """How well |map|, summed over each cell's pixels, finds what matters in its maze; 0.5 is a map that knows nothing.

    - `way`: AUROC of the cells on the way from the mouse to the cheese among the free cells that can be reached, but
      for both ends, which are the only cells with colours of their own.
    - `cheese`: share of the other free cells that weigh less than the cheese's.
    - `mouse`: the same for the mouse's.

    Args:
        maps: `[N, 64, 64]`, of the mazes as they stand.

    Raises:
        UserError: other than one map a maze, or a maze without a way of at least 2 steps to a cheese.
    """
    if maps.shape[:1] != (len(mazes),):
        raise UserError(f"{len(maps)} maps given for {len(mazes)} mazes; give one of each.")
    ways, free = way(mazes, mazes.cheese), mazes.distances(mazes.mouse) >= 0
    if (ways.sum((1, 2)) <= SHORTEST).any():
        raise UserError(
            f"mazes given whose cheese is nearer than {SHORTEST} steps, or missing; the way must have cells."
        )
    weights = _by_cell(np.abs(maps))
    found: dict[str, list[float]] = {"way": [], "cheese": [], "mouse": []}
    for i in range(len(mazes)):
        ends = {"cheese": _only(mazes.cheese[i]), "mouse": _only(mazes.mouse[i])}
        between = free[i] & ~ends["cheese"] & ~ends["mouse"]
        found["way"].append(_auroc(ways[i], weights[i], between))
        for name, cell in ends.items():
            found[name].append(_auroc(cell, weights[i], between | cell))
    return {name: _mean(values) for name, values in found.items()}


def _by_cell(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    """`[N, 25, 25]`: sums over the pixels of each cell."""
    end = MARGIN + CELL * WORLD
    return pixels[:, MARGIN:end, MARGIN:end].reshape(-1, WORLD, CELL, WORLD, CELL).sum((2, 4))


def _only(cell: NDArray[np.int64]) -> NDArray[np.bool_]:
    there = np.zeros((WORLD, WORLD), bool)
    there[tuple(cell)] = True
    return there


def _auroc(truth: NDArray[np.bool_], weight: NDArray[np.floating], among: NDArray[np.bool_]) -> float:
    return float(auroc(truth[among], weight[among], np.ones((1, int(among.sum()))))[0])


def _mean(values: Sequence[float]) -> Score:
    known = [value for value in values if np.isfinite(value)]  # where every free cell is on the way there is no AUROC
    low, high = plain(bootstrap([known], mean)) or (None, None)
    return Score(mean(known), low, high)
