"""What turns an observation into features, by what the observation is: the parts that DQN and IMPALA share.

An encoder is a chain of named layers, so that a network can have it as a submodule (IMPALA's `torso`) or its layers
among its own (DQN's `conv1`). DreamerV3's, of the published layers and names, are in its own folder.
"""

import itertools
from collections.abc import Callable, Mapping
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from rl_interp.agents.max_pool import MaxPool2d
from rl_interp.core.agent import HookPoint

CHANNELS = (16, 32, 32)
"""Of the ResNet's sections, as published."""
NATURE_SIDE = 36
"""Pixels along the shorter side of the smallest picture that the Nature CNN's convolutions fit into."""


class Encoder(nn.Sequential):
    """Observations `[B, ...]` to features `[B, ...]`, `width` numbers each, through `layers` in their order.

    Args:
        points: name to the layer, or the path from here, and the axes of its value.
        shape: of the features.
    """

    def __init__(self, layers: Mapping[str, nn.Module], points: Mapping[str, tuple[str, str]], shape: tuple[int, ...]):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.width = prod(shape)
        self._points = points
        # Channels last is the layout that CPU and tensor-core convolutions compute in.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def points(self, path: str = "") -> dict[str, HookPoint]:
        """Its hook points, where the encoder or its layers are at `path`, which ends in a dot or is empty."""
        return {
            name: HookPoint(path + layer, axes, "spatial" if "H" in axes else "vector")
            for name, (layer, axes) in self._points.items()
        }


def encoder(
    shape: tuple[int, ...],
    categories: tuple[int, ...] | None,
    pictures: Callable[[tuple[int, ...]], Encoder],
    width: int,
) -> Encoder:
    """The encoder of observations of a shape: `pictures` makes the one of pixels.

    Args:
        shape: `(D,)` of vectors, `(C, H, W)` of pixels and symbols.
        categories: how many each channel has, where bytes are categories.
        width: of the hidden layer, for vectors.
    """
    if len(shape) == 1:
        return vector_net(shape, width)
    return pictures(shape) if categories is None else symbol_net(shape, categories)


def observation_kind(
    shape: tuple[int, ...], categories: tuple[int, ...] | None
) -> Literal["pixels", "symbols", "vector"]:
    """What observations of a shape are; see `encoder`."""
    if len(shape) == 1:
        return "vector"
    return "pixels" if categories is None else "symbols"


def in_float32(head: nn.Linear, features: Tensor) -> Tensor:
    """A last layer's outputs in float32, or in float64 if it computes in that; not in bf16, by whose 8 binary digits a
    value of 1 would be rounded by .004, as much as a step may change it or one action differ from another."""
    with torch.autocast(features.device.type, enabled=False):
        out = head(features.to(head.weight.dtype))
        return out if out.dtype == torch.float64 else out.float()


def nature_cnn(shape: tuple[int, ...]) -> Encoder:
    """Pictures through three convolutions: Mnih et al. (2015) in the sizes of DuPlessie & Gritsevskiy (2024), 32-64-32
    channels."""
    layers: dict[str, nn.Module] = {"scale": Scale()}
    size, inputs = shape[1:], shape[0]
    for i, (outputs, kernel, stride) in enumerate(((32, 8, 4), (64, 4, 2), (32, 3, 1)), 1):
        layers |= {f"conv{i}": nn.Conv2d(inputs, outputs, kernel, stride), f"relu{i}": nn.ReLU()}
        size, inputs = tuple((side - kernel) // stride + 1 for side in size), outputs
    return Encoder(layers, _both_sides("conv", "relu", (1, 2, 3)), (inputs, *size))


def resnet(
    shape: tuple[int, ...], channels: tuple[int, ...] = CHANNELS, cell: tuple[int, int] | None = None
) -> Encoder:
    """Pictures of any size through sections of a convolution, a max-pool and two residual blocks: the deep network of
    Espeholt et al. (2018), figure 3. Every section halves the picture, but for cells.

    Args:
        cell: where the picture shows a grid, pixels along a cell, and above and left of the first: then the first
            convolution sees each cell alone and nothing is pooled, so that a layer's positions are the cells. Pixels
            beyond the last whole cell are not seen.
    """
    widths, size = [shape[0], *channels], shape[1:]
    if cell is None:
        sections = [_Section(nn.Conv2d(a, b, 3, padding=1), MaxPool2d()) for a, b in itertools.pairwise(widths)]
        for _ in channels:
            size = tuple(-(-side // 2) for side in size)
    else:
        side, margin = cell
        size = tuple((pixels - margin) // side for pixels in size)
        convs = [nn.Conv2d(shape[0], channels[0], side, side)]
        convs += [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(channels)]
        sections = [_Section(conv) for conv in convs]
    points = {
        f"block{s + 1}.{name}": (f"sections.{s}.{path}", "B C H W")
        for s, section in enumerate(sections)
        for name, path in section.places()
    }
    layers: dict[str, nn.Module] = {"scale": Scale()}
    if cell is not None and cell[1]:
        layers["margin"] = nn.ZeroPad2d((-cell[1], 0, -cell[1], 0))  # cut off
    layers |= {"sections": nn.Sequential(*sections), "relu": nn.ReLU()}
    return Encoder(layers, points | {"torso.post": ("relu", "B C H W")}, (widths[-1], *size))


def symbol_net(shape: tuple[int, ...], categories: tuple[int, ...], width: int = 32) -> Encoder:
    """Cells embedded by each of their categories, the embeddings summed, and two convolutions, which take a cell from
    every side each."""
    layers = {
        "one_hot": OneHot(categories),
        "embed": nn.Conv2d(sum(categories), width, 1, bias=False),
        "conv1": nn.Conv2d(width, width, 3),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(width, 2 * width, 3),
        "relu2": nn.ReLU(),
    }
    points = {"embed": ("embed", "B C H W"), **_both_sides("conv", "relu", (1, 2))}
    return Encoder(layers, points, (2 * width, *(side - 4 for side in shape[1:])))


def vector_net(shape: tuple[int, ...], width: int) -> Encoder:
    """Numbers of any scale through a hidden layer."""
    layers = {"symlog": Symlog(), "mlp1": nn.Linear(*shape, width), "relu1": nn.ReLU()}
    return Encoder(layers, {"mlp1.pre": ("mlp1", "B D"), "mlp1.post": ("relu1", "B D")}, (width,))


class Scale(nn.Module):
    """Pictures `[B, C, H, W]`, bytes or floats on the same 0-255 scale, to [0, 1] in the type of the weights."""

    def __init__(self):
        super().__init__()
        self.register_buffer("largest", torch.tensor(255.0, device="cpu"), persistent=False)  # converted as weights are

    def forward(self, obs: Tensor) -> Tensor:
        assert isinstance(self.largest, Tensor)
        kind = obs.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.largest.dtype
        # Laid out while the pixels are bytes, and straight to the type computed in: the least memory touched.
        return obs.contiguous(memory_format=torch.channels_last).to(dtype) * (1 / 255)


class OneHot(nn.Module):
    """Categories `[B, C, H, W]`, of `categories[c]` kinds in channel c, to zeros and ones `[B, sum(categories), H, W]`
    with channels last in memory."""

    def __init__(self, categories: tuple[int, ...]):
        super().__init__()
        self.total = sum(categories)
        # Not a weight, so in no checkpoint: given values even where weights are made without memory to be loaded later.
        offsets = torch.tensor([0, *itertools.accumulate(categories[:-1])], device="cpu")[:, None, None]
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        assert isinstance(self.offsets, Tensor)
        zeros = torch.zeros(len(obs), *obs.shape[-2:], self.total, device=obs.device)
        return zeros.scatter_(-1, (obs.long() + self.offsets).permute(0, 2, 3, 1), 1.0).permute(0, 3, 1, 2)


class Symlog(nn.Module):
    """sign(x) · ln(1 + |x|) in float32: near x for small numbers, and never large (Hafner et al. 2023, eq. 9)."""

    def forward(self, x: Tensor) -> Tensor:
        return symlog(x.float())


def symlog(x: Tensor) -> Tensor:
    """sign(x) · ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def _both_sides(before: str, after: str, numbers: tuple[int, ...]) -> dict[str, tuple[str, str]]:
    """The points `conv1.pre`, `conv1.post` and so on: before and after the nonlinearity of each convolution."""
    return {
        f"{before}{i}.{when}": (f"{layer}{i}", "B C H W")
        for i in numbers
        for when, layer in (("pre", before), ("post", after))
    }


class _Section(nn.Module):
    """A convolution, perhaps a pool, and two residual blocks."""

    def __init__(self, conv: nn.Conv2d, pool: nn.Module | None = None):
        super().__init__()
        self.conv, self.pool = conv, pool
        self.res1, self.res2 = _Residual(conv.out_channels), _Residual(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.res2(self.res1(x if self.pool is None else self.pool(x)))

    def places(self) -> tuple[tuple[str, str], ...]:
        """Names and paths of its hook points."""
        first = (("conv", "conv"),) if self.pool is None else (("conv", "conv"), ("pool", "pool"))
        return (*first, *_Residual.places(1), *_Residual.places(2))


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.relu1, self.conv1 = nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        self.relu2, self.conv2 = nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.relu2(self.conv1(self.relu1(x))))

    @staticmethod
    def places(number: int) -> tuple[tuple[str, str], ...]:
        """Name and path of its hook points: before and after the inner nonlinearity, and the sum."""
        name = f"res{number}"
        return ((f"{name}.pre", f"{name}.conv1"), (f"{name}.post", f"{name}.relu2"), (f"{name}.sum", name))
