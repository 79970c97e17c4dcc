"""Environment steps per second of DQN training, beside Stable-Baselines3's DQN.

Both train the same network (867,465 parameters) on Ms. Pac-Man with sticky actions: batch 32, one
update every 4 steps, a target network, replay of single observations. SB3 runs as its guide for
Atari says: `make_atari_env`'s preprocessing and a `CnnPolicy`, with our layer sizes, over as many
environments as its `train_freq` of 4 steps allows. Only the learning phase is timed, after the
first updates. The limit is the rate of the updates alone, as if steps were free.
"""

import time

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Result, main
from rl_interp.agents.dqn import DQN, DQNConfig, Learner
from rl_interp.agents.dqn.replay import Batch
from rl_interp.agents.dqn.training import Training

STEPS = 4_000
CONFIG = DQNConfig(
    batch_size=32,
    train_every=4,
    learning_starts=1_000,
    replay_capacity=20_000,
    n_step=1,
    double=False,
    precision="auto",
)


def ours() -> float:
    training = Training(CONFIG, 0, None)
    while training.agent_steps < CONFIG.learning_starts + 400:
        training.advance()
    start, before = time.perf_counter(), training.agent_steps
    while training.agent_steps < before + STEPS:
        training.advance()
    return (training.agent_steps - before) / (time.perf_counter() - start)


def stable_baselines3() -> float:
    import ale_py
    import gymnasium
    from stable_baselines3 import DQN as SB3DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecFrameStack

    class SameConvolutions(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 1568)
            self.layers = nn.Sequential(
                nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 32, 3), nn.ReLU(),
                nn.Flatten(),
            )  # fmt: skip

        def forward(self, observations):
            return self.layers(observations)

    class Clock(BaseCallback):
        def __init__(self):
            super().__init__()
            self.marks = []

        def _on_step(self):
            self.marks.append((self.num_timesteps, time.perf_counter()))
            return True

    gymnasium.register_envs(ale_py)
    env = make_atari_env(
        "ALE/MsPacman-v5", n_envs=4, seed=0, env_kwargs={"repeat_action_probability": 0.25, "frameskip": 1}
    )
    model = SB3DQN(
        "CnnPolicy", VecFrameStack(env, 4), batch_size=32, train_freq=1, gradient_steps=1, buffer_size=20_000,
        learning_starts=CONFIG.learning_starts, target_update_interval=1_000, exploration_fraction=0.5,
        policy_kwargs={"features_extractor_class": SameConvolutions, "net_arch": [512]}, device="cpu", seed=0,
    )  # fmt: skip
    assert sum(p.numel() for p in model.q_net.parameters()) == sum(p.numel() for p in DQN(9).parameters())
    clock = Clock()
    model.learn(CONFIG.learning_starts + 400 + STEPS, callback=clock)
    steps, times = np.array(clock.marks).T
    begin = np.searchsorted(steps, CONFIG.learning_starts + 400)
    return float((steps[-1] - steps[begin]) / (times[-1] - times[begin]))


def updates_alone() -> float:
    learner = Learner(DQN(9), CONFIG, torch.device("cpu"))
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (32, 4, 84, 84), np.uint8)
    batch = Batch(obs, rng.integers(9, size=32), np.ones(32, np.float32), np.ones(32, np.float32), obs)
    for _ in range(10):
        learner.update(batch)
    start = time.perf_counter()
    for _ in range(100):
        learner.update(batch)
    return 100 * CONFIG.train_every / (time.perf_counter() - start)


def measure() -> Result:
    """DQN training on Ms. Pac-Man, steps per second."""
    details = {"batch": 32, "steps per update": 4, "environments": f"ours {CONFIG.num_envs}, stable-baselines3 4"}
    return Result(
        "dqn_training", "steps/s", ours(), {"stable-baselines3 DQN": stable_baselines3()}, updates_alone(), details
    )


if __name__ == "__main__":
    main(measure, ("stable-baselines3", "gymnasium", "ale-py"))
