"""Recorded episodes, played again from their seeds and actions: no frame needs to be stored.

`revisit` stops at states of an activation store, where the environment can be asked for its screen and its cells;
`looks` gives screens or observations alone, which can be had faster; `replay` gives whole episodes, for an agent to
follow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.core.agent import Agent
from rl_interp.core.envs import EnvConfig, LabelledEnv, make_labelled
from rl_interp.core.envs.labelled import SideBySide
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.store import ActivationStore


@dataclass(frozen=True)
class Visit:
    """A recorded state, visited again."""

    sample: int
    """Its number in the store."""
    episode: int
    step: int
    action: int
    """The action taken in it."""
    obs: NDArray[Any]
    env: LabelledEnv
    """In this state until the next visit is asked for: `env.render()` is its screen, `env.cells()` its ground truth."""


@dataclass(frozen=True)
class Episode:
    """A recorded episode: `obs [T, ...]` and the `actions [T]` taken after each."""

    obs: NDArray[Any]
    actions: NDArray[np.int64]


def revisit(config: EnvConfig, store: ActivationStore, samples: NDArray[np.integer] | None = None) -> Iterator[Visit]:
    """Visit some states of a store again, or all, one episode after the other and each in its order.

    Args:
        samples: numbers of the states; each is visited once, however often it is named.
    """
    number, seeds, actions = (store.column(name) for name in ("episode", "episode_seed", "action"))
    wanted = np.arange(store.samples) if samples is None else np.unique(samples)
    env = make_labelled(config)
    for episode in np.unique(number[wanted]).tolist():
        whole = np.flatnonzero(number == episode)  # its states, in the order in which they were played
        taken = actions[whole].astype(np.int64)
        steps = np.flatnonzero(np.isin(whole, wanted)).tolist()
        for step, obs in env.replay(int(seeds[whole[0]]), taken, steps):
            yield Visit(int(whole[step]), episode, step, int(taken[step]), obs, env)


def looks(
    config: EnvConfig, store: ActivationStore, samples: NDArray[np.integer], what: Literal["screen", "observation"]
) -> Iterator[dict[int, NDArray[Any]]]:
    """What some states of a store look like, to a person or to the agent: an episode's by number at a time, in no
    order. Several episodes are played at once where the environment can."""
    env, wanted = make_labelled(config), np.unique(samples)
    if not isinstance(env, SideBySide) or not len(wanted):
        for _, states in groupby(revisit(config, store, wanted), key=lambda state: state.episode):
            yield {state.sample: state.env.render() if what == "screen" else state.obs for state in states}
        return
    number, seeds, actions = (store.column(name) for name in ("episode", "episode_seed", "action"))
    places = [np.flatnonzero(number == episode) for episode in np.unique(number[wanted])]
    episodes = [
        (int(seeds[whole[0]]), actions[whole].astype(np.int64), np.flatnonzero(np.isin(whole, wanted)))
        for whole in places
    ]
    for which, found in env.replay_side_by_side(episodes, what):
        yield {int(places[which][step]): look for step, look in found.items()}


def replay(config: EnvConfig, store: ActivationStore, episodes: NDArray[np.integer] | None = None) -> Iterator[Episode]:
    """Play the episodes of a store again, all or those of the given numbers, in the order of their numbers."""
    samples = None if episodes is None else np.flatnonzero(np.isin(store.column("episode"), episodes))
    for _, states in groupby(revisit(config, store, samples), key=lambda visit: visit.episode):
        visits = list(states)
        yield Episode(np.stack([each.obs for each in visits]), np.array([each.action for each in visits], np.int64))


@torch.no_grad()
def activations(agent: Agent, episode: Episode, hooks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """`[T, D]` at each hook point, flattened, as the agent follows an episode, whoever played it."""
    device = agent.device
    obs, actions = torch.from_numpy(episode.obs)[:, None].to(device), torch.from_numpy(episode.actions)[:, None]
    _, cache = run_with_cache(agent, obs, names=list(hooks), actions=actions.to(device), unroll=True)
    return {hook: cache[hook].float().reshape(len(obs), -1).cpu().numpy() for hook in hooks}
