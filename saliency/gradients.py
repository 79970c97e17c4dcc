"""Gradient saliency; integrated gradients through Captum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rl_interp.core.agent import Agent, State, evaluating, tree_map
from rl_interp.core.errors import UserError
from saliency.perturbation import Perturbation
from saliency.targets import Target, evaluate, prepare


@dataclass(frozen=True)
class Gradient:
    """Σ_c |∂target / ∂pixel| over the observation's channels (Simonyan et al. 2014, arXiv 1312.6034)."""

    def attributions(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> Tensor:
        """`[B, C, H, W]`: signed gradients per pixel, in the target's unit per grey level."""
        pixels = _pixels(agent, obs)
        with torch.enable_grad(), evaluating(agent):
            _, values = _function(agent, obs, pixels, target, state)
            return _gradient(values, pixels, target)

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32."""
        return self.attributions(agent, obs, target, state).abs().sum(1).float().cpu().numpy()


@dataclass(frozen=True)
class IntegratedGradients:
    """Σ_c of integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365), signed.

    Over all pixels they sum to target(obs) − target(baseline).
    """

    baseline: Literal["black", "blur"] = "black"
    """What the path starts from: zeros, or the blurred observation."""
    steps: int = 32
    """Points of the Gauss-Legendre rule along the path."""

    def attributions(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> Tensor:
        """`[B, C, H, W]`: signed contributions per pixel, in the target's unit."""
        from captum.attr import IntegratedGradients as Captum

        pixels = _pixels(agent, obs)
        start = torch.zeros_like(pixels) if self.baseline == "black" else Perturbation().blur(pixels).detach()
        one_by_one = []
        with torch.enable_grad(), evaluating(agent):
            for i in range(len(obs)):  # the chosen action is one observation's own
                one, own = slice(i, i + 1), None if state is None else _select(state, i)
                function, value = _function(agent, obs[one], pixels[one], target, own)
                _gradient(value, pixels, target)
                found = Captum(function).attribute(pixels[one], start[one], n_steps=self.steps)
                one_by_one.append(found.detach())
        return torch.cat(one_by_one)

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32."""
        return self.attributions(agent, obs, target, state).sum(1).float().cpu().numpy()


def _pixels(agent: Agent, obs: Tensor) -> Tensor:
    """Observations as floats, of the type in which the agent computes."""
    dtype = next((weight.dtype for weight in agent.parameters() if weight.is_floating_point()), torch.float32)
    return obs.to(dtype).clone().requires_grad_()


def _gradient(values: Tensor, pixels: Tensor, target: Target) -> Tensor:
    """Of the sum of values with respect to pixels; a `UserError` where none reaches them."""
    found, why = None, "the agent detaches or rounds them"
    if values.requires_grad:
        try:
            (found,) = torch.autograd.grad(values.sum(), pixels, allow_unused=True)
        except RuntimeError as error:  # such as an operation in place that took what a derivative needs
            why = str(error).split(", which", maxsplit=1)[0]
    if found is None:
        raise UserError(f"{target.name} has no gradient with respect to the observations ({why}); use perturbation.")
    return found


def _function(
    agent: Agent, obs: Tensor, pixels: Tensor, target: Target, state: State
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The target as a function of float pixels `[N, ...]`, N being a multiple of the batch; and its values `[B]` at
    `pixels`, those of `obs`, with their graph.

    Raises:
        UserError: as `prepare` and `evaluate` do.
    """
    state = agent.initial_state(len(obs)) if state is None else state
    score, decided = prepare(agent, obs, state, target)
    values = evaluate(agent, pixels, state, target, score, decided)

    def function(pixels: Tensor) -> Tensor:
        times = len(pixels) // len(obs)
        many = tree_map(lambda leaf: leaf.repeat(times, *[1] * (leaf.dim() - 1)), state)
        return evaluate(agent, pixels, many, target, score)

    return function, values


def _select(state: State, i: int) -> State:
    return tree_map(lambda leaf: leaf[i : i + 1], state)
