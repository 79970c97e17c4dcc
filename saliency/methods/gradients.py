"""Gradient saliency: plain, times the input, averaged over noise, and guided."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rl_interp.core.agent import Agent, State
from rl_interp.core.errors import UserError
from rl_interp.saliency.methods.differentiable import (
    as_function,
    as_map,
    as_pixels,
    differentiable,
    gradient_of,
    require_slope,
)
from rl_interp.saliency.targets import Target


@dataclass(frozen=True, eq=False)
class Gradient:
    """Σ_c |∂target / ∂pixel| over the observation's channels (Simonyan et al. 2014, arXiv 1312.6034)."""

    scale: Tensor | None = None
    """`[D]`: what the map of a vector is multiplied by, such as the spread of each entry."""
    signed: ClassVar[bool] = False

    def attributions(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> Tensor:
        """As `obs`, `[B, C, H, W]` or `[B, D]`: signed gradients, in the target's unit per grey level.

        Raises:
            UserError: an agent that sees symbols, or a target without a gradient.
        """
        return slope(agent, obs, target, state)[0]

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`."""
        found = self.attributions(agent, obs, target, state).abs()
        return as_map(found if self.scale is None else found * self.scale.to(found))


@dataclass(frozen=True, eq=False)
class InputGradient:
    """Σ_c pixel · ∂target / ∂pixel, signed (Shrikumar et al. 2016, arXiv 1605.01713): what a linear function of the
    pixels would get from each. Dark pixels get nothing, whatever they mean."""

    baseline: float | Tensor = 0.0
    """What an input is measured from; of vectors `[D]`, such as the mean of some."""

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`."""
        gradient, pixels = slope(agent, obs, target, state)
        baseline = torch.as_tensor(self.baseline).to(pixels)
        return as_map(gradient * (pixels - baseline))


@dataclass(frozen=True, eq=False)
class SmoothGrad:
    """Σ_c |mean over noise of ∂target / ∂pixel| (Smilkov et al. 2017, arXiv 1706.03825).

    The paper advises noise of 10% to 20% of the range of the pixels.
    """

    samples: int = 32
    noise: float | Tensor = 0.15 * 255
    """Standard deviation of the noise, in grey levels; of vectors, in their units, or `[D]`."""
    scale: Tensor | None = None
    """`[D]`: as of `Gradient`."""
    seed: int = 0
    """Of the noise, so that a map follows from its observation."""
    signed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.samples < 1 or not bool((torch.as_tensor(self.noise) >= 0).all()):
            raise UserError(f"samples={self.samples}, noise={self.noise} given; give 1 or more, and no negative noise.")

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`."""
        require_slope(target)
        pixels = as_pixels(agent, obs)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.as_tensor(self.noise).to(pixels)
        total = torch.zeros_like(pixels)
        with differentiable(agent):
            function, values = as_function(agent, obs, pixels, target, state)
            gradient_of(values, pixels, target)  # a target without one is refused before the noise is drawn
            for _ in range(self.samples):
                drawn = torch.randn(pixels.shape, generator=generator).to(pixels)
                noisy = (pixels.detach() + noise * drawn).requires_grad_()
                total += gradient_of(function(noisy), noisy, target)
        found = (total / self.samples).abs()
        return as_map(found if self.scale is None else found * self.scale.to(found))


@dataclass(frozen=True, eq=False)
class GuidedBackprop:
    """Σ_c |guided gradient|: the gradient, of which every ReLU passes back only what is positive (Springenberg et al.
    2015, arXiv 1412.6806).

    ReLUs are found as they are computed, whether they are modules or calls of `F.relu`: Captum's version, which hooks
    modules, is the plain gradient, without a word, where a network calls the function. The maps hardly depend on what
    an agent has learned (Adebayo et al. 2018), as `randomisation` shows.
    """

    signed: ClassVar[bool] = False

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`.

        Raises:
            UserError: an agent without ReLUs, for which this would be the plain gradient.
        """
        with _Guided() as found:
            gradient, _ = slope(agent, obs, target, state)
        if not found.count:
            raise UserError(
                "the agent computes no ReLU, so that guided backpropagation would be the plain gradient; use gradient."
            )
        return as_map(gradient.abs())


def slope(agent: Agent, obs: Tensor, target: Target, state: State) -> tuple[Tensor, Tensor]:
    """∂target / ∂pixel, and the pixels as floats, both as `obs`.

    Raises:
        UserError: an agent that sees symbols, or a target without a gradient.
    """
    require_slope(target)
    pixels = as_pixels(agent, obs)
    with differentiable(agent):
        _, values = as_function(agent, obs, pixels, target, state)
        return gradient_of(values, pixels, target), pixels.detach()


class _Guided(TorchFunctionMode):
    """ReLUs whose backward pass is the guided one, however they are called."""

    relus = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self.relus:
            return func(*args, **(kwargs or {}))
        given = args[0] if args else (kwargs or {})["input"]
        if not given.requires_grad:
            return func(*args, **(kwargs or {}))
        self.count += 1
        return _GuidedReLU.apply(given)


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (x > 0)
