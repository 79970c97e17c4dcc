"""What in the last steps mattered to a decision of an agent with memory: maps of earlier observations.

`Later` is the agent from an earlier observation on: its step is given that observation, follows the recorded ones after
it with the actions that were taken, and decides last. So every method and every target applies to it as to any agent.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.saliency.methods import saliency_map
from rl_interp.saliency.targets import Target


class Later(Agent):
    """An agent's decision after some more steps, as a function of the observation before them.

    Its hook points are the agent's, each with an axis of time, so that a target reads the last value.

    Args:
        later: `[K, C, H, W]` or `[K, D]`, the observations after it.
        actions: `[K]` int64, those taken after each but the last: the first follows the observation itself.
    """

    def __init__(self, agent: Agent, later: Tensor, actions: Tensor):
        super().__init__()
        self.agent, self.later, self.actions = agent, later, actions
        self.observation, self.preference_kind = agent.observation, agent.preference_kind
        self.hook_points = {name: _through_time(point) for name, point in agent.hook_points.items()}

    def initial_state(self, batch: int) -> State:
        return self.agent.initial_state(batch)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        out = self.agent.step(obs, state, first)
        for seen, action in zip(self.later, self.actions, strict=True):
            told = self.agent.after_action(out.state, action.expand(len(obs)))
            out = self.agent.step(seen[None].expand(len(obs), *seen.shape), told)
        return out


def maps_through_time(
    agent: Agent,
    obs: Tensor,
    actions: Tensor,
    states: Sequence[State],
    target: Target,
    method: str = "perturbation",
) -> np.ndarray:
    """`[T, H, W]` float32 (`[T, D]` of vectors): what in each of the last T observations mattered to the decision at
    the last one, each changed alone.

    Args:
        obs: `[T, C, H, W]` or `[T, D]`, in order.
        actions: `[T]` int64 that were taken; the last one does not matter.
        states: the agent's before each, with a batch of 1.

    Raises:
        UserError: not as many actions or states as observations; or as `saliency_map` does.
    """
    if not len(obs) == len(actions) == len(states):
        raise UserError(
            f"{len(obs)} observations, {len(actions)} actions and {len(states)} states given; give one of each a step."
        )
    maps = []
    for t in range(len(obs)):
        later = Later(agent, obs[t + 1 :], actions[t : len(obs) - 1]) if t + 1 < len(obs) else agent
        maps.append(saliency_map(later, obs[t : t + 1], target, method, states[t])[0])
    return np.stack(maps)


def _through_time(point: HookPoint) -> HookPoint:
    axes = point.axes if "T" in point.axes.split() else f"T {point.axes}"
    head = None if point.head is None else f"agent.{point.head}"
    return replace(point, path=f"agent.{point.path}", axes=axes, kind="recurrent", head=head)
