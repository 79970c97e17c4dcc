"""What a layer, or a dictionary on it, holds in recorded moments, and what its units do there for the decision."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.agent import PolicyOutput, joined, tree_map
from rl_interp.core.errors import UserError
from rl_interp.core.gradients import gradient, through_numpy
from rl_interp.core.hooks import Hook, hook_point, run_with_cache, run_with_hooks
from rl_interp.core.interventions import Intervention, as_hooks, intervened
from rl_interp.saliency.targets import Advantage

AT_ONCE = 64
"""Moments that the agent is asked about together."""


@torch.no_grad()
def values(
    loaded: Loaded, moments: Sequence[Moment], at: str, changes: Sequence[Intervention] = ()
) -> NDArray[np.float32]:
    """`[N, P, D]`: what a hook point holds in each moment, at its P positions (1 where it has none) of D features.

    Raises:
        HookError: no such point.
    """
    parts = [_held(loaded, moments[i : i + AT_ONCE], at, changes) for i in range(0, len(moments), AT_ONCE)]
    return torch.cat(parts).cpu().numpy()


def features(sae: LoadedSAE, held: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[N, P, F]`: a dictionary's features of values `[N, P, D]` of the layer that it is of.

    Raises:
        UserError: values of another width.
    """
    if held.shape[-1] != sae.sae.d_in:
        raise UserError(f"values {held.shape[-1]} wide given to {sae.run.path}, which is {sae.sae.d_in} wide.")
    with torch.no_grad():
        found = sae.sae.encode(torch.from_numpy(held.reshape(-1, held.shape[-1])))
    return found.numpy().reshape(*held.shape[:2], -1)


def attributions(
    loaded: Loaded, moment: Moment, at: str, sae: LoadedSAE | None = None, changes: Sequence[Intervention] = ()
) -> NDArray[np.float32]:
    """`[D]`, or `[F]` of a dictionary's features: how much of the chosen action's advantage each accounts for,
    activation times gradient, summed over positions. Where a linear head follows it is what the advantage loses without
    it; else an estimate of that, to first order. Under `changes`, of what is there with them.

    Raises:
        UserError: continuous actions, of which none is chosen.
        NoGradientError: an agent that detaches or rounds what is there.
    """
    point = hook_point(loaded.agent, at)
    obs = torch.from_numpy(moment.obs[None]).to(loaded.agent.device)
    # Gradients with respect to what a hook returns pass through the rest of the step.
    kept: list[Tensor] = []

    def keep(value: Tensor, site: Any) -> Tensor:
        kept.append(value.detach().requires_grad_())
        return kept[-1]

    def run(hook: Hook) -> PolicyOutput:
        return run_with_hooks(loaded.agent, obs, tree_map(torch.clone, moment.state), hooks={at: hook})

    with torch.enable_grad(), through_numpy(), intervened(loaded.agent, changes):  # whose hooks come before
        out = run(keep)
        score = Advantage().prepare(out)(out, None).sum()
        slopes = gradient(score, kept[-1], lambda other: run(lambda value, site: other).preferences)
    held, slope = (each.detach().float().movedim(point.feature_axis, -1).flatten(0, -2) for each in (kept[-1], slopes))
    if sae is None:
        return (held * slope).sum(0).cpu().numpy()
    with torch.no_grad():
        return (sae.sae.encode(held) * (slope @ sae.sae.W_dec.T)).sum(0).cpu().numpy()


def _held(loaded: Loaded, moments: Sequence[Moment], at: str, changes: Sequence[Intervention]) -> Tensor:
    point, device = hook_point(loaded.agent, at), loaded.agent.device
    obs = torch.from_numpy(np.stack([each.obs for each in moments])).to(device)
    state = joined([each.state for each in moments])
    _, cache = run_with_cache(loaded.agent, obs, state, names=[at], hooks=as_hooks(changes))
    held = point.newest(cache[at]).float().movedim(point.feature_axis, -1)
    return held.reshape(len(moments), -1, held.shape[-1])
