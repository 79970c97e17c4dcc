"""Stable-Baselines3's `VecNormalize` statistics, which rl-zoo saves as vecnormalize.pkl: a bare pickle, of which numpy
arrays and plain containers are read and nothing is called."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.pretrained.pickles import Array, Object, read_pickle
from rl_interp.agents.pretrained.policy import PolicyConfig
from rl_interp.core.errors import RunError
from rl_interp.core.read import reading

REMEDY = "give the .pkl that VecNormalize.save wrote"
_CLASSES = {
    r"stable_baselines3\.common\.\S+ (VecNormalize|RunningMeanStd)": Object,
    r"gym(nasium)?\.spaces\.\S+ \w+": Object,
    r"numpy\.random\.\S+ \w+": Object,
    r"collections OrderedDict": dict,
}
"""Statistics; and spaces with their generators, which are passed over."""


@dataclass(frozen=True)
class Statistics:
    """What observations are normalised by: (x - mean) / std, clipped."""

    mean: Mapping[str, Tensor]
    """Flat, by the key of the observation; "" where it is no Dict."""
    std: Mapping[str, Tensor]
    clip: float


def read_statistics(path: Path) -> Statistics | None:
    """The statistics of a file; None where it normalises rewards alone.

    Raises:
        RunError: the file is no such pickle, or holds anything else.
    """
    saved = read_pickle(path, REMEDY, "file of VecNormalize's", _CLASSES)
    with reading(path, REMEDY, "is no file of VecNormalize's"):
        values = saved.attributes
        if not values["norm_obs"]:
            return None
        by_key = values["obs_rms"] if isinstance(values["obs_rms"], dict) else {"": values["obs_rms"]}
        mean = {str(key): _array(each.attributes["mean"]) for key, each in by_key.items()}
        variance = {str(key): _array(each.attributes["var"]) for key, each in by_key.items()}
        epsilon = _number(values["epsilon"])
        std = {key: np.sqrt(each + epsilon) for key, each in variance.items()}
        statistics = Statistics(_tensors(mean), _tensors(std), _number(values["clip_obs"]))
        if not statistics.clip > 0 or not all(each.min() > 0 for each in statistics.std.values()):
            raise ValueError("its variances are not positive")
    return statistics


def normalised(
    config: PolicyConfig, weights: Mapping[str, Tensor], statistics: Statistics, source: Path
) -> tuple[PolicyConfig, dict[str, Tensor]]:
    """A policy whose observations are normalised first.

    Raises:
        RunError: the statistics are of other observations, or of images.
    """
    inputs, added = [], {}
    unknown = set(statistics.mean) - {each.name for each in config.inputs}
    if unknown:
        raise RunError(f"{source} normalises {sorted(unknown)}, which {config.env.id} does not show; {REMEDY}.")
    for i, each in enumerate(config.inputs):
        if each.name not in statistics.mean:
            inputs.append(each)
            continue
        mean, std = statistics.mean[each.name], statistics.std[each.name]
        if each.channels or each.divisor != 1 or len(mean) != prod(each.shape) or len(std) != len(mean):
            raise RunError(
                f"{source} normalises {len(mean)} numbers, where {each.name or config.env.id} has {each.shape}; give "
                "the statistics that were saved with the model."
            )
        inputs.append(replace(each, clip=statistics.clip))
        for parts in ("parts", *(["value_parts"] if config.own_value_parts else [])):
            added |= {f"{parts}.parts.{i}.mean": mean, f"{parts}.parts.{i}.std": std}
    return replace(config, inputs=tuple(inputs)), {**weights, **added}


def _array(value: Any) -> np.ndarray:
    array = value.numpy() if isinstance(value, Array) else None
    if array is None or not (np.abs(array.astype(np.float64)) <= np.finfo(np.float32).max).all():
        raise ValueError("its statistics are no numbers of 32 bits")
    return array.astype(np.float64).reshape(-1)


def _number(value: Any) -> float:
    return float(_array(value)[0]) if isinstance(value, Array) else float(value)


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(array.astype(np.float32)) for key, array in arrays.items()}
