"""`rl-interp probe`."""

from typing import Any

from rl_interp.analysis.probes import study
from rl_interp.app.commands.flags import Count, FromAgent, Seed, Share
from rl_interp.app.progress import TERMINAL


def probe_run(
    agent: FromAgent,
    hooks: tuple[str, ...],
    samples: Count = 10_000,
    seed: Seed = 0,
    epsilon: Share = 0.05,
    uncontrollable: bool = False,
) -> dict[str, Any]:
    """Score linear probes for the environment's ground truth on held-out episodes.

    Beside them stand probes of a random network, of the raw observation, and of shuffled labels.

    Args:
        agent: The agent to probe.
        hooks: Hook points to read from, such as deter stoch embed.
        samples: Number of steps to play.
        seed: Seed of the episodes, the split and the controls.
        epsilon: Probability of a random action.
        uncontrollable: Keep the steps at which actions make no difference, such as those during a game's animations.
    """
    loaded = agent.load()
    return loaded.source | study.probe_run(loaded, hooks, samples, seed, epsilon, uncontrollable, TERMINAL)
