"""Rows per second of collecting activations, beside the loop that only plays.

Both step eight labelled Ms. Pac-Man environments and ask the same DQN for its actions; ours also hooks
the hidden layer and writes activations, labels and checksums to disk. The loop is the limit as well.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result, main
from rl_interp.agents.dqn import DQN
from rl_interp.core.collect import collect
from rl_interp.core.envs import AtariConfig, make_labelled

SAMPLES = 8_000
ENVS = 8


def ours(agent: DQN) -> float:
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        store = collect(agent, AtariConfig(), "fc.post", SAMPLES, Path(directory) / "store", seed=0, num_envs=ENVS)
        return store.samples / (time.perf_counter() - start)


@torch.no_grad()
def only_play(agent: DQN) -> float:
    rng = np.random.default_rng(0)
    envs = [make_labelled(AtariConfig()) for _ in range(ENVS)]
    start = time.perf_counter()
    obs = [env.reset(seed=i)[0] for i, env in enumerate(envs)]
    for step in range(SAMPLES // ENVS):
        greedy = agent.step(torch.from_numpy(np.stack(obs))).preferences.argmax(-1).numpy()
        actions = np.where(rng.random(ENVS) < 0.01, rng.integers(9, size=ENVS), greedy)
        for i, env in enumerate(envs):
            obs[i], _, terminated, truncated, _ = env.step(int(actions[i]))
            if terminated or truncated:
                obs[i], _ = env.reset(seed=ENVS + step)
    return SAMPLES / (time.perf_counter() - start)


def measure() -> Result:
    """Collecting activations, rows per second."""
    torch.manual_seed(0)
    agent = DQN(9).eval()
    played = only_play(agent)
    return Result(
        "collecting", "rows/s", ours(agent), {"stepping and a bare forward": played}, played, {"hook point": "fc.post"}
    )


if __name__ == "__main__":
    main(measure, ("ale-py",))
