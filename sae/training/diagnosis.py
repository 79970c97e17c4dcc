"""What the data looks like before a fit, and which of its features predict trouble."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError
from rl_interp.sae.data import Activations, check_finite, sample_rows
from rl_interp.sae.training.config import SAEConfig
from rl_interp.sae.training.whiten import check_width

_ROWS = 16_384
_LOUD_MEAN = 1.0
_LOW_RANK = 0.1
_MANY = 0.1


@dataclass(frozen=True)
class Diagnosis:
    """Of a layer's activations, from a sample of rows."""

    gamma: float
    """‖mean‖ / ‖standard deviation‖: above 1 a sample is mostly what all samples share."""
    effective_rank: float
    """(Σλ)² / Σλ² of the covariance's eigenvalues λ: in how many directions it varies, counted by variance (its
    participation ratio)."""
    width: int
    constant: list[int]
    """Dimensions that never vary."""
    duplicates: list[int]
    """Dimensions that equal an earlier one up to a positive factor and an offset."""
    loudest: float
    """Share of the variance along the first principal component."""

    def warnings(self, config: SAEConfig) -> list[str]:
        """A sentence for each trouble that the configuration does nothing about."""
        found = []
        if self.gamma > _LOUD_MEAN and not config.centre:
            found.append(
                f"the mean is {self.gamma:.1f} times as long as the standard deviation (gamma), which kills latents: "
                "centre the data (--centre)."
            )
        if self.effective_rank < _LOW_RANK * self.width and np.isinf(config.ridge):
            found.append(
                f"the data varies in about {self.effective_rank:.1f} of {self.width} directions, {self.loudest:.0%} of "
                "its variance along one, where all k latents of a sample will go: whiten it (--ridge 0.3)."
            )
        return found

    def notes(self) -> list[str]:
        """What is worth knowing and needs no remedy: such dimensions are left out by the whitening."""
        found = []
        if len(self.constant) > _MANY * self.width:
            found.append(f"{len(self.constant)} of {self.width} dimensions never vary, such as {self.constant[0]}.")
        if len(self.duplicates) > _MANY * self.width:
            found.append(f"{len(self.duplicates)} of {self.width} dimensions repeat another one.")
        return found


def diagnose(data: Activations, rows: NDArray[np.integer] | None = None) -> Diagnosis:
    """Look at a random sample of `rows` (by default all).

    Raises:
        UserError: fewer than two rows, or all are the same, or NaN or infinity in them, or they are too wide to be
            whitened.
    """
    check_width(data.width)
    rows = sample_rows(np.arange(len(data)) if rows is None else rows, _ROWS, np.random.default_rng(0))
    values = data.read(rows).astype(np.float64)
    if not np.isfinite(values).all():
        check_finite(data, rows)
    mean = values.mean(0)
    centred = values - mean
    varies = np.ptp(values, axis=0) > 0
    if not varies.any():
        raise UserError("every activation is the same, so there is nothing to decompose; choose another hook point.")
    covariance = centred.T @ centred / len(values)
    eigenvalues = np.linalg.eigvalsh(covariance).clip(0)
    deviation = np.sqrt(np.diag(covariance))
    scaled = covariance[np.ix_(varies, varies)] / np.outer(deviation[varies], deviation[varies])
    same = np.tril(scaled > 1 - 1e-6, -1).any(1)
    return Diagnosis(
        gamma=float(np.linalg.norm(mean) / np.sqrt(eigenvalues.sum())),
        effective_rank=float(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()),
        width=data.width,
        constant=np.flatnonzero(~varies).tolist(),
        duplicates=np.flatnonzero(varies)[same].tolist(),
        loudest=float(eigenvalues[-1] / eigenvalues.sum()),
    )
