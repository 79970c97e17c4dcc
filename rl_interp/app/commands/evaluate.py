"""`rl-interp evaluate`."""

from typing import Annotated, Any

import tyro

from rl_interp.agents.impala.self_ablation import ablated as winners
from rl_interp.analysis.playing import on_levels, score, scores_json
from rl_interp.app.commands.flags import Count, CountOrZero, FromAgent, Seed, Share, optional
from rl_interp.app.progress import TERMINAL


def evaluate(
    agent: FromAgent,
    episodes: Count = 30,
    seed: Seed = 1_000,
    epsilon: Share = 0.001,
    ablated: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    levels: Annotated[str | None, optional("FILE")] = None,
    thinking: CountOrZero = 0,
) -> dict[str, Any]:
    """Play whole episodes and report their returns, with the interquartile mean and its interval.

    Returns are extrinsic and unclipped.

    Args:
        agent: The agent to play.
        episodes: Number of episodes; an interval needs at least 5.
        seed: Seed of the episodes and of exploration. On Atari, environment i has seed + i, so that nearby seeds share
            episodes: for other ones give a seed further away than there are environments.
        epsilon: Probability of a random action.
        ablated: Play as the ablated stream, of an agent trained with --self-ablation.
        levels: Levels of Sokoban to play instead of the held-out ones: a file or folder, or a set of the package's.
        thinking: How often the agent sees the first observation of an episode before it acts.
    """
    loaded = agent.load() if levels is None else on_levels(agent.load(), levels, TERMINAL)
    interventions = winners(loaded.agent) if ablated else []
    scores = score(loaded, episodes, seed, epsilon, TERMINAL, interventions, thinking)
    changed = {"interventions": [each.config() for each in interventions]} if ablated else {}
    return loaded.source | scores_json(scores, loaded.env, seed, epsilon, thinking) | changed
