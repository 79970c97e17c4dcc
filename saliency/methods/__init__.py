"""The saliency methods: `METHODS` by name, and `saliency_map`, which runs one.

A new method is a file here and a line in `METHODS`; the command line, the films and every comparison then have it. What
it can't map it refuses itself, with a `UserError`.
"""

import warnings
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rl_interp.core.agent import Agent, State, evaluating
from rl_interp.core.errors import NotFiniteError, UserError, unknown
from rl_interp.saliency.methods.entities import Entities
from rl_interp.saliency.methods.gradients import Gradient, GuidedBackprop, InputGradient, SmoothGrad
from rl_interp.saliency.methods.integrated import IntegratedGradients
from rl_interp.saliency.methods.layers import LRP, GradCAM
from rl_interp.saliency.methods.occlusion import RISE, SARFA, Occlusion
from rl_interp.saliency.methods.perturbation import GREYDANUS, Perturbation
from rl_interp.saliency.methods.vectors import VECTOR_METHODS, Resample
from rl_interp.saliency.targets import Target

ENTITIES = "entities"
"""The method that needs the ground truth, and is made with it."""


class Method(Protocol):
    """How much each pixel of `obs [B, C, H, W]` matters to a target, `[B, H, W]` float32; of vectors `obs [B, D]` each
    entry, `[B, D]`. `state` is the agent's before the step, one entry an observation; None is an episode's first.

    A method whose maps say how much a place matters and not which way has an attribute `signed` that is False."""

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray: ...


METHODS: dict[str, Method] = {
    "perturbation": Perturbation(),
    "greydanus": GREYDANUS,
    "sarfa": SARFA(),
    "occlusion": Occlusion(),
    "rise": RISE(),
    "gradient": Gradient(),
    "input-gradient": InputGradient(),
    "smoothgrad": SmoothGrad(),
    "integrated-gradients": IntegratedGradients(),
    "guided-backprop": GuidedBackprop(),
    "grad-cam": GradCAM(),
    "lrp": LRP(),
}


def saliency_map(
    agent: Agent,
    obs: Tensor,
    target: Target,
    method: str = "perturbation",
    state: State = None,
    data: Tensor | None = None,
    entities: Entities | None = None,
) -> np.ndarray:
    """`[B, H, W]` float32: how much each pixel matters to the target, by a method of `METHODS`; `[B, D]` for
    observations that are vectors `[B, D]`, of each entry.

    All modules are in evaluation mode meanwhile.

    Args:
        data: `[N, D]`, vectors that the agent sees at other moments. With them, the method is one of `VECTOR_METHODS`,
            which replace an entry by what it is there; without, by 0.
        entities: the ground truth of these observations, for the method `entities`.

    Raises:
        UserError: unknown method, observations that are neither images nor vectors, an agent that takes floats for
            other observations than the same bytes, a target or an agent that the method can't map, or a map that is
            not finite.
    """
    _check_observations(agent, obs, state)
    made = entities if method == ENTITIES and entities is not None else _method(method, data)
    maps = made(agent, obs, target, state)
    if not np.isfinite(maps).all():
        raise NotFiniteError(f"the maps of {target.name}")
    return maps


def is_signed(method: str, target: Target) -> bool:
    """Whether a method's maps of a target say what speaks for it and what against, rather than only how much a place
    matters."""
    made = Entities if method == ENTITIES else METHODS.get(method, Resample)
    return all(getattr(each, "signed", True) for each in (made, target))


def _method(name: str, data: Tensor | None) -> Method:
    if name == ENTITIES:
        raise UserError(
            "entities asked for without the ground truth of what is where; give saliency_map's `entities`, or use "
            "perturbation."
        )
    known = METHODS if data is None else VECTOR_METHODS
    if name not in known:
        raise UserError(unknown("saliency method", name, known))
    return METHODS[name] if data is None else VECTOR_METHODS[name](data)


def _check_observations(agent: Agent, obs: Tensor, state: State) -> None:
    if not isinstance(obs, Tensor) or obs.dim() not in (2, 4) or not obs.numel():
        given = tuple(obs.shape) if isinstance(obs, Tensor) else f"as a {type(obs).__name__}"
        raise UserError(
            f"observations {given} given; saliency maps need a tensor, images [B, C, H, W] or vectors [B, D]."
        )
    if obs.dim() == 4 and obs.shape[3] <= 4 < min(obs.shape[1:3]):
        advice = (
            f"observations {tuple(obs.shape)} given, which look like [B, H, W, C]; give the agent [B, C, H, W], where "
            "needed through wrap(forward=lambda module, obs: module(obs.permute(0, 2, 3, 1)))."
        )
        try:
            with torch.no_grad(), evaluating(agent):
                agent.step(obs, agent.initial_state(len(obs)) if state is None else state)
        except (RuntimeError, TypeError, ValueError, IndexError):
            raise UserError(advice) from None
        warnings.warn(f"if these are no narrow grids: {advice}", stacklevel=3)
