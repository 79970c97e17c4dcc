"""Recorded states of an autoencoder's store, and what the agent makes of other values at the layer."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.agent import Agent, PolicyOutput
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import hook_point, run_with_hooks
from rl_interp.core.interventions import Patch, as_hooks
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.replay import revisit
from rl_interp.sae import States

Head = Callable[[Tensor], Tensor]
"""Preferences `[N, A]` from values at a hook point."""

MOST = 256
"""States, about, where a layer has positions: each question about them runs the network from the layer on."""
_AT_ONCE = 128
"""Observations that the agent is run again for together."""


def states_of(fitted: LoadedSAE, rows: NDArray[np.integer], count: int) -> States | None:
    """About `count` of the states that some rows of the store belong to, evenly spread, and no more than `MOST` where
    the layer has positions. None where preferences do not follow from the hook point and the observation alone, as in a
    network with a memory."""
    store, agent = fitted.store, fitted.agent.agent
    spatial, samples = hook_point(agent, fitted.hook).kind == "spatial", np.unique(rows // store.positions)
    samples = samples[:: max(1, len(samples) // (min(count, MOST) if spatial else count))]
    if store.positions > 1 and not spatial:  # places of a sequence
        return None
    head = linear_head(agent, fitted.hook)
    if head is None and agent.initial_state(1) != ():
        return None
    at = samples[:, None] * store.positions + np.arange(store.positions)
    x = torch.from_numpy(store.read(at.ravel()))
    x = x.view(*at.shape, store.width) if spatial else x
    episodes = store.column("episode")[samples]
    return States(x, episodes, head or _rerun(fitted, samples), fitted.agent.has_q_values)


def linear_head(agent: Agent, hook: str) -> nn.Module | None:
    """The layer that turns the values `[N, D]` at a hook point, and nothing else, into preferences, in float32, as
    stores and dictionaries are, whatever the agent computes in; None where there is none."""
    path = hook_point(agent, hook).head
    if path is None:
        return None
    head = agent.get_submodule(path)
    exact = all(each.dtype == torch.float32 for each in head.parameters())
    return head if exact else deepcopy(head).float()


def _rerun(fitted: LoadedSAE, samples: NDArray[np.integer]) -> Head:
    """The agent run again from the layer on, on the observations of the samples, from values `[N, D]`, or `[N, P, D]`
    at all positions. Of other observations it would decide otherwise, as they may reach it past the layer too: by skip
    connections, a second stream, the value stream of a dueling network."""
    agent = fitted.agent.agent
    parts = [_from_layer_on(agent, obs, fitted.hook) for obs in _observations(fitted, samples).split(_AT_ONCE)]
    shape = fitted.store.sample_shape

    def head(x: Tensor) -> Tensor:
        values = x.movedim(-1, 1).reshape(len(x), *shape).split(_AT_ONCE)
        return torch.cat([part(each).preferences.to(x) for part, each in zip(parts, values, strict=True)])

    return head


def _from_layer_on(agent: Agent, obs: Tensor, hook: str) -> Callable[[Tensor], PolicyOutput]:
    """The agent on some observations as a function of its values at a hook point; the whole of it where it can't be run
    again from there, such as from one of several calls of a module."""
    try:
        return PartialForward(agent, obs, hook)
    except HookError:
        return lambda values: run_with_hooks(agent, obs, hooks=as_hooks([Patch(hook, source=values)]))


def _observations(fitted: LoadedSAE, samples: NDArray[np.integer]) -> Tensor:
    """`[N, ...]`: what the agent saw at some samples, which are in order."""
    return torch.from_numpy(np.stack([each.obs for each in revisit(fitted.agent.env, fitted.store, samples)]))
