"""Encoder, decoder and heads, as published: every layer a product, a layer norm and a SiLU.

Weights have the layout of the published package (images are flattened height, width, channel), so that its
checkpoints convert without a permutation of features.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from rl_interp.agents.dreamerv3.norm import LayerNorm
from rl_interp.agents.encoders import symlog
from rl_interp.core.agent import HookPoint

Points = list[tuple[str, HookPoint]]
"""Names of hook points and where they are, with paths relative to the module that lists them."""

Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d | nn.ConvTranspose2d)

_SMALLEST = 4  # height and width at which the encoder stops halving
RESIZED = 64
"""Height and width that pictures are resized to whose sides are not equal powers of two; Atari's as published."""


class Dense(nn.Module):
    """Product, layer norm, SiLU."""

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.linear = normal_init(nn.Linear(inputs, units, bias=False))
        self.norm, self.act = LayerNorm(units), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.linear(x))

    def finish(self, product: Tensor) -> Tensor:
        """What follows the product, for callers that compute the product in parts."""
        return self.act(self.norm(product))

    @staticmethod
    def points(name: str, path: str) -> Points:
        """Before and after the nonlinearity."""
        return [
            (f"{name}.pre", HookPoint(f"{path}.act", "B D", side="input")),
            (f"{name}.post", HookPoint(f"{path}.act", "B D")),
        ]


class MLP(nn.Module):
    """Layers, and a linear output if `outputs` is given. Inputs `[..., D]` of any leading shape."""

    def __init__(self, inputs: int, layers: int, units: int, outputs: int | None = None, scale: float = 1.0):
        super().__init__()
        self.layers = nn.ModuleList(Dense(units if i else inputs, units) for i in range(layers))
        self.out = None if outputs is None else uniform_init(nn.Linear(units, outputs), scale)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-1]
        x = x.flatten(0, -2)  # at hook points the leading axes are one
        for layer in self.layers:
            x = layer(x)
        return (x if self.out is None else self.out(x)).unflatten(0, lead)

    def points(self, name: str, path: str) -> Points:
        found = [p for i in range(len(self.layers)) for p in Dense.points(f"{name}.h{i}", f"{path}.layers.{i}")]
        return found if self.out is None else [*found, (f"{name}.out", HookPoint(f"{path}.out", "B D"))]


class _Stage(nn.Module):
    """A convolution of stride 2, halving or doubling, a layer norm over channels, a SiLU."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d):
        super().__init__()
        self.conv = normal_init(conv)
        self.norm, self.act = LayerNorm(conv.out_channels), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        channels_last = self.conv(x).permute(0, 2, 3, 1)  # as they lie in memory
        return self.act(self.norm(channels_last).permute(0, 3, 1, 2))


class ImageEncoder(nn.Module):
    """Images to vectors: halved until 4×4, the channels doubled each time."""

    def __init__(self, shape: Sequence[int], depth: int):
        super().__init__()
        count = stages(shape)
        widths = [shape[0], *(depth * 2**i for i in range(count))]
        self.stages = nn.ModuleList(_Stage(nn.Conv2d(a, b, 4, 2, 1, bias=False)) for a, b in itertools.pairwise(widths))
        self.width = widths[-1] * _SMALLEST**2
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` in [0, 1] to `[B, width]`."""
        x = (x - 0.5).contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
        return x.permute(0, 2, 3, 1).flatten(1)

    def points(self, name: str, path: str) -> Points:
        return _stage_points(len(self.stages), name, path)


class ImageDecoder(nn.Module):
    """Vectors to images: from 4×4 doubled, the channels halved each time."""

    def __init__(self, inputs: int, shape: Sequence[int], depth: int):
        super().__init__()
        count = stages(shape)
        widths = [depth * 2**i for i in reversed(range(count))]
        self.first = uniform_init(nn.Linear(inputs, widths[0] * _SMALLEST**2))
        self.stages = nn.ModuleList(
            _Stage(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)) for a, b in itertools.pairwise(widths)
        )
        self.last = uniform_init(nn.ConvTranspose2d(widths[-1], shape[0], 4, 2, 1))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D]` to predicted images `[B, C, H, W]` on the scale [0, 1]."""
        x = self.first(x).unflatten(1, (_SMALLEST, _SMALLEST, -1)).permute(0, 3, 1, 2)
        for stage in self.stages:
            x = stage(x)
        return self.last(x).float() + 0.5

    def points(self, name: str, path: str) -> Points:
        return [(f"{name}.in", HookPoint(f"{path}.first", "B D")), *_stage_points(len(self.stages), name, path)]


class VectorEncoder(MLP):
    """Vectors of any scale to vectors: an MLP of their symlog."""

    def __init__(self, inputs: int, layers: int, units: int):
        super().__init__(inputs, layers, units)
        self.width = units

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(symlog(x))


def _stage_points(count: int, name: str, path: str) -> Points:
    places = [(f"{name}.s{i}", f"{path}.stages.{i}.act") for i in range(count)]
    return [
        point
        for stage, act in places
        for point in (
            (f"{stage}.pre", HookPoint(act, "B C H W", "spatial", "input")),
            (f"{stage}.post", HookPoint(act, "B C H W", "spatial")),
        )
    ]


def to_compute(x: Tensor) -> Tensor:
    """`x` in the type that autocast would convert it to at every product: converted once, and kept."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def picture_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of pictures `(C, H, W)` as they are encoded and predicted: their own where it can be halved until 4×4,
    else resized."""
    channels, height, width = shape
    fits = height == width and height >= 2 * _SMALLEST and not height & (height - 1)
    return shape if fits else (channels, RESIZED, RESIZED)


def stages(shape: Sequence[int]) -> int:
    """How often an image `(C, H, W)` is halved."""
    return int(math.log2(shape[-1] // _SMALLEST))


def _mean_fan(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    weight = layer.weight
    return (weight.shape[0] + weight.shape[1]) / 2 * weight[0, 0].numel()


def normal_init(layer: Layer) -> Layer:
    """Truncated normal weights with the variance 1 / mean of the fans (before truncation at two deviations)."""
    deviation = _mean_fan(layer) ** -0.5 / 0.87962566103423978
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    return layer


def uniform_init(layer: Layer, scale: float = 1.0) -> Layer:
    """Uniform weights with the variance scale / mean of the fans; no bias at start."""
    limit = math.sqrt(3 * scale / _mean_fan(layer))
    nn.init.uniform_(layer.weight, -limit, limit)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
