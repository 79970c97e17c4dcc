"""Environment steps per second of IMPALA on a MiniGrid task, beside Stable-Baselines3's A2C and PPO.

All train on MiniGrid-DoorKey-8x8-v0 from the symbolic view, with the same convolutional torso and as many
parameters: SB3 has no recurrent policy, and gets as wide hidden layers in place of our LSTM. Each has 32
environments and 20 steps between updates; all else is its own default. Ours runs as the command line does, with
one actor process beside the learner; SB3's environments run in its own process (`DummyVecEnv`), where they are
faster than in subprocesses, since a step is short. The limit is how often the learner's updates alone run.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Result, main
from rl_interp.agents.encoders import symbol_net
from rl_interp.agents.impala.actor import Actor, Unroll, flat_weights, unroll_layout
from rl_interp.agents.impala.agent import make_agent
from rl_interp.agents.impala.config import IMPALAConfig, default_config
from rl_interp.agents.impala.learner import Learner
from rl_interp.agents.impala.training import Training

TASK = "MiniGrid-DoorKey-8x8-v0"
CONFIG = replace(default_config(TASK), agent_steps=10**9)
SECONDS = 15.0


def steps_per_second(config: IMPALAConfig, actors: int = 1) -> float:
    """The rate of training, once it is under way."""
    training = Training(config, 0, actors=actors)
    try:
        start, begun = time.perf_counter(), training.learner.updates
        while training.learner.updates < begun + 20 and time.perf_counter() - start < SECONDS:
            training.advance()
        start, before = time.perf_counter(), training.agent_steps
        while time.perf_counter() - start < SECONDS:
            training.advance()
        return (training.agent_steps - before) / (time.perf_counter() - start)
    finally:
        training.close()


def stable_baselines3(name: str) -> float:
    import gymnasium
    import minigrid  # noqa: F401 - registers the ids
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import DummyVecEnv

    class View(gymnasium.ObservationWrapper):
        def __init__(self):
            super().__init__(gymnasium.make(TASK))
            self.observation_space = gymnasium.spaces.Box(0, 10, (3, 7, 7), np.uint8)

        def observation(self, observation):
            return observation["image"].transpose(2, 1, 0)

    class SameTorso(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, CONFIG.hidden)
            # SB3's initialisation fails on weights whose channels are last in memory.
            self.torso = symbol_net((3, 7, 7), (3, 7, 7))
            for weight in self.torso.parameters():
                weight.data = weight.data.contiguous()
            self.fc = nn.Linear(576, CONFIG.hidden)

        def forward(self, observations):
            return torch.relu(self.fc(self.torso(observations).flatten(1)))

    class Clock(BaseCallback):
        def __init__(self):
            super().__init__()
            self.marks = []

        def _on_step(self):
            return not self.marks or self.marks[-1][1] - self.marks[0][1] < SECONDS

        def _on_rollout_end(self):
            self.marks.append((self.num_timesteps, time.perf_counter()))

    wide = CONFIG.lstm * 4
    policy = {"features_extractor_class": SameTorso, "net_arch": {"pi": [wide], "vf": [wide]}}
    model = getattr(stable_baselines3, name)(
        "MlpPolicy", DummyVecEnv([View] * CONFIG.num_envs), n_steps=CONFIG.unroll, policy_kwargs=policy, device="cpu"
    )
    ours = sum(p.numel() for p in make_agent(CONFIG).parameters())
    assert 0.9 < sum(p.numel() for p in model.policy.parameters()) / ours < 1.2
    clock = Clock()
    model.learn(10**8, callback=clock)
    (first, begin), (last, end) = clock.marks[1], clock.marks[-1]
    return (last - first) / (end - begin)


def updates_alone(config: IMPALAConfig, count: int = 100) -> float:
    """Steps per second of the learner alone."""
    agent = make_agent(config)
    learner, actor = Learner(agent, config, torch.device("cpu")), Actor(config, 0, index=0)
    unroll: Unroll = {name: np.zeros(*entry) for name, entry in unroll_layout(config, agent).items()}
    actor.play(flat_weights(agent), unroll)
    for _ in range(5):
        learner.update(unroll, 0.0)
    start = time.perf_counter()
    for _ in range(count):
        learner.update(unroll, 0.0)
    return count * config.unroll * config.num_envs / (time.perf_counter() - start)


def measure() -> Result:
    """IMPALA training on a MiniGrid task, steps per second."""
    torch.set_num_threads(1)
    ours, limit = steps_per_second(CONFIG), updates_alone(CONFIG)
    torch.set_num_threads(2)
    peers = {f"stable-baselines3 {name}": stable_baselines3(name) for name in ("A2C", "PPO")}
    details = {"task": TASK, "environments": CONFIG.num_envs, "steps per update": CONFIG.unroll}
    return Result("minigrid_training", "steps/s", ours, peers, limit, details)


if __name__ == "__main__":
    main(measure, ("stable-baselines3", "gymnasium", "minigrid"))
