"""`rl-interp imagine`."""

import re
from pathlib import Path
from typing import Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.imagination import dream_film, latent_usage, watched
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hook_point
from rl_interp.core.interventions import Clamp, During, Intervention
from rl_interp.core.video import check_video


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
    loaded = load_agent(run, checkpoint, device)
    held: list[Intervention] = [During(clamped(text), phase="imagine", times=times) for text in clamp]
    for each in held:
        hook_point(loaded.agent, each.at)
    path = output or loaded.run.path / "videos" / f"imagined-seed{seed}.mp4"
    check_video(path)
    moments = watched(loaded, context + horizon, skip, seed)
    film = dream_film(loaded, moments, path, context, seed, held, free)
    usage = latent_usage(loaded, moments, path.with_name(f"{path.stem}-latent.png"))
    return loaded.source | film | {"latent": usage}


def clamped(text: str) -> Intervention:
    """What `--clamp HOOK:UNIT=VALUE` asks for."""
    match = re.fullmatch(r"(.+):(\d+)=(-?\d+(?:\.\d+)?)", text)
    if not match:
        raise UserError(f"--clamp {text} given; it has the form HOOK:UNIT=VALUE, such as deter:12=0.9.")
    return Clamp(match[1], units=[int(match[2])], value=float(match[3]))
