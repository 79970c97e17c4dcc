"""What has a reinforcement-learning agent learned? Train it, open its hidden layers, intervene.

import rl_interp
loaded = rl_interp.load_agent("dqn-mspacman")
out, cache = rl_interp.run_with_cache(loaded.agent, obs, names=["fc.post"])
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if _lost := [
    name for name in ("agents", "circuits", "sae", "saliency") if not os.path.isdir(os.path.join(__path__[0], name))
]:
    raise ImportError(
        f"this copy of the suite has lost links, as archives unpacked without them do: {__path__[0]} must hold "
        f"{', '.join(f'{name} -> ../{name}' for name in _lost)}; make them with `cd {__path__[0]} && ln -sf "
        f"{' '.join(f'../{name}' for name in _lost)} .`, or clone the repository again."
    )

from rl_interp._gymnasium import announce

if TYPE_CHECKING:
    from rl_interp.agents.load import load_agent
    from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
    from rl_interp.core.check_agent import check_agent
    from rl_interp.core.hooks import hooked, run_with_cache, run_with_hooks
    from rl_interp.core.rollout import evaluate
    from rl_interp.core.run import Run
    from rl_interp.core.wrap import wrap

_HOMES = {
    "agents.load": ("load_agent",),
    "core.agent": ("Agent", "HookPoint", "PolicyOutput"),
    "core.check_agent": ("check_agent",),
    "core.hooks": ("hooked", "run_with_cache", "run_with_hooks"),
    "core.rollout": ("evaluate",),
    "core.run": ("Run",),
    "core.wrap": ("wrap",),
}
"""Where each public name lives. It is imported when it is first asked for, so that whoever needs one room, such as the
command line's help, does not wait for PyTorch."""


_ROOMS = ("agents", "analysis", "circuits", "core", "sae", "saliency")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"rl_interp.{name}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"rl_interp.{home}"), name)
    raise AttributeError(f"module 'rl_interp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


announce()

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
