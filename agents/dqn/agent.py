"""The DQN agent: three convolutions and a hidden layer, 867,465 parameters with nine actions.

Mnih et al. (2015) in the sizes of DuPlessie & Gritsevskiy (2024): conv 32-64-32, hidden layer 512.
"""

import torch
from torch import Tensor, nn

from rl_interp.agents.dqn.config import DQNConfig
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State


class DQN(Agent):
    """Q-values `[B, A]` from uint8 frames `[B, 4, 84, 84]`.

    Float observations on the same 0-255 scale are taken too, so that gradients reach the pixels.
    """

    preference_kind = "q_values"
    hook_points = {
        **{
            f"conv{i}.{when}": HookPoint(f"{path}{i}", "B C H W", "spatial")
            for i in (1, 2, 3)
            for when, path in (("pre", "conv"), ("post", "relu"))
        },
        "fc.pre": HookPoint("fc", "B D"),
        "fc.post": HookPoint("relu4", "B D", head="q"),
        "q": HookPoint("q", "B D"),
    }

    def __init__(self, num_actions: int, in_channels: int = 4):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 8, stride=4)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(64, 32, 3)
        self.relu3 = nn.ReLU()
        self.fc = nn.Linear(32 * 7 * 7, 512)
        self.relu4 = nn.ReLU()
        self.q = nn.Linear(512, num_actions)
        # Channels last is the layout that CPU and tensor-core convolutions compute in.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        kind = obs.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.q.weight.dtype
        # Laid out while the pixels are bytes, and straight to the type computed in: the least memory touched.
        x = obs.contiguous(memory_format=torch.channels_last).to(dtype) * (1 / 255)
        x = self.relu1(self.conv1(x))
        x = self.relu2(self.conv2(x))
        x = self.relu3(self.conv3(x))
        x = self.relu4(self.fc(x.flatten(1)))
        return PolicyOutput(q_values=self.q(x))


def make_agent(config: DQNConfig) -> DQN:
    """The untrained agent of a configuration."""
    return DQN(len(config.env.action_names), config.env.frame_stack)
