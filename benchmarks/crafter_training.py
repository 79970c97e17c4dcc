"""Steps per second of IMPALA's training on Crafter, beside merely stepping the package's environment.

Ours is all of it: environments, the network's actions and its updates, three passes over each step. The peers take
random actions and learn nothing: `crafter.Env` as it installs, without numba, and with it; both begin new worlds as
episodes end. The limit is the learner alone, with an unroll always at hand. In the details, the same training with the
ResNet of whole pictures that was the default before.
"""

import os
import subprocess
import sys
from dataclasses import replace

import torch

from benchmarks import minigrid_training
from benchmarks.measure import Result, main
from rl_interp.agents.encoders import CHANNELS
from rl_interp.agents.impala.config import default_config

CONFIG = replace(default_config("CrafterReward-v1"), agent_steps=10**9)
WHOLE = replace(CONFIG, cells=False, channels=CHANNELS)
BARE = """
import time, numpy as np, crafter
env, rng, steps = crafter.Env(seed=0), np.random.RandomState(0), 0
env.reset()
start = time.perf_counter()
while steps < 2000:
    steps += 1
    if env.step(rng.randint(17))[2]:
        env.reset()
print(steps / (time.perf_counter() - start))
"""


def bare(numba: bool) -> float:
    """Steps per second of the package's environment, in a process of its own."""
    environment = os.environ | ({} if numba else {"NUMBA_DISABLE_JIT": "1"})
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.split()[-1])


def measure() -> Result:
    """IMPALA training on Crafter, steps per second."""
    torch.set_num_threads(1)
    ours = minigrid_training.steps_per_second(CONFIG)
    peers = {"crafter.Env alone, no numba": bare(False), "crafter.Env alone, numba": bare(True)}
    share = replace(CONFIG, num_envs=CONFIG.num_envs // CONFIG.minibatches, minibatches=1)
    limit = minigrid_training.updates_alone(share, 40) / CONFIG.epochs
    details: dict[str, object] = {
        "environments": CONFIG.num_envs,
        "steps per unroll": CONFIG.unroll,
        "epochs": CONFIG.epochs,
    }
    details["the ResNet of whole pictures, steps/s"] = f"{minigrid_training.steps_per_second(WHOLE):.0f}"
    return Result("crafter_training", "steps/s", ours, peers, limit, details)


if __name__ == "__main__":
    main(measure, ("crafter", "numba"))
