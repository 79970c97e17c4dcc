"""`rl-interp maze goals`, `maze field`, `maze retarget`, `maze steer` and `maze saliency`."""

from pathlib import Path
from typing import Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.mazes.fields import draw_field, draw_retargeting
from rl_interp.analysis.mazes.goals import find_goals
from rl_interp.analysis.mazes.saliency import judge_methods
from rl_interp.analysis.mazes.steering import steer_run
from rl_interp.analysis.sae.runs import load_autoencoder
from rl_interp.app.progress import TERMINAL


def maze_goals(
    runs: tyro.conf.Positional[tuple[str, ...]],
    episodes: int = 1000,
    seed: int = 10_000,
    output: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Find out what maze agents want: cheese or corner, where the ways part, and where there is no cheese.

    Args:
        runs: Names under runs/ or paths; several, trained with the cheese in different regions, make one table.
        episodes: Mazes of each kind to play.
        seed: Of the mazes, which are the same for all agents.
        output: Folder for table, plot and result; by default in the first run's analyses/.
        device: auto, cpu or cuda.
    """
    agents = [load_agent(run, None, device) for run in runs]
    return find_goals(agents, episodes, seed, output, TERMINAL)


def maze_field(
    run: tyro.conf.Positional[str],
    seed: int = 0,
    side: int = 15,
    add: tuple[str, ...] = (),
    clamp: tuple[str, ...] = (),
    output: Path | None = None,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Draw what a maze agent would do from every cell; with interventions, also how they change it.

    Args:
        run: Name under runs/ or a path.
        seed: Of the maze.
        side: Cells along its side.
        add: Vectors to add, as cheese:HOOK=SCALE or corner:HOOK=SCALE, such as cheese:block2.res1.sum=-1.
        clamp: Channels to hold at a value everywhere, as HOOK:CHANNEL=VALUE.
        output: The .png to write; by default in the run's analyses/.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    return loaded.source | draw_field(loaded, seed, side, add, clamp, output)


def maze_retarget(
    run: tyro.conf.Positional[str],
    hook: str,
    channel: int,
    value: float | None = None,
    seed: int = 0,
    side: int = 15,
    output: Path | None = None,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Clamp a channel at one position after another, and draw where the mouse would then go.

    Args:
        run: Name under runs/ or a path.
        hook: Hook point with positions, such as block2.res1.sum.
        channel: Which channel of it.
        value: What to clamp it to; by default twice the channel's largest value in this maze.
        seed: Of the maze.
        side: Cells along its side.
        output: The .png to write; by default in the run's analyses/.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    return loaded.source | draw_retargeting(loaded, hook, channel, value, seed, side, output)


def maze_steer(
    run: tyro.conf.Positional[str],
    hook: str = "block2.res1.sum",
    mazes: int = 400,
    episodes: int = 200,
    units: int = 5,
    sae: str | None = None,
    seed: int = 20_000,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Steer a maze agent at one layer: cheese and corner vectors with their controls, and a search for the channels
    that say where the cheese is, tested on mazes that it has not seen and in whole episodes.

    Args:
        run: Name under runs/ or a path.
        hook: Hook point with positions.
        mazes: With a decision square, to measure effects on.
        episodes: To play whole, with and without the interventions.
        units: Channels to find, and features.
        sae: Run of an autoencoder on that layer, whose features are searched as well.
        seed: Of the mazes.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    fitted = load_autoencoder(sae, device) if sae else None
    return steer_run(loaded, hook, mazes, episodes, units, fitted, seed, TERMINAL)


def maze_saliency(
    run: tyro.conf.Positional[str],
    mazes: int = 60,
    side: int = 15,
    target: str = "advantage",
    seed: int = 30_000,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Judge every saliency method by what a maze says must matter, the way to the cheese and its ends, beside the same
    method on the agent with its weights shuffled.

    Args:
        run: Name under runs/ or a path.
        mazes: How many.
        side: Cells along their side.
        target: chosen, advantage, value, or q:ACTION.
        seed: Of the mazes.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    return judge_methods(load_agent(run, checkpoint, device), mazes, side, target, seed, TERMINAL)
