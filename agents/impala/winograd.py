"""3 x 3 convolutions of float32 boards on a CPU by Winograd's F(2 x 2, 3 x 3) (Lavin & Gray 2016, arXiv 1509.09308).

A tile of 4 x 4 inputs gives 2 x 2 outputs by 16 multiplications instead of 36: tiles are spread into 16 planes, in each
of which the convolution is one product over channels. Gradients are the transposes of the same steps.

Shape letters: B boards, H W cells, K tiles of all boards (B · ceil(H/2) · ceil(W/2)), I O channels in and out.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.compiled import compiled

_WEIGHTS = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
"""From 3 weights to the 4 that are multiplied with."""


def spread_weights(weight: Tensor) -> Tensor:
    """`[O, I, 3, 3]` -> `[16, I, O]`."""
    return torch.einsum("ay,oiyx,bx->abio", _WEIGHTS, weight, _WEIGHTS).flatten(0, 1).contiguous()


def gathered_weights(gradient: Tensor) -> Tensor:
    """The transpose of `spread_weights`: of a gradient `[16, I, O]`, that of the weights."""
    return torch.einsum("ay,abio,bx->oiyx", _WEIGHTS, gradient.unflatten(0, (4, 4)), _WEIGHTS)


def tiles(boards: NDArray[np.float32]) -> Tensor:
    """`[B, H, W, I]` -> `[16, K, I]`."""
    planes = _empty_planes(boards)
    _spread(boards, _tiled(planes, boards.shape[1:3]))
    return planes


def convolved(planes: Tensor, spread: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """`[B, H, W, O]`: the convolution, with zeros around the boards."""
    products = _tiled(torch.bmm(planes, spread), size)
    out = np.empty((products.shape[2], *size, spread.shape[2]), np.float32)
    _gather(products, out)
    return out


def gradients(d_out: NDArray[np.float32], planes: Tensor, spread: Tensor, d_spread: Tensor) -> NDArray[np.float32]:
    """From the gradient `[B, H, W, O]` of a convolution's output that of its input, `[B, H, W, I]`; that of its spread
    weights is added to `d_spread`.

    Args:
        planes: `tiles` of the input.
    """
    size = d_out.shape[1:3]
    d_products = _empty_planes(d_out)
    _spread_gradient(d_out, _tiled(d_products, size))
    d_spread.baddbmm_(planes.transpose(1, 2), d_products)
    d_planes = torch.bmm(d_products, spread.transpose(1, 2))
    d_in = np.zeros((*d_out.shape[:3], d_planes.shape[2]), np.float32)
    _gather_gradient(_tiled(d_planes, size), d_in)
    return d_in


def _empty_planes(boards: NDArray[np.float32]) -> Tensor:
    batch, height, width, channels = boards.shape
    return torch.empty(16, batch * ((height + 1) // 2) * ((width + 1) // 2), channels)


def _tiled(planes: Tensor, size: tuple[int, ...]) -> NDArray[np.float32]:
    """`[16, K, C]` as `[4, 4, B, tiles down, tiles right, C]`."""
    return planes.numpy().reshape(4, 4, -1, (size[0] + 1) // 2, (size[1] + 1) // 2, planes.shape[2])


# -- compiled: short loops over few arrays, which the compiler turns into vector instructions ------

_compiled = compiled(nogil=True, error_model="numpy", fastmath={"contract"})


@_compiled
def _spread(boards, planes):
    """B^T d B of each tile d, which begins a cell above and left of its outputs."""
    batch, height, width, channels = boards.shape
    tile, half = np.zeros((4, 4, channels), np.float32), np.empty((4, 4, channels), np.float32)
    for b in range(batch):
        for i in range(planes.shape[3]):
            for j in range(planes.shape[4]):
                for y in range(4):
                    for x in range(4):
                        row, column = 2 * i + y - 1, 2 * j + x - 1
                        for c in range(channels):
                            tile[y, x, c] = 0
                        if 0 <= row < height and 0 <= column < width:
                            for c in range(channels):
                                tile[y, x, c] = boards[b, row, column, c]
                for x in range(4):
                    for c in range(channels):
                        half[0, x, c] = tile[0, x, c] - tile[2, x, c]
                    for c in range(channels):
                        half[1, x, c] = tile[1, x, c] + tile[2, x, c]
                    for c in range(channels):
                        half[2, x, c] = tile[2, x, c] - tile[1, x, c]
                    for c in range(channels):
                        half[3, x, c] = tile[1, x, c] - tile[3, x, c]
                for y in range(4):
                    for c in range(channels):
                        planes[y, 0, b, i, j, c] = half[y, 0, c] - half[y, 2, c]
                    for c in range(channels):
                        planes[y, 1, b, i, j, c] = half[y, 1, c] + half[y, 2, c]
                    for c in range(channels):
                        planes[y, 2, b, i, j, c] = half[y, 2, c] - half[y, 1, c]
                    for c in range(channels):
                        planes[y, 3, b, i, j, c] = half[y, 1, c] - half[y, 3, c]


@_compiled
def _gather(products, out):
    """A^T m A of each tile's products m."""
    batch, height, width, channels = out.shape
    half = np.empty((2, 4, channels), np.float32)
    for b in range(batch):
        for i in range(products.shape[3]):
            for j in range(products.shape[4]):
                for x in range(4):
                    for c in range(channels):
                        both = products[1, x, b, i, j, c] + products[2, x, b, i, j, c]
                        half[0, x, c] = products[0, x, b, i, j, c] + both
                    for c in range(channels):
                        both = products[1, x, b, i, j, c] - products[2, x, b, i, j, c]
                        half[1, x, c] = both - products[3, x, b, i, j, c]
                for y in range(min(2, height - 2 * i)):
                    for c in range(channels):
                        out[b, 2 * i + y, 2 * j, c] = half[y, 0, c] + half[y, 1, c] + half[y, 2, c]
                    if 2 * j + 1 < width:
                        for c in range(channels):
                            out[b, 2 * i + y, 2 * j + 1, c] = half[y, 1, c] - half[y, 2, c] - half[y, 3, c]


@_compiled
def _spread_gradient(d_out, d_products):
    """The transpose of `_gather`: A d A^T of each tile's 2 x 2 gradients d."""
    batch, height, width, channels = d_out.shape
    given, half = np.zeros((2, 2, channels), np.float32), np.empty((4, 2, channels), np.float32)
    for b in range(batch):
        for i in range(d_products.shape[3]):
            for j in range(d_products.shape[4]):
                for y in range(2):
                    for x in range(2):
                        for c in range(channels):
                            given[y, x, c] = 0
                        if 2 * i + y < height and 2 * j + x < width:
                            for c in range(channels):
                                given[y, x, c] = d_out[b, 2 * i + y, 2 * j + x, c]
                for x in range(2):
                    for c in range(channels):
                        half[0, x, c] = given[0, x, c]
                    for c in range(channels):
                        half[1, x, c] = given[0, x, c] + given[1, x, c]
                    for c in range(channels):
                        half[2, x, c] = given[0, x, c] - given[1, x, c]
                    for c in range(channels):
                        half[3, x, c] = -given[1, x, c]
                for y in range(4):
                    for c in range(channels):
                        d_products[y, 0, b, i, j, c] = half[y, 0, c]
                    for c in range(channels):
                        d_products[y, 1, b, i, j, c] = half[y, 0, c] + half[y, 1, c]
                    for c in range(channels):
                        d_products[y, 2, b, i, j, c] = half[y, 0, c] - half[y, 1, c]
                    for c in range(channels):
                        d_products[y, 3, b, i, j, c] = -half[y, 1, c]


@_compiled
def _gather_gradient(d_planes, d_in):
    """The transpose of `_spread`, added to `d_in`: B d B^T of each tile's 4 x 4 gradients d."""
    batch, height, width, channels = d_in.shape
    half, tile = np.empty((4, 4, channels), np.float32), np.empty((4, 4, channels), np.float32)
    for b in range(batch):
        for i in range(d_planes.shape[3]):
            for j in range(d_planes.shape[4]):
                for x in range(4):
                    for c in range(channels):
                        half[0, x, c] = d_planes[0, x, b, i, j, c]
                    for c in range(channels):
                        half[3, x, c] = -d_planes[3, x, b, i, j, c]
                    for c in range(channels):
                        odd = d_planes[1, x, b, i, j, c] - d_planes[2, x, b, i, j, c]
                        half[1, x, c] = odd + d_planes[3, x, b, i, j, c]
                    for c in range(channels):
                        even = d_planes[1, x, b, i, j, c] + d_planes[2, x, b, i, j, c]
                        half[2, x, c] = even - d_planes[0, x, b, i, j, c]
                for y in range(4):
                    for c in range(channels):
                        tile[y, 0, c] = half[y, 0, c]
                    for c in range(channels):
                        tile[y, 1, c] = half[y, 1, c] - half[y, 2, c] + half[y, 3, c]
                    for c in range(channels):
                        tile[y, 2, c] = half[y, 1, c] + half[y, 2, c] - half[y, 0, c]
                    for c in range(channels):
                        tile[y, 3, c] = -half[y, 3, c]
                for y in range(4):
                    for x in range(4):
                        row, column = 2 * i + y - 1, 2 * j + x - 1
                        if 0 <= row < height and 0 <= column < width:
                            for c in range(channels):
                                d_in[b, row, column, c] += tile[y, x, c]
