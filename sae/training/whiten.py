"""Whitening: the linear map that an autoencoder is fitted behind, and that is folded into its weights.

The hidden layer of a DQN varies almost entirely along one direction. Fitted as it is, many latents die and what tells
the actions apart is lost (docs/results/dqn-mspacman.md); behind ridge whitening the K active latents are not all
spent on that direction. After folding, decoder rows have unit norm in the whitened space, not in the raw one; latents
keep their values, so the same ones are active.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.errors import UserError
from rl_interp.sae.data import Activations

_NEGLIGIBLE = 1e-7
"""Principal components below this share of the largest one's variance are rounding errors, and left out."""


_WIDEST = 8192
"""Inputs whose covariance is computed: half a gigabyte, and about a minute for its eigenvalues."""
_ITERATIONS = 50
"""Of the largest variance's, where no covariance is computed."""


def check_width(width: int) -> None:
    """Raise a `UserError` where there are too many inputs to whiten."""
    if width > _WIDEST:
        raise UserError(
            f"activations of {width:,} numbers a sample given, of which at most {_WIDEST:,} can be whitened; choose a "
            "narrower hook point, or for a transcoder a target with the same positions."
        )


@dataclass(frozen=True)
class Whitening:
    """`z = (x − mean) to`, and back `x = mean + z back`; shape letters: D = d_in, R components kept.

    `mean [D]`, `to [D, R]`, `back [R, D]`, with `back to = 1`. `variance` is that of z, summed over R, and `dimensions`
    the same in units of the component that varies most: how many such there are, whatever the scale.
    """

    mean: Tensor
    to: Tensor
    back: Tensor
    variance: float
    dimensions: float

    @classmethod
    def of(
        cls,
        values: NDArray[np.float32],
        ridge: float,
        centre: bool = True,
        policy: Tensor | None = None,
        policy_weight: float = 0.0,
    ) -> "Whitening":
        """From samples `values [N, D]`: principal components divided by `sqrt(variance + ridge · mean variance)`. If
        they are not to be centred, components and variances are those about zero.

        With `policy [D, D]`, the metric of what an agent decides, an error e counts `|e|² + policy_weight · eᵀ P e`. P
        is scaled so that what varies among the samples counts as much in both terms.

        An agent's hidden layer often varies a hundred times more along one direction (how well the game
        goes) than along those that tell the actions apart. Unwhitened, all K latents of a sample go to that
        direction, and the rest of the dictionary dies. With `ridge = inf` one factor scales all.

        Raises:
            UserError: all samples are the same, or there are too many inputs.
        """
        check_width(values.shape[1])
        # In float64: in float32 a constant neuron's mean is not quite its value, and it would seem to vary.
        mean = values.mean(0, dtype=np.float64)
        about = values - mean if centre else values.astype(np.float64)
        variances, components = np.linalg.eigh(about.T @ about / len(values))
        if not np.any(values != values[0]):
            raise UserError(
                "every activation is the same, so there is nothing to decompose; choose another hook point."
            )
        varies = variances.sum() - (0.0 if centre else np.square(mean).sum())
        kept = variances > _NEGLIGIBLE * (variances[-1] if centre else varies)  # however far the mean is
        variances, components = variances[kept][::-1], components[:, kept][:, ::-1]
        average = varies / values.shape[1]
        factor = (variances + ridge * average) ** -0.5 if np.isfinite(ridge) else np.full(len(variances), average**-0.5)
        to, back = components * factor, (components / factor).T
        of_z = variances * factor**2 - (0.0 if centre else np.square(mean @ to))
        if policy is not None and policy_weight:
            covariance = np.diag(variances * factor**2) - (0.0 if centre else np.outer(mean @ to, mean @ to))
            to, back, of_z = _stretched(to, back, policy.double().numpy(), policy_weight, covariance)
        return cls(
            _tensor(mean if centre else np.zeros_like(mean)),
            _tensor(to),
            _tensor(back),
            float(of_z.sum()),
            float(of_z.sum() / of_z.max()),
        )

    @classmethod
    def scale(cls, values: NDArray[np.float32], centre: bool = True) -> "Whitening":
        """Bring samples `[N, D]` to one scale, in place, and return the whitening that this was: one factor for all, as
        `of` with `ridge = inf` has, but in their own coordinates, so that neither covariance nor components are
        computed, no width is too large, and nothing is copied. For samples that are white already.

        Raises:
            UserError: all samples are the same.
        """
        width = values.shape[1]
        # Some columns at a time: in float64 all would be twice the samples.
        columns = np.array_split(values, -(-width // 512), 1)
        mean = np.concatenate([part.mean(0, dtype=np.float64) for part in columns])
        varies = sum(float(part.var(0, dtype=np.float64).sum()) for part in columns)
        if not varies:
            raise UserError("every activation is the same, so there is nothing to decompose.")
        dimensions, factor = varies / _largest_variance(values, mean), (varies / width) ** -0.5
        taken = mean if centre else np.zeros_like(mean)
        for part, its_mean in zip(columns, np.array_split(taken, len(columns)), strict=True):
            part[:] = (part - its_mean) * factor
        return cls(_tensor(taken), _diagonal(factor, width), _diagonal(1 / factor, width), float(width), dimensions)

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[N, R]` from `[N, D]`."""
        return ((torch.from_numpy(x) - self.mean) @ self.to).numpy()

    def state_dict(self) -> dict[str, Tensor | float]:
        return {
            "mean": self.mean,
            "to": self.to,
            "back": self.back,
            "variance": self.variance,
            "dimensions": self.dimensions,
        }


class Whitened:
    """A view of activations, whitened as they are read: by one whitening, or the parts that lie side by side each by
    its own."""

    def __init__(self, data: Activations, whitenings: Sequence[Whitening]):
        self.data, self.whitenings = data, whitenings
        self.width = sum(whitening.to.shape[1] for whitening in whitenings)

    def __len__(self) -> int:
        return len(self.data)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        raw = self.data.read(rows)
        ends = np.cumsum([len(whitening.to) for whitening in self.whitenings])
        parts = np.split(raw, ends[:-1], axis=1)
        whitened = [whitening.apply(part) for whitening, part in zip(self.whitenings, parts, strict=True)]
        return whitened[0] if len(whitened) == 1 else np.concatenate(whitened, axis=1)


def _stretched(
    to: NDArray[np.float64],
    back: NDArray[np.float64],
    policy: NDArray[np.float64],
    weight: float,
    covariance: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.floating]]:
    """Both maps, with z, of this covariance, stretched by the root of the metric 1 + weight · P, and the spectrum of
    its covariance then."""
    metric = back @ policy @ back.T
    varies = np.sum(covariance * metric)
    if not varies > 0:
        raise UserError(
            "what the agent decides does not depend on these activations, so policy_weight has nothing to weigh; leave "
            "it at 0, or choose another hook point."
        )
    shares, directions = np.linalg.eigh(metric * np.trace(covariance) / varies)
    stretch = np.sqrt(1 + weight * shares.clip(0))
    longer, shorter = ((directions * scale) @ directions.T for scale in (stretch, 1 / stretch))
    return to @ longer, shorter @ back, np.linalg.eigvalsh(longer @ covariance @ longer)


def _largest_variance(values: NDArray[np.float32], mean: NDArray[np.float64]) -> float:
    """Along the first principal component of `[N, D]`, by power iteration; where others are as large, from below and
    within some hundredths, of which a step size does not take notice."""
    direction, length = np.random.default_rng(0).normal(size=len(mean)), 1.0
    for _ in range(_ITERATIONS):
        # Rounded to float32, as otherwise all values would be turned into float64 for each product.
        unit = (direction / np.linalg.norm(direction)).astype(np.float32)
        along = values @ unit - mean @ unit
        direction = values.T @ along.astype(np.float32) - mean * along.sum()
        length = float(np.linalg.norm(direction))
    return length / len(values)


def _diagonal(factor: float, width: int) -> Tensor:
    """`[width, width]`, sparse: wide layers' would not fit into memory otherwise."""
    where = torch.arange(width).expand(2, -1)
    return torch.sparse_coo_tensor(where, torch.full((width,), factor), check_invariants=True).coalesce()


def _tensor(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
