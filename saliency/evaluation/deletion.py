"""Deletion and insertion: whether what a map calls important is what the agent's answer hangs on.

Petsiuk et al. 2018 (arXiv 1806.07421), in squares and not in pixels, so that the grain of a map is not what is tested:
scattered pixels disturb a convolution more than as many in one place. What is deleted becomes that of a substrate. No
substrate is neutral, so that rankings of methods are trusted as far as they agree over several (Atrey et al. 2020,
Huber et al. 2022).
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.agent import Agent, State
from rl_interp.saliency.methods.perturbation import CHUNK, drops
from rl_interp.saliency.targets import Target

SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of the squares that are deleted or inserted."""
SQUARES = 12
"""Squares along the shorter side of a picture, at most."""


def square_side(height: int, width: int) -> int:
    """Pixels along the side of a square."""
    return -(-min(height, width) // SQUARES)


def by_square(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """|maps| `[B, H, W]` averaged over squares: `[B, rows, columns]`; those at the far edges may be smaller."""
    side = square_side(*maps.shape[1:])
    sizes = np.abs(maps.astype(np.float64))
    for axis in (1, 2):
        starts = np.arange(0, maps.shape[axis], side)
        counts = np.diff(np.append(starts, maps.shape[axis]))
        shape = [1, 1, 1]
        shape[axis] = -1
        sizes = np.add.reduceat(sizes, starts, axis) / counts.reshape(shape)
    return sizes


def ranks(maps: NDArray[np.floating], seed: int = 0) -> NDArray[np.int64]:
    """`[B, squares]`: the place of each square in the order of importance, 0 the most; equal ones in random order."""
    sizes = by_square(maps).reshape(len(maps), -1)
    tie = np.random.default_rng(seed).random(sizes.shape)
    order = np.lexsort((tie, -sizes), axis=1)
    return np.argsort(order, axis=1, kind="stable")


@torch.no_grad()
def changes(
    agent: Agent, obs: Tensor, target: Target, state: State, ranked: NDArray[np.int64], substrate: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """How much a target changes when a map's first squares are the substrate's, and when only they are not.

    Args:
        obs: `[1, C, H, W]`.
        ranked: `[M, squares]`, of M maps of it.
        substrate: as `obs`.

    Returns:
        |target(obs) − target| for deletion and for insertion, `[M]` each, means over `SHARES`; and for the substrate
        alone. Deletion is good where it is large, insertion where it is small.
    """
    masks = torch.from_numpy(_masks(ranked, obs.shape[-2], obs.shape[-1])).to(obs.device)
    whole = torch.ones(1, *obs.shape[-2:], dtype=torch.bool, device=obs.device)
    deleted = torch.cat([masks, ~masks, whole])
    fed = obs if agent.observation == "symbols" or obs.is_floating_point() else obs.float()

    def replaced(image: Tensor) -> Iterator[Tensor]:
        for some in deleted.split(CHUNK):
            yield torch.where(some[:, None], substrate.to(image), image)

    found = drops(agent, obs, fed, target, state, replaced)[0].double().abs().numpy()
    deletion, insertion = found[:-1].reshape(2, len(ranked), len(SHARES)).mean(2)
    return deletion, insertion, float(found[-1])


def _masks(ranked: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """`[M · shares, H, W]`: the pixels of the first squares."""
    side = square_side(height, width)
    counts = np.array([max(1, round(share * ranked.shape[1])) for share in SHARES])
    first = ranked[:, None] < counts[None, :, None]
    grid = first.reshape(-1, -(-height // side), -(-width // side))
    return grid.repeat(side, 1).repeat(side, 2)[:, :height, :width]
