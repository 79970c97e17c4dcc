"""Pretrained weights: checkpoints of the published package `dreamerv3` 1.5.0, read without running code from them.

They are pickles, of which only numpy arrays and plain containers are admitted. JAX has a linear layer's weights as
`[in, out]`, a convolution's as height, width, in, out, and a transposed convolution's as height, width, out, in and
turned by 180 degrees.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.dreamerv3.agent import DreamerV3, make_agent
from rl_interp.agents.dreamerv3.config import SIZES, DreamerV3Config
from rl_interp.agents.pretrained.pickles import Array, Tuple, read_pickle
from rl_interp.core.envs import EnvConfig
from rl_interp.core.errors import RunError
from rl_interp.core.read import reading
from rl_interp.core.weights import Held, with_weights

REMEDY = "give the checkpoint.ckpt that dreamerv3 1.5.0 saved"


def read_checkpoint(path: Path | str) -> tuple[int, dict[str, NDArray[Any]]]:
    """How many steps a checkpoint was trained for, and the agent's arrays by their names in the package.

    Raises:
        RunError: the file is not a pickle, holds anything but arrays and plain containers, or has no agent.
    """
    data = read_pickle(path, REMEDY, "checkpoint of dreamerv3 1.5.0", {r"optax\._src\.\w+ \w+State": Tuple})
    with reading(path, REMEDY):
        step = data.get("step", 0) if isinstance(data, dict) else None
        step = int(array) if isinstance(step, Array) and (array := step.numpy()) is not None else step
        if not isinstance(step, int) or not 0 <= step < 2**63 or not isinstance(data.get("agent"), dict):
            raise RunError(f"{path} holds no agent; {REMEDY}.")
        found = {str(name): value.numpy() for name, value in data["agent"].items() if isinstance(value, Array)}
    return step, {name: array for name, array in found.items() if array is not None}


def agent_of(arrays: Mapping[str, NDArray[Any]], env: EnvConfig, source: Path | str) -> DreamerV3:
    """The agent of a checkpoint's weights, whose size is theirs.

    Raises:
        RunError: the weights are of no known size, or of an agent whose actions or observations are not those of `env`.
    """
    sizes = {(size.deter, size.units, size.layers, size.stoch * size.classes): name for name, size in SIZES.items()}
    try:
        deter = arrays["agent/wm/rssm/initial"].shape[0]
        units, stoch = arrays["agent/wm/rssm/img_stats/kernel"].shape
        inputs = arrays["agent/wm/rssm/img_in/kernel"].shape[0]
    except KeyError as error:
        raise RunError(f"{source} has no weights named {error}; it is of a different version of the package.") from None
    except (ValueError, IndexError):
        raise RunError(f"{source} has weights of different dimensions than dreamerv3 1.5.0 saves.") from None
    layers = sum(re.fullmatch(r"agent/wm/rew/h\d+/kernel", name) is not None for name in arrays)
    found = sizes.get((deter, units, layers, stoch))
    if found is None:
        raise RunError(
            f"{source} has a GRU of {deter}, layers of {units} and heads {layers} deep, which is none of the sizes "
            f"{', '.join(SIZES)}."
        )
    actions = inputs - stoch
    if actions != len(env.action_names):
        raise RunError(f"{source} is of an agent with {actions} actions; {env.id} has {len(env.action_names)}.")
    if ("agent/wm/enc/cnn/s0res/kernel" in arrays) != (env.categories is None):
        raise RunError(f"{source} is of an agent that sees {'symbols' if env.categories is None else 'pixels'}; "
                       f"{env.id} gives {env.observation_kind}.")  # fmt: skip
    config = DreamerV3Config(env=env, size=found)  # pyright: ignore[reportArgumentType]
    with reading(source, REMEDY):
        weights = Held(to_state_dict(arrays), source)
    return with_weights(lambda: make_agent(config), weights, source).eval()


def to_state_dict(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Our `state_dict` from arrays by the package's flat names, e.g. `agent/wm/rssm/gru/kernel`.

    What has no counterpart here (optimisers, counters) is left out.
    """
    weights = {}
    for name, array in arrays.items():
        ours = _our_name(name.removeprefix("agent/"))
        if ours is not None and "_opt/" not in name:
            weights[ours] = torch.from_numpy(np.array(_laid_out(name, array)))
    stages = [name for name in weights if name.startswith("world_model.decoder.stages.") and "conv" in name]
    if stages:
        last = max(stages, key=lambda name: int(name.split(".")[3]))
        weights["world_model.decoder.last.weight"] = weights.pop(last)
    return weights


# -- names and layouts ---------------------------------------------------------------------------

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
"""Layers with a norm: their name here, and the name of the product in them."""

_PLAIN = {
    "in": "first",
    r"dist_\w+/out": "out",
    "(img_stats|obs_stats)": r"\1",
    "initial": "initial_deter",
    "(low|high)/value": r"\1",
}
"""Layers and numbers without a norm."""

_NAMES = {
    **{
        f"{layer}/{theirs}": f"{name}.{ours.format(product=product)}"
        for layer, (name, product) in _LAYERS.items()
        for theirs, ours in (("kernel", "{product}.weight"), ("norm/scale", "norm.weight"), ("norm/bias", "norm.bias"))
    },
    **{f"{layer}/kernel": f"{name}.weight" for layer, name in _PLAIN.items()},
    **{f"{layer}/bias": f"{name}.bias" for layer, name in _PLAIN.items()},
    **_PLAIN,
    r"s\d+res/bias": "last.bias",  # the decoder's last stage, which alone has no norm
}


def _our_name(name: str) -> str | None:
    """What an array is called here; None where it has no counterpart."""
    for place, module in _PLACES.items():
        for theirs, ours in _NAMES.items():
            if match := re.fullmatch(f"{place}/{theirs}", name):
                return f"{module}.{match.expand(ours)}"
    return None


def _laid_out(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """An array with its axes in PyTorch's order."""
    if not name.endswith("/kernel"):
        return array
    if array.ndim == 2:
        return array.T
    return (array[::-1, ::-1] if "/dec/" in name else array).transpose(3, 2, 0, 1)
