"""Random numbers that follow from a key: part of an agent's state, so that what it decides follows from its state."""

import math

import torch
from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""SplitMix64's constants (Steele et al. 2014), as signed numbers."""


def keys(seeds: Tensor) -> Tensor:
    """Keys int64 `[B]` of seeds int64 `[B]`."""
    return _mixed(seeds * _GOLDEN)


def following(key: Tensor) -> Tensor:
    """Keys of what comes next."""
    return _mixed(key + _GOLDEN)


def normals(key: Tensor, draw: int, *shape: int) -> Tensor:
    """Standard normal numbers, float32 `[B, *shape]`, of keys int64 `[B]` and the number of a draw, from 0."""
    return (math.sqrt(2) * torch.erfinv(2 * uniforms(key, draw, *shape) - 1)).float()


def uniforms(key: Tensor, draw: int, *shape: int) -> Tensor:
    """Numbers between 0 and 1, float64 `[B, *shape]`."""
    count = math.prod(shape)
    numbers = torch.arange(draw * count + 1, (draw + 1) * count + 1, device=key.device)
    bits = _mixed(_mixed(key)[:, None] + numbers * _GOLDEN)
    return ((_shifted(bits, 11) + 0.5) * 2.0**-53).unflatten(1, shape) if shape else _shifted(bits, 11)[:, 0] * 2.0**-53


def _mixed(number: Tensor) -> Tensor:
    number = (number ^ _shifted(number, 30)) * _MIX1
    number = (number ^ _shifted(number, 27)) * _MIX2
    return number ^ _shifted(number, 31)


def _shifted(number: Tensor, bits: int) -> Tensor:
    """Shifted right, with zeros from the left, as unsigned numbers are."""
    return (number >> bits) & ((1 << (64 - bits)) - 1)
