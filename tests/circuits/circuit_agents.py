"""Small agents of each kind, and observations for them."""

from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.agents.dqn.agent import DQN
from rl_interp.agents.dreamerv3 import default_config
from rl_interp.agents.dreamerv3.agent import DreamerV3
from rl_interp.agents.impala.agent import IMPALA
from rl_interp.core.agent import HookPoint
from rl_interp.core.wrap import wrap


class Block(nn.Module):
    """Two layers, and what came in added in place to what they give, which is written without modules."""

    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Linear(4, 6), nn.ReLU(inplace=True)
        self.second, self.bend = nn.Linear(6, 6), nn.Softplus()
        self.sum, self.out = nn.Identity(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        before = self.act(self.first(x))
        after = self.bend(self.second(before))
        after += before
        return self.out(self.sum(after))


def of_the_users_own() -> Any:
    points = {name: HookPoint(path, "B D") for name, path in (("h", "act"), ("y", "bend"), ("sum", "sum"))}
    return wrap(Block(), hook_points=points, output="q_values")


def make(name: str) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    pixels = torch.randint(0, 255, (3, 3, 16, 16), dtype=torch.uint8)
    symbols = torch.randint(0, 3, (3, 3, 7, 7), dtype=torch.uint8)
    if name == "dqn":
        return DQN(4, (2, 36, 36), hidden=8), torch.randint(0, 255, (3, 2, 36, 36), dtype=torch.uint8)
    if name == "resnet":
        return IMPALA(4, (3, 16, 16), channels=(4, 5), hidden=8, lstm=0), pixels
    if name == "lstm":
        return IMPALA(4, (3, 7, 7), (11, 6, 4), hidden=8, lstm=6), symbols
    if name == "dreamerv3":
        config = default_config("MiniGrid-Empty-5x5-v0", size="debug", precision="fp32")
        return DreamerV3(config).eval(), symbols
    return of_the_users_own(), torch.randn(3, 4)
