"""An environment of a user's own, and an agent that plays any."""

import zlib

import numpy as np
import torch

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput

MINE = '''
import gymnasium
import numpy as np


def make(length=5, render_mode=None):
    return Walk(length, render_mode)


class Walk(gymnasium.Env):
    """A walk on a line, whose start is drawn; the end pays."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}
    action_names = ("back", "forth")
    observation_names = ("place",)

    def __init__(self, length=5, render_mode=None):
        self.length, self.render_mode = length, render_mode
        self.observation_space = gymnasium.spaces.Box(0, length, (1,))
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = int(self.np_random.integers(self.length)), 0
        return self.look()

    def step(self, action):
        self.at, self.steps = max(0, self.at + (1 if action else -1)), self.steps + 1
        return self.look()[0], float(self.at >= self.length), self.at >= self.length, self.steps >= 20, self.look()[1]

    def look(self):
        return np.array([self.at], np.float32), {"at": self.at, "near": self.at > 2, "name": "walk"}

    def render(self):
        screen = np.zeros((4, self.length + 1, 3), np.uint8)
        screen[:, min(self.at, self.length)] = 255
        return screen


class Noisy(Walk):
    """Its start is drawn by no seed."""

    def look(self):
        obs, info = super().look()
        return obs + np.random.rand(1).astype(np.float32), info


class Endless(Walk):
    """It never ends."""

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        return obs, reward, False, False, info


class Twice(gymnasium.RewardWrapper):
    def __init__(self, env, factor=2):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


def labels(info, obs):
    return {"far": bool(obs[0] > 3), "place": obs[0]}
'''


class Hashing(Agent):
    """An agent whose actions differ from one observation to the next, and follow from each alone."""

    hook_points = {"seen": HookPoint("seen", "B D")}

    def __init__(self, actions: int, continuous: bool = False):
        super().__init__()
        self.actions, self.preference_kind = actions, "mean" if continuous else "q_values"
        self.seen = torch.nn.Flatten()

    def step(self, obs, state=(), first=None):
        self.seen(obs.float())
        rows = np.stack([self.alone(row) for row in obs.numpy()])
        return PolicyOutput(**{self.preference_kind: torch.from_numpy(rows)})

    def alone(self, obs):
        """Preferences `[A]` for one observation, as the suite gives it."""
        drawn = np.random.default_rng(zlib.crc32(np.ascontiguousarray(obs).data))
        return drawn.uniform(-1, 1, self.actions).astype(np.float32)
