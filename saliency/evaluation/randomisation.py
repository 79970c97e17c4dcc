"""The randomisation check: whether a map changes when what the agent has learned is taken away.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv 1810.03292.
"""

import copy

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from rl_interp.core.agent import Agent, State
from rl_interp.saliency.methods import saliency_map
from rl_interp.saliency.targets import Target


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
    data: Tensor | None = None,
) -> np.ndarray:
    """`[B]`: Spearman correlation of each |map| with that of the randomised agent (Adebayo et al. 2018,
    arXiv 1810.03292).

    Near 1, the map shows the picture rather than what the agent has learned. NaN where a map is all zero.
    `maps [B, ...]` are the agent's own, where they are known already; `data` are as `saliency_map` takes them.
    """
    maps = saliency_map(agent, obs, target, method, state, data) if maps is None else maps
    controls = saliency_map(randomised(agent, seed), obs, target, method, state, data)
    return np.array([_spearman(np.abs(a), np.abs(b)) for a, b in zip(maps, controls, strict=True)])


_ROUNDING = 1e-4
"""Share of a map's maximum below which a value may be nothing but rounding."""


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Over the pixels that matter to either: those that matter to neither would all tie, and agree."""
    matters = (a > _ROUNDING * a.max()) | (b > _ROUNDING * b.max())
    a, b = a[matters], b[matters]
    return float(np.asarray(spearmanr(a, b))[0]) if len(a) and np.ptp(a) and np.ptp(b) else np.nan
