"""Recorded states of an autoencoder's store, and what the agent makes of other values at the layer."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
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
"""Observations that a layer with positions is run again for together."""


def states_of(fitted: LoadedSAE, rows: NDArray[np.integer], count: int) -> States | None:
    """About `count` of the states that some rows of the store belong to, evenly spread, and no more than `MOST` where
    the layer has positions. None where preferences do not follow from the hook point and the observation alone, as in a
    network with a memory."""
    store, agent = fitted.store, fitted.agent.agent
    spatial, samples = hook_point(agent, fitted.hook).kind == "spatial", np.unique(rows // store.positions)
    samples = samples[:: max(1, len(samples) // (min(count, MOST) if spatial else count))]
    episodes = store.column("episode")[samples]
    if store.positions > 1 and not spatial:  # places of a sequence
        return None
    if not spatial:
        head = head_of(fitted.agent, fitted.hook)
        return head and States(torch.from_numpy(store.read(samples)), episodes, head, fitted.agent.has_q_values)
    if agent.initial_state(1) != ():
        return None
    at = samples[:, None] * store.positions + np.arange(store.positions)
    x = torch.from_numpy(store.read(at.ravel())).view(*at.shape, store.width)
    return States(x, episodes, _head_over_positions(fitted, samples), fitted.agent.has_q_values)


def head_of(loaded: Loaded, hook: str) -> Head | None:
    """What the agent makes of the values `[N, D]` at a hook point without positions.

    Its linear head where it has one; else the agent itself, on blank observations with the values patched in, which
    holds where nothing else of the observation reaches the preferences. None in a network with a memory.
    """
    point = hook_point(loaded.agent, hook)
    if point.head is not None:
        return loaded.agent.get_submodule(point.head)
    if loaded.agent.initial_state(1) != ():
        return None

    def head(x: Tensor) -> Tensor:
        zeros = np.zeros((len(x), *loaded.env.observation_shape), loaded.env.observation_dtype)
        blank = torch.from_numpy(zeros).to(x.device)
        return run_with_hooks(loaded.agent, blank, hooks=as_hooks([Patch(hook, source=x)])).preferences

    return head


def _head_over_positions(fitted: LoadedSAE, samples: NDArray[np.integer]) -> Head:
    """The agent run again from the layer on, on the observations of the samples."""
    agent = fitted.agent.agent
    parts = [_from_layer_on(agent, obs, fitted.hook) for obs in _observations(fitted, samples).split(_AT_ONCE)]
    channels_first = fitted.store.sample_shape

    def head(x: Tensor) -> Tensor:
        values = x.movedim(-1, 1).reshape(len(x), *channels_first).split(_AT_ONCE)
        return torch.cat([part(each).preferences for part, each in zip(parts, values, strict=True)])

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
