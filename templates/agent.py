"""A recurrent agent of your own. Copy it, replace the layers, and name the places that you want to look at.

A module that exists needs no class: see `rl_interp.wrap`. To use yours from the command line:
`rl-interp import agent agent.py:make --env CrafterReward-v1 --name mine`.
"""

import torch
from torch import Tensor, nn

from rl_interp import Agent, HookPoint, PolicyOutput
from rl_interp.core.agent import State


class MyAgent(Agent):
    """A convolution, a GRU cell, a policy and a value, on uint8 observations `[B, 3, H, W]`."""

    # Name -> submodule, axes of its output, and kind. `head` names the linear layer that alone turns the value into
    # preferences, if there is one: effects of a change are then exact.
    hook_points = {
        "conv": HookPoint("conv", "B C H W", "spatial"),
        "memory": HookPoint("cell", "T B D", "recurrent", head="policy"),
    }
    preference_kind = "logits"  # "q_values" for an agent that takes the largest preference

    def __init__(self, actions: int, width: int = 32):
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.cell = nn.GRUCell(8, width)
        self.policy = nn.Linear(width, actions)
        self.value = nn.Linear(width, 1)

    def initial_state(self, batch: int) -> State:
        return (torch.zeros(batch, self.width),)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        (hidden,) = state
        if first is not None:  # an episode's first step: forget the last episode
            hidden = torch.where(first[:, None], torch.zeros_like(hidden), hidden)
        # Scale by a constant, never by the dtype: saliency maps feed blurred pictures, which are floats.
        seen = self.conv(obs.to(self.policy.weight.dtype) / 255).relu().mean((2, 3))
        hidden = self.cell(seen, hidden)
        return PolicyOutput((hidden,), logits=self.policy(hidden), value=self.value(hidden)[:, 0])


def make() -> MyAgent:
    """The agent as it was trained: load its weights here."""
    return MyAgent(actions=17)
