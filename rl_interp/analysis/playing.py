"""A run's agent at play: scored over whole episodes, watched step by step, and collected into an activation store."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.core import rollout
from rl_interp.core.agent import State, evaluating, tree_map
from rl_interp.core.config import to_plain
from rl_interp.core.envs import EnvConfig, LabelledEnv, make_vector
from rl_interp.core.errors import at_least_one
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import Episodes, choose
from rl_interp.core.run import Run
from rl_interp.core.stats import bootstrap, iqm, plain

if TYPE_CHECKING:
    from rl_interp.core.store import ActivationStore

_ENVS = 16


def score(loaded: Loaded, episodes: int, seed: int, epsilon: float, progress: Progress = SILENT) -> Episodes:
    """Play whole episodes in the run's own environment.

    Args:
        epsilon: probability of a random action.

    Raises:
        UserError: no episodes, or an agent whose preferences are not finite.
    """
    at_least_one(episodes=episodes)
    env = make_vector(loaded.env, min(episodes, _ENVS))
    with progress.bar("Playing", episodes, "episodes") as update:
        scores = rollout.evaluate(loaded.agent, env, episodes, seed=seed, epsilon=epsilon, progress=update)
    env.close()
    return scores


def scores_json(scores: Episodes, env: EnvConfig, seed: int, epsilon: float) -> dict[str, Any]:
    """Returns with mean, IQM, 95% bootstrap interval of the IQM (None of too few), the environment's own scores, and
    the protocol under which they were played."""
    return {
        "episodes": len(scores.returns),
        "returns": scores.returns.tolist(),
        "mean": float(scores.returns.mean()),
        "iqm": iqm(scores.returns),
        "interval": plain(bootstrap([scores.returns])),
        "length_mean": float(scores.lengths.mean()),
        **scores.summary(env),
        "protocol": {
            **to_plain(env),
            "epsilon": epsilon,
            "seed": seed,
            "autoreset": "next_step",
            "reward_clipping": False,
        },
    }


def store_path(run: Run, hook: str) -> Path:
    """Where a run keeps the activations of a hook point."""
    return run.outputs / "activations" / hook


def collect_store(
    loaded: Loaded,
    hook: str,
    samples: int,
    path: Path,
    seed: int = 0,
    epsilon: float = 0.01,
    dtype: str = "float32",
    progress: Progress = SILENT,
) -> "ActivationStore":
    """`collect` with the run's agent and environment; the store records which checkpoint it is of."""
    from rl_interp.core.collect import collect  # reads and writes Parquet, which takes long to import

    with progress.bar(f"Collecting {hook}", samples, "samples") as update:
        return collect(
            loaded.agent, loaded.env, hook, samples, path,
            seed=seed, epsilon=epsilon, provenance=loaded.source, dtype=dtype, progress=update,
        )  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """One step of an episode: what the agent saw, and what it chose."""

    screen: NDArray[np.uint8]
    """RGB `[H, W, 3]`, for people."""
    obs: NDArray[np.uint8]
    """As the agent gets it."""
    state: State
    """The agent's, before the step."""
    preferences: NDArray[np.float32]
    """`[A]`."""
    action: int
    episode_return: float
    """Before the step."""
    step: int


@torch.no_grad()
def watch(loaded: Loaded, env: LabelledEnv, steps: int, skip: int, seed: int) -> list[Moment]:
    """`steps` moments of an episode, from step `skip` on, or fewer if it ends before: greedy in Q-values, sampled from
    a policy."""
    device, rng = loaded.agent.device, np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    state, total = loaded.agent.initial_state(1), 0.0
    moments = []
    with evaluating(loaded.agent):
        for step in range(skip + steps):
            kept = tree_map(torch.clone, state)  # the agent may go on with the same memory
            out = loaded.agent.step(torch.from_numpy(obs[None]).to(device), state, torch.tensor([False], device=device))
            action = int(choose(out, rng, epsilon=0.0)[0])
            if step >= skip:
                preferences = out.preferences[0].float().cpu().numpy()
                moments.append(Moment(env.render(), obs, kept, preferences, action, total, step))
            state = loaded.agent.after_action(out.state, torch.tensor([action], device=device))
            obs, reward, terminated, truncated, _ = env.step(action)
            total += reward
            if terminated or truncated:
                break
    return moments
