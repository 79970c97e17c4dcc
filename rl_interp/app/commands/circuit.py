"""Find, test and cut what computes an agent's decisions: units and the connections between them."""

from typing import Annotated, Any

import tyro

from rl_interp.analysis.circuits.importance import importance_run
from rl_interp.analysis.circuits.layers import ImportanceConfig
from rl_interp.app.commands.flags import FromAgent, several
from rl_interp.app.progress import TERMINAL


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
        hooks: Hook points; by default those after a nonlinearity, and the memory.
        config: What is measured, and what is played.
    """
    loaded = agent.load()
    return importance_run(loaded, hooks, config, TERMINAL)
