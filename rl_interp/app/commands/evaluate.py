"""`rl-interp evaluate`."""

from typing import Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.playing import score, scores_json
from rl_interp.app.progress import TERMINAL


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
    loaded = load_agent(run, checkpoint, device)
    scores = score(loaded, episodes, seed, epsilon, TERMINAL)
    return loaded.source | scores_json(scores, loaded.env, seed, epsilon)
