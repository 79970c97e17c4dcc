"""Environment steps per second while a policy of Stable-Baselines3 is scored: a PPO trained on CartPole by it, imported
and evaluated here as `rl-interp evaluate` does, beside its own `evaluate_policy`, on one environment as by default and
on as many as we step. Both play the same number of whole episodes, in turns; the best of three.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Result, main, skip
from rl_interp.agents.load import load_agent
from rl_interp.agents.pretrained.runs import import_sb3
from rl_interp.analysis.playing import score
from rl_interp.core.envs import env_config

EPISODES, ENVS = 48, 16


def trained(folder: Path) -> Any:
    """A policy that holds the pole up for most of an episode, saved in a folder."""
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu").learn(20_000)
    model.save(folder / "ppo.zip")
    return model


def theirs(model: Any, envs: int) -> float:
    import numpy as np
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    venv = make_vec_env("CartPole-v1", envs, seed=1)
    start = time.perf_counter()
    _, lengths = evaluate_policy(model, venv, EPISODES, deterministic=False, return_episode_rewards=True)
    return float(np.sum(lengths)) / (time.perf_counter() - start)


def ours(run: Path) -> float:
    loaded = load_agent(run, device="cpu")
    start = time.perf_counter()
    steps = score(loaded, EPISODES, seed=1, epsilon=0.0).lengths.sum()
    return float(steps) / (time.perf_counter() - start)


def measure() -> Result:
    """Scoring a policy of Stable-Baselines3."""
    try:
        import stable_baselines3  # noqa: F401
    except ImportError:
        skip("stable-baselines3 is not installed; it comes with the extra `bench`")
    with tempfile.TemporaryDirectory() as folder:
        model = trained(Path(folder))
        import_sb3(Path(folder) / "ppo.zip", env_config("CartPole-v1"), Path(folder) / "run")
        rounds = [(ours(Path(folder) / "run"), theirs(model, 1), theirs(model, ENVS)) for _ in range(3)]
    mine, alone, several = (max(column) for column in zip(*rounds, strict=True))
    peers = {"evaluate_policy": alone, f"evaluate_policy, {ENVS} environments": several}
    return Result("sb3_evaluation", "steps/s", mine, peers, None, {"episodes": EPISODES})


if __name__ == "__main__":
    main(measure, ("stable-baselines3", "gymnasium"))
