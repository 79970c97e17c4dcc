"""What the policies of Stable-Baselines3 and CleanRL are made of: the parts of an observation, and hidden layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from rl_interp.core.agent import HookPoint

ACTIVATIONS = (
    "ReLU", "Tanh", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "LeakyReLU", "ReLU6", "Sigmoid", "LogSigmoid",
    "Softplus", "Softsign", "Hardtanh", "Hardswish", "Hardsigmoid", "Tanhshrink",
)  # fmt: skip
"""Classes of `torch.nn` without weights that work number by number, with the arguments that are their defaults."""
KERNELS = ((8, 4), (4, 2), (3, 1))
"""Side and stride of the three convolutions of Mnih et al. 2015."""


@dataclass(frozen=True)
class Input:
    """A part of an observation: a key of a Dict space, or all of it."""

    shape: tuple[int, ...]
    """As the network sees it; of an image, channels first."""
    name: str = ""
    """Its key; empty where it is all."""
    channels_last: bool = False
    """Whether it is an image that lies in a flat observation with its channels last."""
    divisor: float = 1.0
    """Its numbers are divided by this, those of images mostly by 255."""
    clip: float = 0.0
    """Where its numbers are normalised by a mean and a deviation, the largest that is let through; 0 where not."""
    channels: tuple[int, ...] = ()
    """Of three convolutions that read it; none where it passes as it is."""
    features: int = 0
    """Width of the layer after the convolutions."""


class Parts(nn.Module):
    """Observations `[B, ...]` to features `[B, width]`: each part through its layers, all of them side by side.

    An observation that is one part has its shape; parts of several lie one after the other in a vector.
    """

    def __init__(self, inputs: Sequence[Input]):
        super().__init__()
        self.inputs = tuple(inputs)
        self.parts = nn.ModuleList(map(Part, inputs))
        self.width = sum(each.features or prod(each.shape) for each in inputs)
        self.joined = nn.Identity() if len(inputs) > 1 else None

    def forward(self, obs: Tensor) -> Tensor:
        if self.joined is None:
            return self.parts[0](obs)
        pieces = obs.split([prod(each.shape) for each in self.inputs], -1)
        return self.joined(torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=True)], -1))

    def points(self, head: str | None) -> Iterator[tuple[str, HookPoint]]:
        """`conv1.pre`, `fc.post` and so on, with the key before them where there are several parts; `head` is the path
        of the layer that reads the features, where effects through it are exact."""
        for i, part in enumerate(self.parts):
            assert isinstance(part, Part)
            for name, point in part.points(f"parts.{i}", None if self.joined else head):
                yield (f"{part.input.name}.{name}" if part.input.name else name), point
        if self.joined is not None:
            yield "features", HookPoint("joined", "B D", head=head)


class Hidden(nn.Module):
    """Linear layers with a nonlinearity after each but the last, `[B, inputs]` to `[B, outputs]`."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: str):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((inputs, *hidden)))
        self.activations = nn.ModuleList(getattr(nn, activation)() for _ in hidden)
        self.out = nn.Linear(hidden[-1] if hidden else inputs, outputs)

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer reads."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x))

    def points(self, head: str | None) -> Iterator[tuple[str, HookPoint]]:
        """`h1.pre`, `h1.post` and so on. `head` is the path of the last layer where effects through it are exact."""
        for i in range(len(self.layers)):
            last = i + 1 == len(self.layers)
            yield f"h{i + 1}.pre", HookPoint(f"layers.{i}", "B D")
            yield f"h{i + 1}.post", HookPoint(f"activations.{i}", "B D", head=head if last else None)


class Part(nn.Module):
    """One of the parts, `[B, ...]` to `[B, width]`."""

    mean: Tensor
    std: Tensor

    def __init__(self, input: Input):
        super().__init__()
        self.input = input
        if input.clip:
            # Vectors are flat, whatever shape the environment had them in.
            self.register_buffer("mean", torch.empty(prod(input.shape)))
            self.register_buffer("std", torch.empty(prod(input.shape)))
            self.normalised = nn.Identity()
        if input.channels:
            _, *size = input.shape
            convolutions = []
            for (a, b), (side, stride) in zip(pairwise((input.shape[0], *input.channels)), KERNELS, strict=True):
                convolutions.append(nn.Conv2d(a, b, side, stride))
                size = [(each - side) // stride + 1 for each in size]
            self.conv1, self.conv2, self.conv3 = convolutions
            self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()
            self.fc = nn.Linear(input.channels[-1] * prod(size), input.features)
            # Channels last is the layout that CPU and tensor-core convolutions compute in.
            self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        input = self.input
        if input.channels_last:
            channels, height, width = input.shape
            x = x.unflatten(-1, (height, width, channels)).permute(0, 3, 1, 2)
        elif input.channels:
            x = x.view(len(x), *input.shape)
        if not x.is_floating_point():
            x = x.float()
        if input.divisor != 1:
            x = x / input.divisor
        if input.clip:
            x = ((x.flatten(1) - self.mean) / self.std).clamp(-input.clip, input.clip)
            x = self.normalised(x)
        if not input.channels:
            return x.flatten(1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.relu1(self.conv1(x))
        x = self.relu2(self.conv2(x))
        x = self.relu3(self.conv3(x))
        return self.relu4(self.fc(x.flatten(1)))

    def points(self, path: str, head: str | None) -> Iterator[tuple[str, HookPoint]]:
        if self.input.clip:
            yield "normalised", HookPoint(f"{path}.normalised", "B D", head=None if self.input.channels else head)
        if self.input.channels:
            for i in (1, 2, 3):
                yield f"conv{i}.pre", HookPoint(f"{path}.conv{i}", "B C H W", "spatial")
                yield f"conv{i}.post", HookPoint(f"{path}.relu{i}", "B C H W", "spatial")
            yield "fc.pre", HookPoint(f"{path}.fc", "B D")
            yield "fc.post", HookPoint(f"{path}.relu4", "B D", head=head)
