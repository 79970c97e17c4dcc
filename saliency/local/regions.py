"""What masks change of a layer: `Products` of an image, and `Regions` of what follows from it."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from rl_interp.saliency.local import loops
from rl_interp.saliency.local.products import COLUMNS

Geometry = tuple[int, int, int, int, int, int]
"""Kernel, stride and padding, each of rows and columns."""


@dataclass(frozen=True)
class Filters:
    """Those of a convolution, or of a linear layer, whose windows are all of the layer before."""

    weight: Tensor
    shape: tuple[int, int, int, int]
    """Outputs, inputs, kernel rows and columns, which the weight's numbers are in the order of."""

    @property
    def stored(self) -> int:
        """Channels of what it gives."""
        return -(-self.shape[0] // COLUMNS) * COLUMNS

    def packed(self, inputs: int) -> NDArray[np.float32]:
        """For products with values of so many channels: `[channels / 16, kernel rows, kernel columns, inputs, 16]`,
        flat, with zeros for channels that there are not. Packed once, and again when the weight's numbers are others.
        """
        held = _PACKED.get(self.weight)
        if held is None or not torch.equal(held[0], self.weight):
            weight = self.weight.detach().reshape(self.shape)
            weight = F.pad(weight, (0, 0, 0, 0, 0, inputs - self.shape[1], 0, self.stored - self.shape[0]))
            panels = weight.unflatten(0, (-1, COLUMNS)).permute(0, 3, 4, 2, 1).contiguous()
            held = _PACKED[self.weight] = self.weight.detach().clone(), panels.flatten().numpy()
        return held[1]


_PACKED = WeakTensorKeyDictionary()
"""By weight, its numbers when it was packed, and them packed."""


@dataclass(frozen=True)
class Products:
    """Changes of an image: for each mask, `change` times a profile of rows and one of columns. Masks are in the order
    of their columns first."""

    change: NDArray[np.float32]
    """`[H, W, C]`."""
    rows: NDArray[np.float32]
    """`[R, H]`."""
    columns: NDArray[np.float32]
    """`[K, W]`."""

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def scaled(self, factor: float) -> "Products":
        return Products(self.change * np.float32(factor), self.rows, self.columns)

    def convolved(self, filters: Filters, geometry: Geometry, shape: tuple[int, int]) -> "Regions":
        """By some filters, to a layer of `shape`."""
        packed = filters.packed(self.change.shape[2])
        rows, columns = (np.array([_reach(each) for each in profiles]) for profiles in (self.rows, self.columns))
        boxes = np.concatenate([np.tile(rows, (len(columns), 1)), columns.repeat(len(rows), 0)], 1)
        out = Regions.empty(_windows(boxes, geometry, shape), filters.stored)
        loops.convolve_products(
            out.parts,
            self.change,
            self.rows,
            self.columns,
            columns,
            packed,
            geometry,
            out.boxes,
            out.starts,
            out.values,
        )
        return out


@dataclass(frozen=True)
class Sums:
    """Changes of an image, each the sum of some of a few parts: convolutions, being linear, are of the parts."""

    parts: Tensor
    """`[J, C, H, W]`."""
    present: Tensor
    """`[N, J]`: 1 where a change has a part, else 0."""

    def __len__(self) -> int:
        return len(self.present)

    def scaled(self, factor: float) -> "Sums":
        return Sums(self.parts * factor, self.present)

    def convolved(self, weight: Tensor, stride: Any, padding: Any) -> Tensor:
        """`[N, ...]`: the change of a convolution."""
        parts = F.conv2d(self.parts, weight, None, stride, padding)
        return (self.present @ parts.flatten(1)).unflatten(1, parts.shape[1:])


@dataclass(frozen=True)
class Regions:
    """Changes of a layer, for each of N masks in a box of its own; see `loops`."""

    values: NDArray[np.float32]
    boxes: NDArray[np.int64]
    starts: NDArray[np.int64]
    channels: int
    """As stored."""

    @staticmethod
    def empty(boxes: NDArray[np.int64], channels: int) -> "Regions":
        """Not filled yet."""
        starts = np.concatenate([[0], np.cumsum(_areas(boxes) * channels)])
        return Regions(np.empty(starts[-1], np.float32), boxes, starts, channels)

    @staticmethod
    def between(base: Tensor, images: Tensor) -> "Regions":
        """What `images [N, C, H, W]` have otherwise than `base [1, C, H, W]`, both float32."""
        change = (images - base).permute(0, 2, 3, 1)
        there = (change != 0).any(3)
        boxes = np.array([[*_reach(each.any(1).numpy()), *_reach(each.any(0).numpy())] for each in there], np.int64)
        found = Regions.empty(boxes, images.shape[1])
        for n, (top, bottom, left, right) in enumerate(boxes):
            found.values[found.starts[n] : found.starts[n + 1]] = change[n, top:bottom, left:right].flatten().numpy()
        return found

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def parts(self) -> NDArray[np.int64]:
        """Bounds of the masks that each thread works on."""
        return loops.parts_of(self.starts)

    def scaled(self, factor: float) -> "Regions":
        return replace(self, values=self.values * np.float32(factor))

    def convolved(self, filters: Filters, geometry: Geometry, shape: tuple[int, int]) -> "Regions":
        """See `Products.convolved`."""
        packed = filters.packed(self.channels)
        out = Regions.empty(_windows(self.boxes, geometry, shape), filters.stored)
        loops.convolve(
            out.parts, self.values, self.boxes, self.starts, self.channels, packed, geometry, out.values, out.boxes,
            out.starts,
        )  # fmt: skip
        return out

    def rectified(self, base: Tensor) -> "Regions":
        """The change of max(x, 0), where x was `base [1, C, H, W]`."""
        out = np.empty_like(self.values)
        loops.rectify(*self._shared(), self._stored(base), out)
        return replace(self, values=out)

    def pooled(self, base: Tensor, after: Tensor, geometry: Geometry) -> "Regions":
        """The change of a max-pool, of `base [1, C, H, W]` to `after`."""
        shape = (after.shape[2], after.shape[3])
        out = Regions.empty(_windows(self.boxes, geometry, shape), self.channels)
        loops.pool(
            *self._shared(), self._stored(base), self._stored(after), geometry, out.values, out.boxes, out.starts
        )
        return out

    def plus(self, other: "Regions") -> "Regions":
        """The change of a sum."""
        low, high = np.minimum(self.boxes, other.boxes), np.maximum(self.boxes, other.boxes)
        boxes = np.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], 1)
        out = Regions.empty(boxes, self.channels)
        out.values[:] = 0
        for each in (self, other):
            loops.add_into(*each._shared(), self.channels, out.values, out.boxes, out.starts)
        return out

    def vectors(self, width: int) -> Tensor:
        """`[N, width]`, of regions that are one position each, or none."""
        found = torch.zeros(len(self), width)
        there = torch.from_numpy(np.diff(self.starts) > 0)
        found[there] = torch.from_numpy(self.values).view(-1, self.channels)[:, :width]
        return found

    def added_to(self, base: Tensor) -> Tensor:
        """`[N, C, H, W]`: all of the layer for each mask, `base [1, C, H, W]` with what changed."""
        layer = base[0].permute(1, 2, 0).contiguous().numpy()
        out = np.empty((len(self), *layer.shape), np.float32)
        parts, values, boxes, starts = self._shared()
        loops.add_to_copies(parts, values, boxes, starts, self.channels, layer, out)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _shared(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        return self.parts, self.values, self.boxes, self.starts

    def _stored(self, base: Tensor) -> NDArray[np.float32]:
        """`[H, W, channels]`, of `[1, C, H, W]`."""
        layer = base[0].permute(1, 2, 0)
        if layer.shape[2] < self.channels:
            layer = F.pad(layer, (0, self.channels - layer.shape[2]))
        return layer.contiguous().numpy()


def _areas(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    return (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])


def _reach(profile: NDArray[Any]) -> tuple[int, int]:
    """Where it begins and ends to be anything but 0."""
    there = np.flatnonzero(profile)
    return (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)


def _windows(boxes: NDArray[np.int64], geometry: Geometry, shape: tuple[int, int]) -> NDArray[np.int64]:
    """The boxes of the positions, in a layer of `shape`, whose windows reach into `boxes`."""
    found = np.empty_like(boxes)
    for axis in (0, 1):
        kernel, stride, padding = geometry[axis::2]
        low, high = boxes[:, 2 * axis] + padding, boxes[:, 2 * axis + 1] + padding
        first, end = np.maximum(0, -((kernel - 1 - low) // stride)), np.minimum(shape[axis], (high - 1) // stride + 1)
        there = (low < high) & (first < end)
        found[:, 2 * axis], found[:, 2 * axis + 1] = first * there, end * there
    return found
