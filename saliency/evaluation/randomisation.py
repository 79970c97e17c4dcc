"""The randomisation check: whether a map changes when what the agent has learned is taken away.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv 1810.03292.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
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


def cascade(agent: Agent, steps: int = 5, seed: int = 0) -> Iterator[tuple[float, Agent]]:
    """Copies with more and more layers shuffled, from the last towards the first (ibid., cascading randomisation), in
    `steps` of about as many layers, each with the share of layers that are. Layers are in the order in which the agent
    has them as modules."""
    layers = [
        path for path, module in agent.named_modules() if next(module.parameters(recurse=False), None) is not None
    ]
    shuffled = dict(randomised(agent, seed).named_parameters())
    other = copy.deepcopy(agent)
    steps = min(steps, len(layers))
    for step in range(1, steps + 1):
        count = round(len(layers) * step / steps)
        with torch.no_grad():
            for path in layers[len(layers) - count :]:
                for name, parameter in other.get_submodule(path).named_parameters(recurse=False):
                    parameter.copy_(shuffled[f"{path}.{name}" if path else name])
        yield count / len(layers), other


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of two maps' sizes over all their pixels; NaN where one is the same everywhere.

    Pixels that do not matter tie at 0 and share their mean rank, so that maps that have nothing to do with each other
    have 0, however few pixels matter to them. Over those alone that matter to either they would exclude each other.
    """
    from scipy.stats import spearmanr

    a, b = (_without_rounding(np.abs(each).ravel()) for each in (a, b))
    return float(np.asarray(spearmanr(a, b))[0]) if np.ptp(a) and np.ptp(b) else np.nan


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

    Near 1, the map shows the picture rather than what the agent has learned. NaN as in `similarity`.
    `maps [B, ...]` are the agent's own, where they are known already; `data` are as `saliency_map` takes them.
    """
    maps = saliency_map(agent, obs, target, method, state, data) if maps is None else maps
    controls = saliency_map(randomised(agent, seed), obs, target, method, state, data)
    return np.array([similarity(a, b) for a, b in zip(maps, controls, strict=True)])


_ROUNDING = 1e-4
"""Share of a map's maximum below which a value may be nothing but rounding."""


def _without_rounding(sizes: np.ndarray) -> np.ndarray:
    return np.where(sizes > _ROUNDING * sizes.max(initial=0), sizes, 0)
