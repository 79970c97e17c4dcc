"""Analyse agents in mazes: their goals, vector fields, steering and saliency."""

from typing import Annotated, Any

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.mazes.fields import draw_field, draw_retargeting
from rl_interp.analysis.mazes.goals import find_goals
from rl_interp.analysis.mazes.saliency import judge_methods
from rl_interp.analysis.mazes.steering import steer_run
from rl_interp.analysis.sae.runs import load_autoencoder
from rl_interp.app.commands.flags import (
    Autoencoder,
    Count,
    CountOrZero,
    Device,
    FromAgent,
    Output,
    Seed,
    optional,
    several,
)
from rl_interp.app.progress import TERMINAL


def maze_goals(
    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")
    ],
    episodes: Count = 1000,
    seed: Seed = 10_000,
    output: Output = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Find out what maze agents pursue, the cheese or the corner, where the ways to them part.

    The agents also play mazes without cheese. Several agents, trained with the cheese in different regions, make one
    table.

    Args:
        runs: The agents' runs: names under runs/ or paths.
        episodes: Number of mazes of each kind to play.
        seed: Seed of the mazes, which are the same for all agents.
        output: Folder for table, plot and result; by default in the first run's analyses/.
        device: Device to compute on.
    """
    agents = [load_agent(run, None, device) for run in runs]
    return find_goals(agents, episodes, seed, output, TERMINAL)


def maze_field(
    agent: FromAgent,
    seed: Seed = 0,
    side: Count = 15,
    add: Annotated[tuple[str, ...], several("VECTOR")] = (),
    clamp: Annotated[tuple[str, ...], several("CHANNEL=VALUE")] = (),
    output: Output = None,
) -> dict[str, Any]:
    """Draw what a maze agent would do from every cell, and how interventions change it.

    Args:
        agent: An agent in mazes.
        seed: Seed of the maze.
        side: Number of cells along the maze's side.
        add: Vectors to add, as cheese:HOOK=SCALE or corner:HOOK=SCALE, such as cheese:block2.res1.sum=-1.
        clamp: Channels to hold at a value everywhere, as HOOK:CHANNEL=VALUE.
        output: The .png to write; by default in the run's analyses/.
    """
    loaded = agent.load()
    return loaded.source | draw_field(loaded, seed, side, add, clamp, output)


def maze_retarget(
    agent: FromAgent,
    hook: str,
    channel: CountOrZero,
    value: Annotated[float | None, optional("FLOAT")] = None,
    seed: Seed = 0,
    side: Count = 15,
    output: Output = None,
) -> dict[str, Any]:
    """Clamp a channel at one position after another, and draw where the mouse would then go.

    Args:
        agent: An agent in mazes.
        hook: Hook point with positions, such as block2.res1.sum.
        channel: Number of the channel.
        value: Value to clamp it to; by default twice the channel's largest value in this maze.
        seed: Seed of the maze.
        side: Number of cells along the maze's side.
        output: The .png to write; by default in the run's analyses/.
    """
    loaded = agent.load()
    return loaded.source | draw_retargeting(loaded, hook, channel, value, seed, side, output)


def maze_steer(
    agent: FromAgent,
    hook: str = "block2.res1.sum",
    mazes: Count = 400,
    episodes: Count = 200,
    units: Count = 5,
    sae: Autoencoder = None,
    seed: Seed = 20_000,
) -> dict[str, Any]:
    """Steer a maze agent at one layer, by cheese and corner vectors and by channels, with controls.

    The channels are those that say where the cheese is: they are searched for on some mazes and tested on others, and
    in whole episodes.

    Args:
        agent: An agent in mazes.
        hook: Hook point with positions.
        mazes: Number of mazes with a decision square to measure effects on.
        episodes: Number of episodes to play whole, with and without the interventions.
        units: Number of channels (and of features, with --sae) to find.
        sae: Run of an autoencoder on that layer, whose features are searched as well.
        seed: Seed of the mazes.
    """
    loaded = agent.load()
    fitted = load_autoencoder(sae, agent.device, (loaded,), TERMINAL) if sae else None
    return steer_run(loaded, hook, mazes, episodes, units, fitted, seed, TERMINAL)


def maze_saliency(
    agent: FromAgent,
    mazes: Count = 60,
    side: Count = 15,
    target: str = "advantage",
    seed: Seed = 30_000,
) -> dict[str, Any]:
    """Judge every saliency method by what must matter in a maze: the way to the cheese, and its ends.

    Each method stands beside itself on the agent with its weights shuffled.

    Args:
        agent: An agent in mazes.
        mazes: Number of mazes.
        side: Number of cells along a maze's side.
        target: What the maps explain: chosen, advantage, value, or q:ACTION.
        seed: Seed of the mazes.
    """
    return judge_methods(agent.load(), mazes, side, target, seed, TERMINAL)
