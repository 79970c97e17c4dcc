"""Weights of the published package `dreamerv3` 1.5.0, by name and layout.

JAX has a linear layer's weights as `[in, out]`, a convolution's as height, width, in, out, and a transposed
convolution's as height, width, out, in and turned around by 180 degrees.
"""

import re
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.errors import UserError

_HEADS = {
    "wm/rew": "world_model.reward",
    "wm/cont": "world_model.cont",
    "task_behavior/ac/actor": "behaviour.actor",
    "task_behavior/critic/net": "behaviour.critic",
    "task_behavior/critic/slow": "behaviour.slow_critic",
}

_LAYER = {"kernel": "linear.weight", "norm/scale": "norm.weight", "norm/bias": "norm.bias"}


def from_published(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Our `state_dict` from the package's flat names, e.g. `agent/wm/rssm/gru/kernel`.

    What has no counterpart (optimisers, counters) is left out.
    """
    last = max((int(m[1]) for name in arrays if (m := re.match(r"agent/wm/dec/cnn/s(\d+)res/", name))), default=-1)
    weights = {}
    for name, array in arrays.items():
        ours = _renamed(name, last)
        if ours is not None:
            weights[ours] = torch.from_numpy(np.array(_laid_out(name, array)))
    return weights


def _renamed(name: str, last: int) -> str | None:
    if "_opt/" in name or not name.startswith("agent/"):
        return None
    name = name.removeprefix("agent/")
    for theirs, ours in _HEADS.items():
        if name.startswith(f"{theirs}/"):
            return _in_mlp(name.removeprefix(f"{theirs}/"), ours)
    for coder, ours in (("enc", "encoder"), ("dec", "decoder")):
        if name.startswith(f"wm/{coder}/mlp/"):
            return _in_mlp(name.removeprefix(f"wm/{coder}/mlp/"), f"world_model.{ours}")
        if match := re.fullmatch(rf"wm/{coder}/cnn/s(\d+)res/(.+)", name):
            if coder == "dec" and int(match[1]) == last:
                return f"world_model.decoder.last.{_plain(match[2])}"
            kind = {"kernel": "conv.weight"} | _LAYER
            what = kind[match[2]] if match[2] != "kernel" else "conv.weight"
            return f"world_model.{ours}.stages.{match[1]}.{what}"
    if match := re.fullmatch(r"wm/dec/cnn/in/(.+)", name):
        return f"world_model.decoder.first.{_plain(match[1])}"
    if name == "wm/rssm/initial":
        return "world_model.rssm.initial_deter"
    if match := re.fullmatch(r"wm/rssm/(\w+)_stats/(.+)", name):
        return f"world_model.rssm.{match[1]}_stats.{_plain(match[2])}"
    if match := re.fullmatch(r"wm/rssm/(gru|img_in|img_out|obs_out)/(.+)", name):
        return f"world_model.rssm.{match[1]}.{_LAYER[match[2]]}"
    if match := re.fullmatch(r"task_behavior/ac/retnorm_extr/(low|high)/value", name):
        return f"behaviour.{match[1]}"
    return None


def _in_mlp(rest: str, ours: str) -> str:
    if match := re.fullmatch(r"h(\d+)/(.+)", rest):
        return f"{ours}.layers.{match[1]}.{_LAYER[match[2]]}"
    if match := re.fullmatch(r"dist_\w+/out/(.+)", rest):
        return f"{ours}.out.{_plain(match[1])}"
    raise UserError(f"{rest!r} is no weight of a head as dreamerv3 1.5.0 has it.")


def _plain(kind: str) -> str:
    return "weight" if kind == "kernel" else kind


def _laid_out(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    if not name.endswith("/kernel"):
        return array
    if array.ndim == 2:
        return array.T
    if "/dec/" in name:
        return array[::-1, ::-1].transpose(3, 2, 0, 1)
    return array.transpose(3, 2, 0, 1)
