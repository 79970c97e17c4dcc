"""Random steps of Sokoban per second in 1,024 environments, observations of a pixel a cell included, in levels of
Boxoban; beside the package gym-sokoban 0.0.6 with its `tiny_rgb_array`, one environment, as it has no others. It wants
an older NumPy, so it has an environment of its own, and without it ours is measured alone:

    python -m venv .peers/gym_sokoban && .peers/gym_sokoban/bin/pip install gym-sokoban==0.0.6 gym==0.26.2 "numpy<2"

The limit is copying the observations, which every step hands out anew.
"""

import subprocess
import time

import numpy as np

from benchmarks.measure import Result, main
from benchmarks.sae_fit import python_of
from rl_interp.core.envs import SokobanConfig, make_vector
from rl_interp.core.envs.sokoban.files import load
from rl_interp.core.envs.sokoban.solve import solve_all

ENVS, STEPS, REPEATS = 1024, 500, 5

PEER = """
import random, time
import numpy as np
from gym_sokoban.envs import SokobanEnv
random.seed(0); np.random.seed(0)
env = SokobanEnv(dim_room=(10, 10), max_steps=120, num_boxes=4)
actions, start = np.random.randint(1, 9, 2000), time.perf_counter()
for action in actions:
    done = env.step(action, observation_mode="tiny_rgb_array")[2]
    if done:
        left = time.perf_counter()
        env.reset()
        start += time.perf_counter() - left
print(len(actions) / (time.perf_counter() - start))
"""
"""Without the time that it takes to make its rooms, which is most of it."""


def ours(config: SokobanConfig) -> float:
    """The best of several repeats."""
    env, rng = make_vector(config, ENVS), np.random.default_rng(0)
    env.reset(0)
    actions = rng.integers(4, size=(STEPS, ENVS))
    best = 0.0
    for _ in range(REPEATS):
        env.send(actions[0])  # the first compiles
        env.recv()
        start = time.perf_counter()
        for each in actions:
            env.send(each)
            env.recv()
        best = max(best, ENVS * STEPS / (time.perf_counter() - start))
    return best


def package() -> dict[str, float]:
    python = python_of("gym_sokoban")
    if not python.exists():
        return {}
    done = subprocess.run([python, "-c", PEER], capture_output=True, text=True, check=True)
    return {"gym-sokoban": float(done.stdout)}


def copying() -> float:
    obs, start = np.zeros((ENVS, 3, 10, 10), np.uint8), time.perf_counter()
    for _ in range(STEPS):
        obs.copy()
    return ENVS * STEPS / (time.perf_counter() - start)


def solving(fewest: str, count: int) -> float:
    levels = load("unfiltered")[:count]
    solve_all(levels[:1], fewest=fewest)  # pyright: ignore[reportArgumentType]
    start = time.perf_counter()
    solve_all(levels, fewest=fewest)  # pyright: ignore[reportArgumentType]
    return count / (time.perf_counter() - start)


def measure() -> Result:
    """Sokoban's steps, with observations."""
    details = {
        "envs": ENVS,
        "generated levels, steps/s": ours(SokobanConfig()),
        "symbols, steps/s": ours(SokobanConfig(levels="unfiltered", observation="symbols")),
        "unfiltered levels solved by pushes, levels/s": solving("pushes", 1000),
        "unfiltered levels solved by steps, levels/s": solving("steps", 50),
    }
    return Result("sokoban", "steps/s", ours(SokobanConfig(levels="unfiltered")), package(), copying(), details)


if __name__ == "__main__":
    main(measure, ("numba", "numpy"))
