"""Maze steps per second, observations drawn, in 256 environments; beside MiniGrid's empty room with its symbols, one of
the cheapest grid worlds to be had, stepped by Gymnasium's vector environment.

The limit is copying the observations, which every step hands out anew.
"""

import time

import gymnasium
import minigrid  # noqa: F401 - registers the ids
import numpy as np

from benchmarks.measure import Result, main
from rl_interp.core.envs import MazeConfig, make_vector

ENVS, STEPS = 256, 400


def ours() -> float:
    env, rng = make_vector(MazeConfig(), ENVS), np.random.default_rng(0)
    env.reset(0)
    actions = rng.integers(5, size=(STEPS + 1, ENVS))
    for i, each in enumerate(actions):
        if i == 1:  # the first compiles
            start = time.perf_counter()
        env.send(each)
        env.recv()
    return ENVS * STEPS / (time.perf_counter() - start)


def package(steps: int = 20) -> float:
    env, rng = gymnasium.make_vec("MiniGrid-Empty-8x8-v0", num_envs=ENVS), np.random.default_rng(0)
    env.reset(seed=0)
    start = time.perf_counter()
    for _ in range(steps):
        env.step(rng.integers(3, size=ENVS))
    return ENVS * steps / (time.perf_counter() - start)


def copying() -> float:
    obs = np.zeros((ENVS, 3, 64, 64), np.uint8)
    start = time.perf_counter()
    for _ in range(STEPS):
        obs.copy()
    return ENVS * STEPS / (time.perf_counter() - start)


def measure() -> Result:
    """Maze steps, with drawing."""
    return Result("maze_steps", "steps/s", ours(), {"minigrid's empty room": package()}, copying(), {"envs": ENVS})


if __name__ == "__main__":
    main(measure, ("minigrid", "gymnasium", "numba"))
