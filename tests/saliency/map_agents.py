"""Agents that saliency maps are tried on."""

import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.saliency import (
    METHODS,
)

SIZE = 40
NEEDY = ("guided-backprop", "grad-cam", "lrp")
"""Methods that need a certain kind of network."""
ANY = [method for method in METHODS if method not in NEEDY]


class Seer(Agent):
    """A small convolutional Q-network on `[B, 2, 40, 40]`, in float64 so that differences are exact."""

    hook_points = {"hidden": HookPoint("hidden", "B D")}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 8, stride=4)
        self.hidden = nn.Linear(4 * 81, 16)
        self.q = nn.Linear(16, 3)
        self.double()

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        x = torch.tanh(self.conv(obs.to(self.q.weight.dtype) / 255)).flatten(1)
        return PolicyOutput(q_values=self.q(torch.tanh(self.hidden(x))))


class OneSpot(Agent):
    """Its first Q-value is the brightness around one pixel, and nothing else."""

    hook_points: dict[str, HookPoint] = {}

    def __init__(self, y: int, x: int):
        super().__init__()
        self.y, self.x = y, x
        self.unused = nn.Parameter(torch.zeros(1))

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        spot = obs.float()[:, :, self.y - 1 : self.y + 2, self.x - 1 : self.x + 2].mean((1, 2, 3))
        return PolicyOutput(q_values=torch.stack([spot, torch.zeros_like(spot)], 1))


class Vectors(Agent):
    """A smooth function of eight numbers."""

    hook_points = {"hidden": HookPoint("hidden", "B D")}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.q = nn.Linear(8, 16), nn.Linear(16, 3)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(q_values=self.q(torch.tanh(self.hidden(obs.float()))))
