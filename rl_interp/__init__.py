"""What has a reinforcement-learning agent learned? Train it, open its hidden layers, intervene.

import rl_interp
loaded = rl_interp.load_agent("dqn-mspacman")
out, cache = rl_interp.run_with_cache(loaded.agent, obs, names=["fc.post"])
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


def _check_siblings() -> None:
    """`agents`, `sae` and `saliency` are common names: refuse another distribution's package of that name."""
    home = Path(__file__).parent.parent
    for name in ("agents", "sae", "saliency"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).parent.parent if spec and spec.origin else None
        if origin != home:
            raise ImportError(
                f"the package {name!r} on this Python's path is {spec.origin if spec else 'missing'}, not the one "
                f"beside rl_interp in {home}: another distribution shadows it; use a virtual environment of its own."
            )


_check_siblings()

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, wrap  # noqa: E402
from rl_interp.core.contract import check_agent  # noqa: E402
from rl_interp.core.envs.maze import register  # noqa: E402
from rl_interp.core.hooks import hooked, run_with_cache, run_with_hooks  # noqa: E402
from rl_interp.core.rollout import evaluate  # noqa: E402
from rl_interp.core.run import Run  # noqa: E402

register()

if TYPE_CHECKING:
    from rl_interp.app.load import load_agent as load_agent


def __getattr__(name: str) -> Any:
    if name == "load_agent":  # the agents' packages are imported when one is loaded, not before
        from rl_interp.app.load import load_agent

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
