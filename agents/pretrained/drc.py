"""The published DRCs of Taufeeque et al. 2024, "Planning in a recurrent neural network that plays Sokoban" (arXiv
2407.15421), as train-learned-planner saves them: a folder with `cfg.json` and `model`, the latter written by Flax.

A kernel is there height x width x in x out, and the last layer is flattened with its channels last.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.impala.agent import make_agent
from rl_interp.agents.impala.config import IMPALAConfig, published_drc
from rl_interp.agents.impala.drc import DRC
from rl_interp.agents.pretrained.flax_msgpack import Array, read_flax
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.errors import RunError
from rl_interp.core.read import read_json, reading
from rl_interp.core.weights import Held, with_weights

REMEDY = "give a folder of train-learned-planner's, with cfg.json and model"
_COMPUTED = {
    "skip_final": True, "residual": False, "use_relu": False, "normalize_input": False, "head_scale": 1.0,
    "recurrent.pool_and_inject": "horizontal", "recurrent.pool_projection": "per-channel",
    "recurrent.output_activation": "tanh", "recurrent.forget_bias": 0.0, "recurrent.fence_pad": "valid",
}  # fmt: skip
"""What the network's configuration must say, as that of the published ones does."""


def read_checkpoint(folder: Path | str) -> tuple[int, int, dict[str, NDArray[Any]]]:
    """A checkpoint's steps, ticks, and parameters by their names there, such as `network_params/conv_list_0/bias`.

    Raises:
        RunError: there is no checkpoint in the folder, or one of a different kind.
    """
    folder = Path(folder)
    if not (folder / "cfg.json").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/cfg.json"))
        hint = f"; it has the checkpoints {', '.join(inside)}: give one of them" if inside else f"; {REMEDY}"
        raise RunError(f"{folder} has no cfg.json{hint}.")
    config = read_json(folder / "cfg.json", REMEDY)
    with reading(folder / "cfg.json", REMEDY, "is not such a configuration"):
        net = config.get("cfg", config)["net"]
        _require_published(net, folder)
        ticks = int(net["repeats_per_step"])
    tree = read_flax(folder / "model", REMEDY)
    with reading(folder / "model", REMEDY, "holds no parameters of a DRC"):
        found = {name: array.numpy() for name, array in _flat(tree["params"]["params"]).items()}
    steps = re.search(r"cp_(\d+)", folder.resolve().name)
    return int(steps[1]) if steps else 0, ticks, found


def agent_of(
    arrays: Mapping[str, NDArray[Any]], ticks: int, env: SokobanConfig, source: Path | str
) -> tuple[IMPALAConfig, DRC]:
    """The configuration and the agent of a checkpoint's parameters, whose layers and widths are theirs.

    Raises:
        RunError: parameters that are missing, not a DRC's, or of another size than the boards of `env`.
    """
    with reading(source, REMEDY, "holds no parameters of a DRC"):
        weights = {ours: torch.from_numpy(_laid_out(name, array)) for name, array in arrays.items()
                   for ours in [_our_name(name)]}  # fmt: skip
        layers = 1 + max(int(found[1]) for name in arrays if (found := re.search(r"cell_list_(\d+)/", name)))
        channels = len(weights["encoder.conv1.bias"])
        weights["fc.weight"] = _head(weights["fc.weight"], channels, env, source)
        config = published_drc(env, layers=layers, ticks=ticks, channels=(channels,), hidden=len(weights["fc.bias"]))
    agent = with_weights(lambda: make_agent(config), Held(weights, source), source)
    assert isinstance(agent, DRC)
    return config, agent.eval()


def _require_published(net: Mapping[str, Any], folder: Path) -> None:
    for name, wanted in _COMPUTED.items():
        part, _, option = name.rpartition(".")
        given = (net[part] if part else net).get(option, wanted)
        if given != wanted:
            raise RunError(
                f"{folder} is of a network with {name} {given!r}, where that of the published DRCs is {wanted!r}; "
                "other networks are not read."
            )


def _flat(tree: Any, path: str = "") -> dict[str, Array]:
    if isinstance(tree, Array):
        return {path[1:]: tree}
    return {name: array for key, value in tree.items() for name, array in _flat(value, f"{path}/{key}").items()}


_NAMES = {
    r"network_params/conv_list_(\d)/(\w+)": lambda m: f"encoder.conv{int(m[1]) + 1}.{_KINDS[m[2]]}",
    r"network_params/cell_list_(\d+)/(ih|hh|fence)/(\w+)": lambda m: f"layers.{m[1]}.{_CONVS[m[2]]}.{_KINDS[m[3]]}",
    r"network_params/cell_list_(\d+)/project": lambda m: f"layers.{m[1]}.pool",
    r"network_params/dense_list_0/(\w+)": lambda m: f"fc.{_KINDS[m[1]]}",
    r"(actor|critic)_params/Output/(\w+)": lambda m: f"{_HEADS[m[1]]}.{_KINDS[m[2]]}",
}
_KINDS = {"kernel": "weight", "bias": "bias"}
_CONVS = {"ih": "inputs", "hh": "hidden", "fence": "fence"}
_HEADS = {"actor": "policy", "critic": "baseline"}


def _our_name(name: str) -> str:
    for theirs, ours in _NAMES.items():
        if match := re.fullmatch(theirs, name):
            return ours(match)
    raise ValueError(f"it has {name[:80]!r}")


def _laid_out(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """An array with its axes in PyTorch's order."""
    array = array.astype(np.float32)
    if name.endswith("fence/kernel"):
        array = array.sum(2, keepdims=True)  # where its input had several channels, they were all the same
    if name.endswith("/kernel"):
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return np.ascontiguousarray(array)


def _head(weight: Tensor, channels: int, env: SokobanConfig, source: Path | str) -> Tensor:
    """The fully connected layer's weights of a board flattened with its channels first."""
    height, width = env.observation_shape[1:]
    if weight.shape[1] != height * width * channels:
        raise RunError(
            f"{source} is for boards of {weight.shape[1] // channels} cells, and the environment's have {height} x "
            f"{width}; give the size that it was trained on (--rows, --columns)."
        )
    return weight.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2).flatten(1).contiguous()
