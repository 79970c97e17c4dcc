"""Linear probes of cells: which of several classes a cell of a board is of, read off the features at it, or at it and
its eight neighbours.

A probe is a softmax regression. It is scored by macro-F1, the mean over classes of the harmonic mean of precision and
recall, so that a class that most cells are of does not hide the others (Bush et al. 2025, arXiv 2504.01871, §4). A
class that is neither there nor guessed does not count.

Shape letters: N boards, C channels, H W cells, K classes, L groups such as levels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rl_interp.core.errors import UserError
from rl_interp.core.stats import FEWEST, Estimate

CELLS = 40_000
"""Cells that a probe is fitted on, at most: dozens for each of its weights, of 3 x 3 cells and 16 channels."""
NO_CLASS = -1
_DECAY = 1e-4
_ITERATIONS = 25
"""Of whitened features, in which the loss is as steep in every direction: it then changes by less than 1e-3."""
_TOLERANCE = 1e-4
"""The largest gradient of a fit that is done, scikit-learn's default."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class CellProbe:
    """Logits of K classes at every cell."""

    weight: Tensor
    """`[K, C, k, k]`, in units of the features as they are."""
    bias: Tensor
    """`[K]`"""

    @property
    def kernel(self) -> int:
        return self.weight.shape[-1]

    def logits(self, maps: Tensor) -> Tensor:
        """`[N, K, H, W]` of `maps [N, C, H, W]`."""
        return F.conv2d(maps.float(), self.weight, self.bias, padding=self.kernel // 2)

    def classes(self, maps: Tensor) -> NDArray[np.int64]:
        """`[N, H, W]`: the likeliest of each cell."""
        return torch.cat([self.logits(part).argmax(1) for part in maps.split(1024)]).numpy()


def fit(
    maps: Tensor, classes: NDArray[np.integer], count: int, kernel: int = 1, cells: int = CELLS, seed: int = 0
) -> CellProbe:
    """Fit a probe on some of the cells, drawn at random, by L-BFGS on whitened features.

    Args:
        maps: features `[N, C, H, W]`, of any precision.
        classes: `[N, H, W]`, below `count`; cells of `NO_CLASS` are left out.
        count: K, the number of classes.
        kernel: side of the square of cells that is seen, 1 or 3; beyond the board there are zeros.

    Raises:
        UserError: no cell has a class.
    """
    known = np.flatnonzero(classes.ravel() != NO_CLASS)
    if not len(known):
        raise UserError("no cell has a class to fit a probe on; give boards on which something happens.")
    chosen = np.random.default_rng(seed).choice(known, min(cells, len(known)), replace=False)
    rows = _patches(maps, chosen, kernel)
    wanted = torch.from_numpy(classes.ravel()[chosen].astype(np.int64))
    centre, whitening = rows.mean(0), _whitening(rows)
    rows = (rows - centre) @ whitening
    weight, bias = torch.zeros(whitening.shape[1], count, requires_grad=True), torch.zeros(count, requires_grad=True)
    steps = {"max_iter": _ITERATIONS, "tolerance_grad": _TOLERANCE, "history_size": 10}
    solver = torch.optim.LBFGS([weight, bias], **steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(torch.addmm(bias, rows, weight), wanted) + _DECAY * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)  # pyright: ignore[reportArgumentType]
    raw = whitening @ weight.detach()
    shape = (count, maps.shape[1], kernel, kernel)
    return CellProbe(raw.T.reshape(shape).contiguous(), bias.detach() - centre @ raw)


def _whitening(rows: Tensor) -> Tensor:
    """`[D, D']`: to features of unit variance that don't correlate; those that do not vary are left out."""
    variances, directions = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1]))
    kept = variances > 1e-5 * variances.max().clamp_min(1e-12)
    return directions[:, kept] / variances[kept].sqrt()


def _patches(maps: Tensor, chosen: NDArray[np.int64], kernel: int) -> Tensor:
    """`[M, C · k · k]`: what is around some cells, numbered through all boards."""
    height, width = maps.shape[-2:]
    board, row, column = np.unravel_index(chosen, (len(maps), height, width))
    around = F.pad(maps, [kernel // 2] * 4)
    parts = [around[board, :, row + y, column + x] for y in range(kernel) for x in range(kernel)]
    return torch.stack(parts, -1).flatten(1).float()


def confusions(
    truth: NDArray[np.integer], guess: NDArray[np.integer], groups: NDArray[np.integer], count: int
) -> NDArray[np.int64]:
    """`[L, K, K]`: how often cells of the first class are taken for the second, by group.

    Args:
        truth, guess: `[N, H, W]`; cells whose truth is `NO_CLASS` are left out.
        groups: `[N]`, numbers from 0 to L - 1.
    """
    known = truth != NO_CLASS
    group = np.broadcast_to(groups[:, None, None], truth.shape)[known]
    pairs = (group * count + truth[known]) * count + guess[known]
    return np.bincount(pairs, minlength=(groups.max() + 1) * count**2).reshape(-1, count, count)


def f1(confusion: NDArray[np.number]) -> NDArray[np.float64]:
    """`[..., K]`: the F1 of each class, of confusions `[..., K, K]`; 0 of one that is neither there nor guessed."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(-1) + confusion.sum(-2)
    return 2 * right / np.maximum(either, 1e-12)


def macro_f1(by_group: NDArray[np.number], seed: int = 0) -> Estimate:
    """The mean F1 over classes that are there or guessed, of confusions `[L, K, K]`, with the 95% interval of a
    bootstrap over groups."""
    value = float(_macro(by_group.sum(0)))
    if len(by_group) < FEWEST:
        return Estimate(value)
    drawn = np.random.default_rng(seed).multinomial(len(by_group), [1 / len(by_group)] * len(by_group), _RESAMPLES)
    resampled = (drawn @ by_group.reshape(len(by_group), -1)).reshape(-1, *by_group.shape[1:])
    low, high = np.percentile(_macro(resampled), [2.5, 97.5])
    return Estimate(value, *((float(low), float(high)) if low < high else (None, None)))


def _macro(confusion: NDArray[np.number]) -> NDArray[np.float64]:
    seen = (confusion.sum(-1) + confusion.sum(-2) > 0).sum(-1)
    return f1(confusion).sum(-1) / np.maximum(seen, 1)
