"""`rl-interp info`."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from rl_interp.core.device import bf16_pays, has_bf16, has_int8, int8_pays, pick_device
from rl_interp.core.provenance import provenance

EXTRAS = {
    "distributed": ("ray", "training, sweeps and studies on a Ray cluster (--ray)"),
    "explore": ("starlette", "rl-interp explore: agents in the browser"),
    "hub": ("huggingface_hub", "sae push and sae pull"),
    "lrp": ("zennit", "the saliency method lrp"),
    "umap": ("umap", "the plane umap of clusters in rl-interp explore"),
    "lm": ("tokenizers", "import lm and runs of language models"),
    "robotics": ("gymnasium_robotics", "PointMaze with demonstrations (train beso), and data sets of Minari's"),
    "bench": ("stable_baselines3", "make bench: measurements beside other libraries"),
    "docs": ("mkdocs", "make docs: the documentation as a site"),
    "dev": ("pytest", "make test and make lint"),
}
"""Those of pyproject.toml: a module that each brings, and what it enables."""


def info() -> dict[str, Any]:
    """Show versions, devices and which extras are installed, to paste into a bug report."""
    known = provenance()
    device = pick_device()
    return {
        "versions": known["versions"],
        "git": known["git"],
        "hardware": known["hardware"],
        "device": str(device),
        "bf16": bf16_pays(device),
        "fast_paths": _fast_paths(device),
        "extras": {extra: importlib.util.find_spec(module) is not None for extra, (module, _) in EXTRAS.items()},
        "enables": {extra: what for extra, (_, what) in EXTRAS.items()},
    }


def _fast_paths(device: torch.device) -> dict[str, str]:
    """What is computed by faster means than plain products, each tried on known numbers."""
    from rl_interp.agents import max_pool
    from rl_interp.agents.dreamerv3 import norm
    from rl_interp.sae.training.kernels import cpu

    plain = torch.device("cpu")
    return {
        "bf16 products": _said(has_bf16(device), lambda: bf16_pays(device)),
        "int8 products (fits of dictionaries)": _said(has_int8(plain), lambda: int8_pays(plain)),
        "compiled loops (fits of dictionaries)": _said(True, cpu.loops_are_right),
        "compiled pooling (IMPALA)": _said(has_bf16(plain), max_pool.loops_are_right),
        "compiled layer norm (DreamerV3)": _said(True, lambda: norm.loops_are_right(8)),
    }


def _said(there: bool, right: Callable[[], bool]) -> str:
    if not there:
        return "not here"
    return "in use" if right() else "off: wrong on known numbers"
