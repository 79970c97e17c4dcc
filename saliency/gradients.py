"""Gradient saliency, through Captum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rl_interp.core.agent import Agent, State, tree_map
from saliency.perturbation import Perturbation
from saliency.targets import Target, evaluate, prepare


@dataclass(frozen=True)
class Gradient:
    """Σ_c |∂target / ∂pixel| over the observation's channels (Simonyan et al. 2014, arXiv 1312.6034)."""

    def attributions(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> Tensor:
        """`[B, C, H, W]`: signed gradients per pixel, in the target's unit per grey level."""
        from captum.attr import Saliency

        return Saliency(_function(agent, obs, target, state)).attribute(_pixels(agent, obs), abs=False).detach()

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
        for i in range(len(obs)):  # the chosen action is one observation's own
            own = None if state is None else _select(state, i)
            method = Captum(_function(agent, obs[i : i + 1], target, own))
            one_by_one.append(method.attribute(pixels[i : i + 1], start[i : i + 1], n_steps=self.steps).detach())
        return torch.cat(one_by_one)

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32."""
        return self.attributions(agent, obs, target, state).sum(1).float().cpu().numpy()


def _pixels(agent: Agent, obs: Tensor) -> Tensor:
    return obs.to(next(agent.parameters()).dtype).clone().requires_grad_()


def _function(agent: Agent, obs: Tensor, target: Target, state: State) -> Callable[[Tensor], Tensor]:
    """The target as a function of float pixels `[N, C, H, W]`; N may be a multiple of the batch."""
    state = agent.initial_state(len(obs)) if state is None else state
    score = prepare(agent, obs, state, target)

    def function(pixels: Tensor) -> Tensor:
        times = len(pixels) // len(obs)
        many = tree_map(lambda leaf: leaf.repeat(times, *[1] * (leaf.dim() - 1)), state)
        return evaluate(agent, pixels, many, target, score)

    return function


def _select(state: State, i: int) -> State:
    return tree_map(lambda leaf: leaf[i : i + 1], state)
