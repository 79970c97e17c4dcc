"""`rl-interp probe` and `rl-interp erase`."""

from typing import Annotated, Any

from rl_interp.analysis.probes import study, without
from rl_interp.app.commands.flags import Count, CountOrZero, FromAgent, Seed, Share, several
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


def erase(
    agent: FromAgent,
    hook: str,
    concepts: Annotated[tuple[str, ...], several("CONCEPT")] = (),
    samples: Count = 20_000,
    episodes: CountOrZero = 30,
    controls: Count = 16,
    seed: Seed = 0,
    epsilon: Share = 0.05,
) -> dict[str, Any]:
    """Take what a layer knows of a concept out of it, and measure how the agent then decides and plays.

    Beside it stand directions of the same labels out of step with the states, which move each state as far and leave
    what is read of the concept. An agent that goes on as before may still go by the concept, in a form that no linear
    probe reads.

    Args:
        agent: The agent to look into.
        hook: Hook point without positions, such as fc.post or lstm.h.
        concepts: Concepts of the environment's ground truth, each erased alone; by default all that are common enough.
        samples: Number of steps to play, half of them to learn from and half to decide in.
        episodes: Number of whole episodes to play without each concept, and as many under its controls; 0 for none.
        controls: Number of directions of each concept's control, at most 16, which episodes take in turn.
        seed: Seed of the episodes and of the controls.
        epsilon: Probability of a random action in the samples.
    """
    settings = without.Settings(samples, episodes, controls, seed, epsilon)
    return without.play_without(agent.load(), hook, concepts, settings, TERMINAL)
