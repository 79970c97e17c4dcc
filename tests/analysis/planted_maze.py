"""A maze agent whose insides are known: one channel of its layer says where the cheese is, and it goes there by the
shortest way; where nothing is said, it goes to the top right."""

import numpy as np
import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.envs.maze.config import CELL, MARGIN, WORLD
from rl_interp.core.envs.maze.draw import CHEESE, FLOOR, MOUSE, WALL
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import nearer

CHEESE_CHANNEL, CHANNELS = 3, 8
SURE = 4.0
"""Logit of a step that leads nearer to the goal; the others have 0."""


class _Detect(nn.Module):
    """`[B, 8, 32, 32]`: channel 3 is 1 at the cheese, channel 5 at the mouse, the others hold the pixels."""

    def forward(self, seen: Tensor) -> Tensor:
        channels = torch.zeros(len(seen), CHANNELS, *seen.shape[2:])
        channels[:, :3] = seen / 255
        for channel, colour in ((CHEESE_CHANNEL, CHEESE), (5, MOUSE)):
            channels[:, channel] = (seen == torch.tensor(colour)[:, None, None]).all(1).float()
        return channels


class Planted(Agent):
    def __init__(self, obeys: bool = True):
        super().__init__()
        self.look = nn.AvgPool2d(CELL)
        self.detect = _Detect()
        self.obeys = nn.Parameter(torch.tensor(float(obeys)))
        self.hook_points = {"detect": HookPoint("detect", "B C H W", "spatial")}

    def step(self, obs: Tensor, state=(), first=None) -> PolicyOutput:
        seen = self.look(obs.float())
        world = slice(MARGIN // CELL, MARGIN // CELL + WORLD)
        said = self.detect(seen)[:, CHEESE_CHANNEL, world, world]
        seen = seen[:, :, world, world]
        walls = (seen == torch.tensor(WALL)[:, None, None]).all(1).numpy()
        mouse = _where((seen == torch.tensor(MOUSE)[:, None, None]).all(1).float())
        logits = torch.zeros(len(obs), 5)
        for i in range(len(obs)):
            free = np.argwhere(~walls[i])
            corner = np.array([free[:, 0].min(), free[:, 1].max()])
            follows = self.obeys > 0 and said[i].max() > 0.5
            goal = _where(said[i : i + 1])[0] if follows else corner
            maze = Mazes.blank(1).edit(walls=walls[i], mouse=mouse[i])
            steps = nearer(maze.distances(goal[None]), maze.walls)[:, 0, *mouse[i]]
            logits[i, :4] = SURE * torch.from_numpy(steps).float()
        return PolicyOutput(logits=logits, value=logits.sum(-1))


def _where(maps: Tensor) -> np.ndarray:
    """`[B, 2]`: the cell of each map's largest value."""
    best = maps.flatten(1).argmax(1).numpy()
    return np.stack(np.unravel_index(best, maps.shape[1:]), 1)


assert len({WALL, FLOOR, MOUSE, CHEESE}) == 4
