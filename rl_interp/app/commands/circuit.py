"""Find, test and cut what computes an agent's decisions: units and the connections between them."""

from typing import Annotated, Any

import tyro

from rl_interp.analysis.circuits.breaking import break_run
from rl_interp.analysis.circuits.importance import importance_run
from rl_interp.analysis.circuits.layers import ImportanceConfig
from rl_interp.app.commands.flags import Count, FromAgent, several
from rl_interp.app.progress import TERMINAL
from rl_interp.circuits.breaking import BreakingConfig


def circuit_importance(
    agent: FromAgent,
    hooks: Annotated[tuple[str, ...], several("HOOK")] = (),
    config: Annotated[ImportanceConfig, tyro.conf.arg(name="")] = ImportanceConfig(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Measure how much each unit matters: how far decisions are from the agent's own with the unit replaced.

    Each kind of replacement gives an importance of its own, with gradients' estimates beside them. Then whole episodes
    are played without the half of each layer that matters least, by each kind's ranking, and without a random half.

    Args:
        agent: The agent to measure.
        hooks: Hook points; by default those after a nonlinearity that decisions depend on, and the memory.
        config: What is measured, and what is played.
    """
    loaded = agent.load()
    return importance_run(loaded, hooks, config, TERMINAL)


def circuit_break(
    agent: FromAgent,
    bad: Annotated[str, tyro.conf.arg(metavar="HABIT")],
    states: Count = 30,
    episodes: Count = 400,
    replace: Annotated[str, tyro.conf.arg(metavar="KIND")] = "mean",
    config: Annotated[BreakingConfig, tyro.conf.arg(name="")] = BreakingConfig(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Break a habit of an agent: learn the fewest edges whose cutting ends it and spares what the agent does otherwise.

    Beside it: as many random edges cut, whole units cut, and all weights trained on the same states.

    Args:
        agent: The agent whose habit is broken.
        bad: The habit: corner, of maze agents, or CONCEPT:ACTION[,ACTION], such as blinky_near:up.
        states: Number of states that show the habit to learn from.
        episodes: Number of held-out episodes to play in each condition.
        replace: What is put in place of what a cut edge carries: zero, mean or mean-position.
        config: How the cut is learned.
    """
    return break_run(agent.load(), bad, config, states, episodes, replace, TERMINAL)
