"""What has a reinforcement-learning agent learned? Train it, open its hidden layers, intervene.

import rl_interp
loaded = rl_interp.load_agent("dqn-mspacman")
out, cache = rl_interp.run_with_cache(loaded.agent, obs, names=["fc.post"])
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, wrap
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs.maze import register
from rl_interp.core.hooks import hooked, run_with_cache, run_with_hooks
from rl_interp.core.rollout import evaluate
from rl_interp.core.run import Run

register()

if TYPE_CHECKING:
    from rl_interp.agents.load import load_agent as load_agent


def __getattr__(name: str) -> Any:
    if name == "load_agent":  # the agents' packages are imported when one is loaded, not before
        from rl_interp.agents.load import load_agent

        return load_agent
    raise AttributeError(f"module 'rl_interp' has no attribute {name!r}")


__all__ = [
    "Agent",
    "HookPoint",
    "PolicyOutput",
    "Run",
    "check_agent",
    "evaluate",
    "hooked",
    "load_agent",
    "run_with_cache",
    "run_with_hooks",
    "wrap",
]
