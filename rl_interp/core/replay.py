"""Recorded episodes, played again from their seeds and actions: no frame needs to be stored.

`revisit` stops at states of an activation store, where the environment can be asked for its screen and its cells;
`recordings` gives the episodes that they are in, to be played in several processes; `replay` gives whole episodes,
for an agent to follow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.core.agent import Agent
from rl_interp.core.envs import EnvConfig, LabelledEnv, make_labelled
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.store import LOOK, ActivationStore, checksum


@dataclass(frozen=True)
class Visit:
    """A recorded state, visited again."""

    sample: int
    """Its number in the store."""
    episode: int
    step: int
    action: Any
    """The action taken in it: a number, or of continuous ones float32 `[D]`."""
    obs: NDArray[Any]
    env: LabelledEnv
    """In this state until the next visit is asked for: `env.render()` is its screen, `env.cells()` its ground truth."""


@dataclass(frozen=True)
class Episode:
    """A recorded episode: `obs [T, ...]` and the `actions [T]`, or float32 `[T, D]`, taken after each."""

    obs: NDArray[Any]
    actions: NDArray[Any]
    number: int = 0


@dataclass(frozen=True)
class Recording:
    """What it takes to play an episode of a store again, and which of its states are wanted."""

    episode: int
    seed: int
    samples: NDArray[np.int64]
    """`[T]`: the store's numbers of its states, in the order in which they were played."""
    actions: NDArray[Any]
    """`[T]`: those taken in them, or of continuous ones float32 `[T, D]`."""
    steps: list[int]
    """Those wanted, rising."""
    looks: NDArray[np.int64] | None
    """`[T]`: the checksums of what was observed in them; None in stores of earlier versions."""

    def visits(self, env: LabelledEnv) -> Iterator[Visit]:
        """The wanted states, in `env`.

        Raises:
            UserError: one looks otherwise than it did.
        """
        for step, obs in env.replay(self.seed, self.actions, self.steps):
            if self.looks is not None and checksum(obs) != self.looks[step]:
                raise UserError(
                    f"step {step} of episode {self.episode} looks otherwise now that it is played again: the "
                    "environment has changed, or its episodes do not follow from their seeds and actions; "
                    "collect again, and if that does not help, let it draw all that is random from self.np_random."
                )
            yield Visit(int(self.samples[step]), self.episode, step, self.actions[step], obs, env)


def recordings(store: ActivationStore, samples: NDArray[np.integer] | None = None) -> list[Recording]:
    """The episodes of a store, or those that some of its samples are in, in the order of their numbers.

    Args:
        samples: numbers of the states that are wanted, each once, however often it is named; None for all.
    """
    number, seeds = store.column("episode"), store.column("episode_seed")
    actions = store.actions()
    looks = store.column(LOOK) if LOOK in store.columns() else None
    wanted = np.arange(store.samples) if samples is None else np.unique(samples)
    found = []
    for episode in np.unique(number[wanted]).tolist():
        whole = np.flatnonzero(number == episode)
        steps = np.flatnonzero(np.isin(whole, wanted)).tolist()
        seen = None if looks is None else looks[whole]
        found.append(Recording(episode, int(seeds[whole[0]]), whole, actions[whole], steps, seen))
    return found


def revisit(config: EnvConfig, store: ActivationStore, samples: NDArray[np.integer] | None = None) -> Iterator[Visit]:
    """Visit some states of a store again, or all, one episode after the other and each in its order.

    Args:
        samples: as `recordings` takes them.
    """
    env = make_labelled(config)
    for recording in recordings(store, samples):
        yield from recording.visits(env)


def replay(config: EnvConfig, store: ActivationStore, episodes: NDArray[np.integer] | None = None) -> Iterator[Episode]:
    """Play the episodes of a store again, all or those of the given numbers, in the order of their numbers."""
    samples = None if episodes is None else np.flatnonzero(np.isin(store.column("episode"), episodes))
    for number, states in groupby(revisit(config, store, samples), key=lambda visit: visit.episode):
        visits = list(states)
        yield Episode(np.stack([each.obs for each in visits]), np.stack([each.action for each in visits]), number)


@torch.no_grad()
def activations(agent: Agent, episode: Episode, hooks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """`[T, D]` at each hook point, flattened, as the agent follows an episode, whoever played it."""
    device = agent.device
    obs, actions = torch.from_numpy(episode.obs)[:, None].to(device), torch.from_numpy(episode.actions)[:, None]
    state = agent.reseeded(agent.initial_state(1), np.random.default_rng(episode.number))
    _, cache = run_with_cache(agent, obs, state, names=list(hooks), actions=actions.to(device), unroll=True)
    return {hook: cache[hook].float().reshape(len(obs), -1).cpu().numpy() for hook in hooks}
