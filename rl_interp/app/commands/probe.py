"""`rl-interp probe`."""

from typing import Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.probes import study
from rl_interp.app.progress import TERMINAL


def probe_run(
    run: tyro.conf.Positional[str],
    hooks: tuple[str, ...],
    samples: int = 10_000,
    seed: int = 0,
    epsilon: float = 0.05,
    uncontrollable: bool = False,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Score linear probes of the environment's ground truth, beside a random network, the raw observation and
    shuffled labels, on episodes that the probes were not fitted on.

    Args:
        run: Name under runs/ or a path.
        hooks: Hook points to read from, such as deter stoch embed.
        samples: Decisions to play.
        seed: Of the episodes, the split and the controls.
        epsilon: Probability of a random action.
        uncontrollable: Whether to keep decisions that can make no difference, such as those during a game's animations.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    return loaded.source | study.probe_run(loaded, hooks, samples, seed, epsilon, uncontrollable, TERMINAL)
