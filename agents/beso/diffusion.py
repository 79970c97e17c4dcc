"""Denoising diffusion in the form of Karras et al. 2022 (EDM, arXiv 2206.00364): how much noise there is in training
and at each step of sampling, what a network learns, and samplers.

A sample x at noise level σ is a datum with Gaussian noise of standard deviation σ. A denoiser D(x; σ) is the mean of
the data given x, and (D(x; σ) − x)/σ² is the score. Sampling follows dx/dσ = (x − D(x; σ))/σ from the largest σ to 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.errors import UserError, require_numbers, unknown

SIGMA_DATA = 0.5
"""Standard deviation of the data: actions are scaled to it."""
_SPREAD = 0.5
"""Scale of the log-logistic distribution of noise levels in training (Reuss et al. 2023)."""
_RHO = 7.0
"""Of Karras's noise levels, which are evenly spaced as σ^(1/ρ) (eq. 5)."""
_MOST_CHURN = math.sqrt(2) - 1

Schedule = Literal["exponential", "karras", "linear"]
Sampler = Literal["euler", "ancestral", "heun", "dpm++2m"]

Denoise = Callable[[Tensor, float], Tensor]
"""`denoise(x [B, ...], sigma)` gives D(x; σ), of x's shape."""
Noise = Callable[[int], Tensor]
"""`noise(i)`: standard normal numbers of x's shape that the sampler adds after step i, from 0."""


@dataclass(frozen=True)
class Sampling:
    """How actions are sampled from a denoiser."""

    steps: int = 3
    """Denoising steps; Heun's take two passes of the network each, but for the last."""
    sampler: Sampler = "euler"
    """euler (which is DDIM in this form), ancestral, heun or dpm++2m."""
    schedule: Schedule = "exponential"
    """How noise levels lie between the largest and the smallest: exponential, karras or linear."""
    sigma_min: float = 0.005
    """The smallest noise level above 0, of actions whose standard deviation is 0.5."""
    sigma_max: float = 1.0
    """The largest, from which sampling starts."""
    churn: float = 0.0
    """Noise that euler and heun add before their steps, S_churn of Karras et al. 2022."""
    guidance: float = 1.5
    """λ of D_u + λ (D_c − D_u), where D_c is told the goal and D_u is not: 0 ignores the goal, 1 asks for it, and more
    exaggerates what it changes (Ho & Salimans 2022, arXiv 2207.12598)."""

    def __post_init__(self) -> None:
        require_numbers(
            self, at_least_1=("steps",), positive=("sigma_min", "sigma_max"), at_least_0=("churn", "guidance")
        )
        if not self.sigma_min < self.sigma_max:
            raise UserError(f"sigma_min={self.sigma_min} given with sigma_max={self.sigma_max}; it must be below it.")
        for what, given, known in (("sampler", self.sampler, SAMPLERS), ("schedule", self.schedule, _SCHEDULES)):
            if given not in known:
                raise UserError(unknown(what, given, known))

    @property
    def sigmas(self) -> list[float]:
        """The noise levels, from the largest to 0: one more than there are steps."""
        return [*_SCHEDULES[self.schedule](self.steps, self.sigma_min, self.sigma_max).tolist(), 0.0]

    @property
    def levels(self) -> list[float]:
        """The noise level of each pass of the network, in order: those of the hooks' ticks."""
        seen: list[float] = []

        def denoise(x: Tensor, sigma: float) -> Tensor:
            seen.append(sigma)
            return x

        self.sample(denoise, torch.zeros(1), lambda step: torch.zeros(1))
        return seen

    def sample(self, denoise: Denoise, start: Tensor, noise: Noise) -> Tensor:
        """What `start`, standard normal numbers `[B, ...]`, is denoised to."""
        sigmas = self.sigmas
        return SAMPLERS[self.sampler](denoise, start * sigmas[0], sigmas, noise, self.churn)


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in of D(x; σ) = c_skip x + c_out F(c_in x; ln σ / 4), with which the network F is given, and
    learns, values of variance 1 at all σ (Karras et al. 2022, table 1)."""
    total = sigma.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA * total.rsqrt(), total.rsqrt()


def training_sigmas(share: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    """Noise levels for training from uniform numbers in [0, 1]: log-logistic, with the median of the untruncated at
    the data's standard deviation, truncated to the given range (Reuss et al. 2023, §4)."""
    low, width = _quantiles(sigma_min, sigma_max)
    drawn = math.log(SIGMA_DATA) + _SPREAD * torch.logit(low + share * width)
    return drawn.exp().clamp(sigma_min, sigma_max)


@cache
def _quantiles(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """Of the untruncated distribution at the lower end, and how much of it lies between both, in float32."""
    low, high = (
        torch.sigmoid(torch.tensor((math.log(end) - math.log(SIGMA_DATA)) / _SPREAD)) for end in (sigma_min, sigma_max)
    )
    return float(low), float(high - low)


def _euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, churn: float) -> Tensor:
    for step, after in enumerate(sigmas[1:]):
        x, sigma = _churned(x, sigmas, step, noise, churn)
        x = x + (after - sigma) * _slope(x, denoise(x, sigma), sigma)
    return x


def _ancestral(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, churn: float) -> Tensor:
    """Down to less noise than is wanted, and what lacks added anew (Song et al. 2021, arXiv 2011.13456, §C)."""
    for step, after in enumerate(sigmas[1:]):
        sigma = sigmas[step]
        added = min(after, after * math.sqrt(sigma**2 - after**2) / sigma)
        down = math.sqrt(after**2 - added**2)
        x = x + (down - sigma) * _slope(x, denoise(x, sigma), sigma)
        if added:
            x = x + added * noise(step)
    return x


def _heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, churn: float) -> Tensor:
    """Karras et al. 2022, algorithm 2."""
    for step, after in enumerate(sigmas[1:]):
        x, sigma = _churned(x, sigmas, step, noise, churn)
        slope = _slope(x, denoise(x, sigma), sigma)
        there = x + (after - sigma) * slope
        if after:
            slope = (slope + _slope(there, denoise(there, after), after)) / 2
        x = x + (after - sigma) * slope
    return x


def _dpm(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise, churn: float) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095), algorithm 2, in λ = −ln σ; the last step is of first
    order."""
    before, last = None, 0.0
    for sigma, after in pairwise(sigmas):
        found = denoise(x, sigma)
        if not after:
            return found
        width, towards = math.log(sigma / after), found
        if before is not None:
            towards = found + (found - before) * width / (2 * last)
        x = after / sigma * x - math.expm1(-width) * towards
        before, last = found, width
    return x


def _slope(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """dx/dσ."""
    return (x - denoised) / sigma


def _churned(x: Tensor, sigmas: Sequence[float], step: int, noise: Noise, churn: float) -> tuple[Tensor, float]:
    """A little more noise, and its level."""
    sigma = sigmas[step]
    share = min(churn / (len(sigmas) - 1), _MOST_CHURN)
    if not share:
        return x, sigma
    more = sigma * (1 + share)
    return x + math.sqrt(more**2 - sigma**2) * noise(step), more


def _exponential(steps: int, low: float, high: float) -> NDArray[np.float64]:
    return np.exp(np.linspace(math.log(high), math.log(low), steps))


def _karras(steps: int, low: float, high: float) -> NDArray[np.float64]:
    return np.linspace(high ** (1 / _RHO), low ** (1 / _RHO), steps) ** _RHO


def _linear(steps: int, low: float, high: float) -> NDArray[np.float64]:
    return np.linspace(high, low, steps)


_SCHEDULES: Mapping[str, Callable[[int, float, float], NDArray[np.float64]]] = {
    "exponential": _exponential, "karras": _karras, "linear": _linear,
}  # fmt: skip
SAMPLERS: Mapping[str, Callable[[Denoise, Tensor, Sequence[float], Noise, float], Tensor]] = {
    "euler": _euler, "ancestral": _ancestral, "heun": _heun, "dpm++2m": _dpm,
}  # fmt: skip
