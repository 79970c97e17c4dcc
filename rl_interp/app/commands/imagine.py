"""`rl-interp imagine`."""

from typing import Annotated, Any

from rl_interp.analysis import imagination
from rl_interp.app.commands.flags import Count, CountOrZero, FromAgent, Output, Seed, optional, several
from rl_interp.app.progress import TERMINAL
from rl_interp.core.interventions import parse_clamp


def imagine(
    agent: FromAgent,
    output: Output = None,
    context: Count = 5,
    horizon: Count = 45,
    skip: CountOrZero = 0,
    seed: Seed = 0,
    clamp: Annotated[tuple[str, ...], several("UNIT=VALUE")] = (),
    times: Annotated[tuple[CountOrZero, ...] | None, optional("INT ...")] = None,
    free: bool = False,
) -> dict[str, Any]:
    """Film what a world model imagines after a few frames of an episode, beside what happened.

    Also writes a picture of the last frame, and one of how the latent is used over the episode.

    Args:
        agent: A DreamerV3 agent.
        output: The .mp4 to write; by default in the run's videos/.
        context: Number of frames that the model observes first.
        horizon: Number of steps that it then imagines.
        skip: Number of steps to play before the first frame that it observes.
        seed: Seed of the episode and of everything imagined.
        clamp: Units to hold at a value in a second imagined future, as HOOK:UNIT=VALUE, such as deter:12=0.9.
        times: Imagined steps at which they are held, counted from 0; by default all.
        free: Imagine the policy's own actions instead of those that were taken.
    """
    clamps = [parse_clamp(text) for text in clamp]
    loaded = agent.load()
    path = output or loaded.run.outputs / "videos" / f"imagined-seed{seed}.mp4"
    return loaded.source | imagination.imagine(
        loaded, path, context, horizon, skip, seed, clamps, times, free, TERMINAL
    )
