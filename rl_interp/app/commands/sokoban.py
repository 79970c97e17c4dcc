"""Read and change what a Sokoban agent plans, and give it time to think."""

from typing import Annotated, Any

from rl_interp.analysis.sokoban.channels import find_channels
from rl_interp.analysis.sokoban.film import film_plan
from rl_interp.analysis.sokoban.probing import probe_plans
from rl_interp.analysis.sokoban.steering import DOSES, DRAWS, steer_plans
from rl_interp.analysis.sokoban.thinking import THINKING, give_time
from rl_interp.app.commands.flags import (
    Count,
    CountOrZero,
    Factor,
    FromAgent,
    Hook,
    Output,
    Seed,
    optional,
    several,
)
from rl_interp.app.progress import TERMINAL

Levels = Annotated[str | None, optional("LEVELS")]


def sokoban_probe(
    agent: FromAgent,
    episodes: Count = 1000,
    hooks: Annotated[tuple[str, ...], several("HOOK")] = (),
    seed: Seed = 0,
) -> dict[str, Any]:
    """Read a Sokoban agent's plan: where it will step, and which way it will push boxes, cell by cell.

    Linear probes of every layer and tick are fitted on some levels and scored on others, beside probes of the
    observation, of shuffled weights and of shuffled labels. The other commands go on from them.

    Args:
        agent: An agent in Sokoban.
        episodes: Number of levels to play.
        hooks: Hook points to read from; by default cell and hidden state of every layer.
        seed: Seed of the levels, where they are generated, and of the split.
    """
    return probe_plans(agent.load(), episodes, hooks, seed, TERMINAL)


def sokoban_channels(
    agent: FromAgent,
    episodes: Count = 200,
    played: Count = 100,
    draws: Count = 10,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Find the channels whose value at a cell says which way it will be gone, and play without them.

    They are found on some levels, tested on others, and ablated beside as many other channels.

    Args:
        agent: An agent in Sokoban.
        episodes: Number of levels to find them on.
        played: Number of other levels to play under each ablation.
        draws: Number of sets of other channels to ablate.
        seed: Seed of the levels, where they are generated, of the split and of the other channels.
    """
    return find_channels(agent.load(), episodes, played, draws, seed, TERMINAL)


def sokoban_steer(
    agent: FromAgent,
    symmetries: Count = 8,
    doses: tuple[Factor, ...] = DOSES,
    draws: Count = DRAWS,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Write another plan into a Sokoban agent, so that it takes the long of two ways.

    The probes' vectors stand beside random ones, those of the opposite way, and path channels where they were found.

    Args:
        agent: An agent in Sokoban whose plan has been probed.
        symmetries: Number of mirror images and turns of each level to play, 8 at most.
        doses: Multiples of a cell's typical state to add.
        draws: Number of sets of random vectors, and of other channels, to play beside.
        seed: Seed of these.
    """
    return steer_plans(agent.load(), symmetries, doses, draws, seed, TERMINAL)


def sokoban_think(
    agent: FromAgent,
    levels: Annotated[tuple[str, ...], several("LEVELS")] = (),
    episodes: Count = 1000,
    thinking: tuple[CountOrZero, ...] = THINKING,
    sizes: Annotated[tuple[Count, ...], several("SIDE")] = (),
    seed: Seed = 0,
) -> dict[str, Any]:
    """Find out what time to think is worth to a Sokoban agent, and whether it takes it by walking in circles.

    Args:
        agent: An agent in Sokoban whose plan has been probed.
        levels: Levels to play, as of evaluate, such as unfiltered medium hard; by default the held-out ones.
        episodes: Number of each to play.
        thinking: Numbers of times that the agent sees a level before its first action.
        sizes: Sides of larger boards to play on as well, such as 12 15 20 25.
        seed: Seed of generated levels and of the control.
    """
    return give_time(agent.load(), levels, episodes, thinking, sizes, seed, TERMINAL)


def sokoban_film(
    agent: FromAgent,
    levels: Levels = None,
    level: Annotated[str | None, optional("ID")] = None,
    hook: Hook = None,
    kernel: Count = 1,
    thinking: CountOrZero = 0,
    seed: Seed = 0,
    output: Output = None,
) -> dict[str, Any]:
    """Film a Sokoban agent at play, with its plan drawn as arrows over the board, tick by tick.

    Args:
        agent: An agent in Sokoban whose plan has been probed.
        levels: Levels to choose from, as of evaluate; by default the held-out ones.
        level: The level to play, such as unfiltered:17; by default the one that the seed counts to.
        hook: Hook point to read from; by default the last layer's cell state.
        kernel: Side of the square of cells that the probes see, 1 or 3.
        thinking: How often the agent sees the level before its first action, which is not shown.
        seed: Which level to play.
        output: The .mp4 to write; by default in the run's videos/.
    """
    loaded = agent.load()
    return loaded.source | film_plan(loaded, output, levels, level, hook, kernel, thinking, seed, TERMINAL)
