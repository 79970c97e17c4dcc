"""`rl-interp imagine`."""

from pathlib import Path
from typing import Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis import imagination
from rl_interp.app.progress import TERMINAL
from rl_interp.core.interventions import parse_clamp


def imagine(
    run: tyro.conf.Positional[str],
    output: Path | None = None,
    context: int = 5,
    horizon: int = 45,
    skip: int = 0,
    seed: int = 0,
    clamp: tuple[str, ...] = (),
    times: tuple[int, ...] | None = None,
    free: bool = False,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Film what a world model imagines after a few frames of an episode, beside what happened.

    Also writes a picture of the last frame, and one of how the latent is used over the episode.

    Args:
        run: Name under runs/ or a path; of a dreamerv3 agent.
        output: The .mp4 to write; by default in the run's videos/.
        context: Frames that the model observes first.
        horizon: Decisions that it then imagines.
        skip: Decisions of the episode before the first frame observed.
        seed: Of the episode and of everything imagined.
        clamp: Units to hold at a value in a further future, as HOOK:UNIT=VALUE, such as deter:12=0.9.
        times: Imagined decisions at which they are held, from 0; by default all.
        free: Imagine the policy's own actions instead of those that were taken.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    clamps = [parse_clamp(text) for text in clamp]
    loaded = load_agent(run, checkpoint, device)
    path = output or loaded.run.path / "videos" / f"imagined-seed{seed}.mp4"
    return loaded.source | imagination.imagine(
        loaded, path, context, horizon, skip, seed, clamps, times, free, TERMINAL
    )
