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

_PLACES = {
    "wm/enc/(?:cnn|mlp)": "world_model.encoder",
    "wm/dec/(?:cnn|mlp)": "world_model.decoder",
    "wm/rssm": "world_model.rssm",
    "wm/rew": "world_model.reward",
    "wm/cont": "world_model.cont",
    "task_behavior/ac/actor": "behaviour.actor",
    "task_behavior/critic/net": "behaviour.critic",
    "task_behavior/critic/slow": "behaviour.slow_critic",
    "task_behavior/ac/retnorm_extr": "behaviour",
}
_LAYERS = {
    r"s(\d+)res": (r"stages.\1", "conv"),
    r"h(\d+)": (r"layers.\1", "linear"),
    "(gru|img_in|img_out|obs_out)": (r"\1", "linear"),
}
"""Those with a norm: their name, and that of the product in them."""

_PLAIN = {
    "in": "first",
    r"dist_\w+/out": "out",
    "(img_stats|obs_stats)": r"\1",
    "initial": "initial_deter",
    "(low|high)/value": r"\1",
}
"""The others."""

_NAMES = {
    **{
        f"{layer}/{theirs}": f"{name}.{ours.format(product=product)}"
        for layer, (name, product) in _LAYERS.items()
        for theirs, ours in (("kernel", "{product}.weight"), ("norm/scale", "norm.weight"), ("norm/bias", "norm.bias"))
    },
    **{f"{layer}/kernel": f"{name}.weight" for layer, name in _PLAIN.items()},
    **{f"{layer}/bias": f"{name}.bias" for layer, name in _PLAIN.items()},
    **_PLAIN,
    r"s\d+res/bias": "last.bias",  # of the decoder's last stage alone, which has no norm
}


def from_published(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Our `state_dict` from the package's flat names, e.g. `agent/wm/rssm/gru/kernel`.

    What has no counterpart (optimisers, counters) is left out.
    """
    weights = {}
    for name, array in arrays.items():
        ours = _renamed(name.removeprefix("agent/"))
        if ours is not None and "_opt/" not in name:
            weights[ours] = torch.from_numpy(np.array(_laid_out(name, array)))
    stages = [name for name in weights if name.startswith("world_model.decoder.stages.") and "conv" in name]
    if stages:
        last = max(stages, key=lambda name: int(name.split(".")[3]))
        weights["world_model.decoder.last.weight"] = weights.pop(last)
    return weights


def _renamed(name: str) -> str | None:
    for place, module in _PLACES.items():
        for theirs, ours in _NAMES.items():
            if match := re.fullmatch(f"{place}/{theirs}", name):
                return f"{module}.{match.expand(ours)}"
    return None


def _laid_out(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    if not name.endswith("/kernel"):
        return array
    if array.ndim == 2:
        return array.T
    return (array[::-1, ::-1] if "/dec/" in name else array).transpose(3, 2, 0, 1)
