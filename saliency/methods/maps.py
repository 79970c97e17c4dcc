"""The saliency methods by name, and the controls that stand beside their maps."""

import copy
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from rl_interp.core.agent import Agent, State, evaluating
from rl_interp.core.errors import NotFiniteError, UserError, unknown
from rl_interp.saliency.methods.gradients import Gradient, IntegratedGradients
from rl_interp.saliency.methods.perturbation import GREYDANUS, Perturbation
from rl_interp.saliency.targets import PolicyChange, Target, ValueChange

Method = Callable[..., np.ndarray]
"""`method(agent, obs [B, C, H, W], target, state=None) -> [B, H, W]` float32, or of `[B, D]` to `[B, D]`."""

METHODS: dict[str, Method] = {
    "perturbation": Perturbation(),
    "greydanus": GREYDANUS,
    "gradient": Gradient(),
    "integrated-gradients": IntegratedGradients(),
}


def saliency_map(
    agent: Agent, obs: Tensor, target: Target, method: str = "perturbation", state: State = None
) -> np.ndarray:
    """`[B, H, W]` float32: how much each pixel matters to the target, by a method of `METHODS`; `[B, D]` for
    observations that are vectors `[B, D]`, of each entry.

    All modules are in evaluation mode meanwhile.

    Raises:
        UserError: unknown method, observations that are neither images nor vectors, an agent that takes floats for
            other observations than the same bytes, or a map that is not finite.
    """
    if method not in METHODS:
        raise UserError(unknown("saliency method", method, METHODS))
    _check_observations(agent, obs, state)
    if method == "gradient" and isinstance(target, PolicyChange | ValueChange):
        raise UserError(f"{target.name} has no gradient at the observation, where nothing has changed; use greydanus.")
    if agent.observation == "symbols" and method not in ("perturbation", "greydanus"):
        raise UserError(
            f"method {method!r} given for an agent that sees symbols, which have no gradient; use perturbation."
        )
    maps = METHODS[method](agent, obs, target, state)
    if not np.isfinite(maps).all():
        raise NotFiniteError(f"the maps of {target.name}")
    return maps


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


def randomised(agent: Agent, seed: int = 0) -> Agent:
    """A copy with every weight matrix and filter shuffled: the same values, nothing learned."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(agent)
    with torch.no_grad():
        for parameter in other.parameters():
            flat = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
            parameter.copy_(flat.reshape(parameter.shape))
    return other


def randomisation_check(
    agent: Agent,
    obs: Tensor,
    target: Target,
    method: str,
    state: State = None,
    seed: int = 0,
    maps: np.ndarray | None = None,
) -> np.ndarray:
    """`[B]`: Spearman correlation of each |map| with that of the randomised agent (Adebayo et al. 2018,
    arXiv 1810.03292).

    Near 1, the map shows the picture rather than what the agent has learned. NaN where a map is all zero.
    `maps [B, ...]` are the agent's own, where they are known already.
    """
    maps = saliency_map(agent, obs, target, method, state) if maps is None else maps
    controls = saliency_map(randomised(agent, seed), obs, target, method, state)
    return np.array([_spearman(np.abs(a), np.abs(b)) for a, b in zip(maps, controls, strict=True)])


_ROUNDING = 1e-4
"""Of a map's maximum: what is below it may be rounding alone."""


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Over the positions that matter to either: those that matter to neither would all tie, and agree."""
    matters = (a > _ROUNDING * a.max()) | (b > _ROUNDING * b.max())
    a, b = a[matters], b[matters]
    return float(np.asarray(spearmanr(a, b))[0]) if len(a) and np.ptp(a) and np.ptp(b) else np.nan
