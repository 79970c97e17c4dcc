"""Open a policy that samples its actions by denoising."""

from typing import Annotated, Any

from rl_interp.analysis.denoising.deciding import decide_ways
from rl_interp.analysis.denoising.samplers import GUIDANCE, STEPS, compare_samplers
from rl_interp.app.commands.flags import Count, Factor, FromAgent, Seed, several
from rl_interp.app.progress import TERMINAL


def denoise_samplers(
    agent: FromAgent,
    steps: tuple[Count, ...] = STEPS,
    samplers: Annotated[tuple[str, ...], several("SAMPLER")] = ("euler", "ancestral", "heun", "dpm++2m"),
    guidance: tuple[Factor, ...] = GUIDANCE,
    episodes: Count = 200,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Play the same episodes with each sampler and number of denoising steps, and with more or less guidance.

    Args:
        agent: An agent that denoises, of rl-interp train beso.
        steps: Numbers of denoising steps.
        samplers: Samplers: euler, ancestral, heun and dpm++2m.
        guidance: Factors λ of what the goal changes; 0 leaves it out.
        episodes: Number of episodes to play with each.
        seed: Seed of the episodes and the noise.
    """
    return compare_samplers(agent.load(), steps, samplers, guidance, episodes, seed, TERMINAL)


def denoise_decide(agent: FromAgent, states: Count = 400, steps: Count = 10, seed: Seed = 0) -> dict[str, Any]:
    """Say at which noise level, and in which layer, the goal decides between two ways.

    Goals are swapped in the middle of denoising, layers patched from decisions under the other goal, and the way that
    is taken read by probes, each beside its controls.

    Args:
        agent: An agent that denoises, in rl_interp/TwoWays-v0.
        states: Number of decisions to look at.
        steps: Number of denoising steps in which they are made.
        seed: Seed of the starts, the noise, the probes' split and the controls.
    """
    return decide_ways(agent.load(), states, steps, seed, TERMINAL)
