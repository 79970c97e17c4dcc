"""Triton's loops over the active pairs of a batch. Shape letters as in `pairs.py`; pairs lie row by row, as in a CSR
matrix.

Every output is summed by one program in one order, without atomic additions, so results are the same each time.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false

import triton
import triton.language as tl
from torch import Tensor

_PAIRS, _WIDTH = 16, 128
"""Pairs and columns of a tile."""


def dots(samples: Tensor, latents: Tensor, left: Tensor, right: Tensor, offsets: Tensor) -> Tensor:
    """`[P]`: for each pair the dot product of `left[sample]` and `right[latent]`, plus `offsets[latent]`."""
    left, right, offsets = (each.detach().contiguous() for each in (left, right, offsets))
    out = left.new_empty(len(latents))
    if len(latents):
        grid = (triton.cdiv(len(latents), _PAIRS),)
        _dots[grid](samples, latents, left, right, offsets, out, len(latents), left.shape[1], _PAIRS, _WIDTH)
    return out


def sums(starts: Tensor, columns: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """`[len(starts) - 1, D]`: for each row of pairs the sum of `rows[column]`, weighted by `weights [P]`."""
    weights, rows = weights.detach().contiguous(), rows.detach().contiguous()
    out = rows.new_empty(len(starts) - 1, rows.shape[1])
    width = min(_WIDTH, max(16, triton.next_power_of_2(rows.shape[1])))
    grid = (len(starts) - 1, triton.cdiv(rows.shape[1], width))
    _sums[grid](starts, columns, weights, rows, out, rows.shape[1], _PAIRS, width)
    return out


@triton.jit
def _dots(samples, latents, left, right, offsets, out, count, width, PAIRS: tl.constexpr, WIDTH: tl.constexpr):
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    there = pair < count
    sample = tl.load(samples + pair, mask=there, other=0).to(tl.int64)
    latent = tl.load(latents + pair, mask=there, other=0).to(tl.int64)
    total = tl.load(offsets + latent, mask=there, other=0.0)
    for start in range(0, width, WIDTH):
        column = start + tl.arange(0, WIDTH)
        inside = there[:, None] & (column < width)[None, :]
        a = tl.load(left + sample[:, None] * width + column[None, :], mask=inside, other=0.0)
        b = tl.load(right + latent[:, None] * width + column[None, :], mask=inside, other=0.0)
        total += tl.sum(a * b, axis=1)
    tl.store(out + pair, total, mask=there)


@triton.jit
def _sums(starts, columns, weights, rows, out, width, PAIRS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < width
    first, end = tl.load(starts + row), tl.load(starts + row + 1)
    total = tl.zeros([WIDTH], dtype=out.dtype.element_ty)
    for at in range(first, end, PAIRS):
        pair = at + tl.arange(0, PAIRS)
        there = pair < end
        source = tl.load(columns + pair, mask=there, other=0).to(tl.int64)
        weight = tl.load(weights + pair, mask=there, other=0.0)
        tile = tl.load(
            rows + source[:, None] * width + column[None, :], mask=there[:, None] & inside[None, :], other=0.0
        )
        total += tl.sum(weight[:, None] * tile, axis=0)
    tl.store(out + row * width + column, total, mask=inside)
