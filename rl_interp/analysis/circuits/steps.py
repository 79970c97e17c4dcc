"""An agent at play, one step after the other, for those who look at its states."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count as count_from

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.core.agent import Agent, State, tree_map
from rl_interp.core.envs import LabelledEnv
from rl_interp.core.rollout import choose

EPSILON = 0.01
"""Probability of a random action, so that episodes differ."""


@dataclass
class Step:
    """A step of an episode, before the agent acts."""

    obs: NDArray
    memory: State
    """What the agent remembers, before it looks."""
    number: int
    """Of the episode, from 0."""
    episode: int
    """The episode's seed."""
    labels: Mapping[str, float]
    greedy: int
    """The action that the agent prefers."""
    action: int = -1
    """What it does; known once the next step is asked for."""
    returned: float = 0.0
    """The episode's return up to what this action earns; likewise."""


@torch.no_grad()
def play_steps(
    agent: Agent, env: LabelledEnv, seed: int, rng: np.random.Generator,
    before_step: Callable[[int], None] = lambda action: None,
) -> Iterator[Step]:  # fmt: skip
    """Every step of episode after episode. The environment is in the step's state until the next step is asked for.

    Args:
        seed: of the first episode; the next ones have the next ones.
        rng: what actions are drawn by.
        before_step: told of each action before the environment is.
    """
    device = agent.device
    for episode in count_from(seed):
        obs, info = env.reset(seed=episode)
        state, returned = agent.initial_state(1), 0.0
        for number in count_from():
            # Memory and observation are copied, as the agent and the environment may go on with the same.
            memory = tree_map(torch.clone, state)
            out = agent.step(torch.from_numpy(obs[None]).to(device), state, torch.tensor([number == 0], device=device))
            step = Step(
                obs.copy(), memory, number, episode, dict(info.get("labels", {})), int(out.preferences[0].argmax())
            )
            yield step
            actions = choose(out, rng, EPSILON)
            step.action = int(actions[0])
            before_step(step.action)
            state = agent.after_action(out.state, torch.from_numpy(actions).to(device))
            obs, reward, terminated, truncated, info = env.step(step.action)
            returned += reward
            step.returned = returned
            if terminated or truncated:
                break
