"""Concept erasure: what a layer knows of a concept, taken out, so that one sees what was done by it.

Each state x moves along the direction in which the concept and the layer vary together, C = Cov(x, z), as far as a
linear probe with weights β reads the concept z in it: x − C β·(x − mean) / β·C. In the states that this was learned
from no linear probe reads z then, as Cov(x, z) is 0, whatever β is. With the weights of least squares that is LEACE
(Belrose et al. 2023, arXiv 2306.03819, theorem 4.3), which moves the states least. Here they are those of ridge
regression, of the strength that predicts episodes best which it is not fitted on: least squares of a layer that
hardly varies in most of its directions would move other episodes' states along all of them. That what is not read any
more was used is to be shown by what is done without it, beside a control: Elazar et al. 2021, arXiv 2006.00995.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.analysis.probes.regression import chosen_alphas, ridge_weights
from rl_interp.core.errors import UserError

_DORMANT = 0.01
"""Spread, in the median of the units that vary, below which a unit is left as it is. How it varies with a concept hangs
on the few states in which it varies at all: moved by what is read of the concept, it would then tell it in others."""
WIDEST = 2048
"""Features of a layer, at most: their covariance is computed and decomposed, for each concept some times."""


@dataclass(frozen=True)
class Eraser:
    """`x − (x − mean)·read along`, for states `[N, D]`; `mean` and `read` are `[D]`. What is read counts within the
    `range` in which it was where it was learned, so that a memory that is moved at each step does not run away."""

    mean: Tensor
    read: Tensor
    """The probe's weights, on the scale on which what it reads moves a state by `along`."""
    along: Tensor
    """`[K, D]`: the direction in which the concept and the layer vary together; of several, as controls have them,
    state n moves along n mod K."""
    range: tuple[float, float]

    @classmethod
    def of(cls, values: NDArray[np.floating], labels: NDArray[np.floating], episodes: NDArray[np.integer]) -> "Eraser":
        """From states `values [N, D]`, a concept's `labels [N]`, and the episodes `[N]` that they are from, two or
        more.

        Raises:
            UserError: the layer is too wide, nothing in it varies with the labels, or they are of one episode.
        """
        if values.shape[1] > WIDEST:
            raise UserError(
                f"a layer of {values.shape[1]:,} features given; concepts can be erased from at most {WIDEST:,}."
            )
        if len(np.unique(episodes)) < 2:
            raise UserError("one episode given; what can be erased is learned from two or more.")
        mean = values.mean(0, dtype=np.float64)
        about, labels = values - mean, labels - labels.mean(dtype=np.float64)
        spread = np.sqrt(np.square(about).mean(0))
        varies = spread > 1e-8 + 1e-6 * np.abs(mean)
        live = varies & (spread >= _DORMANT * np.median(spread[varies])) if varies.any() else varies
        along = live * (labels @ about / len(labels))
        if not labels.any() or not along.any():
            raise UserError("nothing in the layer varies with the concept, so there is nothing to erase.")
        read, units = np.zeros_like(along), about[:, live] / spread[live]
        strength = chosen_alphas(units, labels[:, None], episodes)
        read[live] = ridge_weights(units, labels[:, None])(strength[None])[0, :, 0] / spread[live]
        read /= read @ along
        seen = about @ read
        return cls(_tensor(mean), _tensor(read), _tensor(along[None]), (float(seen.min()), float(seen.max())))

    def __call__(self, x: Tensor) -> Tensor:
        """`[N, D]` without the concept."""
        mean, read, along = (each.to(x) for each in (self.mean, self.read, self.along))
        distance = ((x - mean) @ read).clamp(*self.range)
        return x - distance[:, None] * along[torch.arange(len(x), device=x.device) % len(along)]

    def instead(self, values: NDArray[np.floating], labels: NDArray[np.floating]) -> "Eraser":
        """A control, which moves each state as far as this does, but in the directions of other labels `[K, N]`, less
        what the probe reads along them: it reads what it read before.

        Raises:
            UserError: a layer of one unit, in which there is no other direction.
        """
        if np.count_nonzero(self.along) < 2:
            raise UserError("a layer of one unit given, in which there is no direction to compare with.")
        others = (labels - labels.mean(1, keepdims=True, dtype=np.float64)) @ (
            values - values.mean(0, dtype=np.float64)
        )
        others *= (self.along != 0).numpy()  # those that are left as they are, as they are
        others -= (others @ self.read.double().numpy())[:, None] * self.along.double().numpy()
        others *= float(self.along.norm()) / np.linalg.norm(others, axis=1, keepdims=True)
        return replace(self, along=_tensor(others))

    def alone(self, number: int) -> "Eraser":
        """With that direction alone, of K counted round."""
        return replace(self, along=self.along[number % len(self.along)][None])


def _tensor(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
