"""`rl-interp demo`: the main job, end to end, on the reference agent."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis import demo as analysis
from rl_interp.app.commands.flags import Count, Seed
from rl_interp.app.pages import write_page
from rl_interp.app.progress import TERMINAL
from rl_interp.sae import SAEConfig

REFERENCE = "dqn-mspacman"


def demo(
    run: Annotated[str, tyro.conf.arg(metavar="RUN")] = REFERENCE,
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo"),
    episodes: Count = 30,
    samples: Count = 60_000,
    config: SAEConfig = SAEConfig(),  # noqa: B008 - frozen
    steps: Count = 300,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Score the reference agent, decompose its hidden layer, film its saliency, and write a report.

    Args:
        run: The agent's run: a name under runs/ or a path.
        output: Directory to write to; an earlier demo in it is replaced.
        episodes: Number of episodes in each condition.
        samples: Number of activations to collect.
        config: Settings of the autoencoder.
        steps: Length of the video in environment steps.
        seed: Seed of the episodes and of exploration; the autoencoder's is --config.seed. On Atari, environment i has
            seed + i, as has the i-th episode that is collected, so that nearby seeds share episodes: for other ones
            give a seed further away than there are episodes.
    """
    render = partial(write_page, "report")
    return analysis.demo(load_agent(run), output, render, episodes, samples, config, steps, seed, TERMINAL)
