"""`rl-interp evaluate`, and the JSON form of scores that other commands share."""

from typing import Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.app.progress import progress_bar
from rl_interp.core.config import to_plain
from rl_interp.core.envs import EnvConfig, make_vector
from rl_interp.core.errors import at_least_one
from rl_interp.core.rollout import Episodes
from rl_interp.core.rollout import evaluate as play
from rl_interp.core.stats import bootstrap, iqm, plain


def evaluate(
    run: tyro.conf.Positional[str],
    episodes: int = 30,
    seed: int = 1_000,
    epsilon: float = 0.001,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Play whole episodes and report extrinsic returns with their interquartile mean and interval.

    Args:
        run: Name under runs/ or a path.
        episodes: Whole episodes to play; an interval needs at least 5.
        seed: Of the episodes and of exploration.
        epsilon: Probability of a random action.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    at_least_one(episodes=episodes)
    loaded = load_agent(run, checkpoint, device)
    env = make_vector(loaded.env, min(episodes, 16))
    with progress_bar("Playing", episodes, "episodes") as update:
        scores = play(loaded.agent, env, episodes, seed=seed, epsilon=epsilon, progress=update)
    env.close()
    return loaded.source | scores_json(scores, loaded.env, seed, epsilon)


def scores_json(scores: Episodes, env: EnvConfig, seed: int, epsilon: float) -> dict[str, Any]:
    """Returns with mean, IQM, 95% bootstrap interval of the IQM (None of too few), the environment's own scores, and
    the protocol they were played under."""
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
