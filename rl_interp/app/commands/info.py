"""`rl-interp info`."""

import importlib.util
from typing import Any

from rl_interp.core.device import bf16_pays, pick_device
from rl_interp.core.run import provenance

_EXTRAS = {
    "explore": "starlette",
    "distributed": "ray",
    "hub": "huggingface_hub",
    "track": "trackio",
    "bench": "stable_baselines3",
}


def info() -> dict[str, Any]:
    """Versions, devices and which extras are there: paste it into a bug report."""
    known = provenance()
    device = pick_device()
    return {
        "versions": known["versions"],
        "git": known["git"],
        "hardware": known["hardware"],
        "device": str(device),
        "bf16": bf16_pays(device),
        "extras": {extra: importlib.util.find_spec(module) is not None for extra, module in _EXTRAS.items()},
    }
