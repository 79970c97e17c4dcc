"""Compiled loops over what a perturbation changes: a box of a layer for each mask, and nothing outside of it.

`values` hold the boxes one after the other, each row by row with channels last; `boxes [N, 4]` are int64 (top, bottom,
left, right), ends exclusive, and `starts [N + 1]` where each box's values begin. Stored channels are a multiple of 16.
Masks are ordered so that those of the same columns follow each other: for them one product runs over all rows.
"""

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.threads import share_threads
from rl_interp.saliency.local.products import COLUMNS, ROWS, add_products

Array = NDArray[Any]
_TOGETHER = 32
"""Masks of the same columns that are worked on together: as many as leave their values in the cache."""


def parts_of(starts: Array) -> Array:
    """Bounds that divide the masks among PyTorch's threads, so that each has about as many values."""
    threads = share_threads()
    inner = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1)[1:-1])
    return np.concatenate([[0], inner, [len(starts) - 1]]).astype(np.int64)


_compiled = compiled(nogil=True, error_model="numpy")
_in_parallel = compiled(nogil=True, error_model="numpy", parallel=True)


@_in_parallel
def convolve_products(parts, change, rows, columns, reach, weights, geometry, boxes, starts, out):  # pyright: ignore
    """A convolution of `change [H, W, C]` times each mask, `rows [R, H]` by `columns [K, W]`: for each of the K
    profiles of columns the sums over a window's columns, and for each mask of those over its rows.

    `reach [K, 2]` is where a profile of columns is not 0; `geometry` (kernel, stride, padding), each of rows and
    columns; `weights [channels / 16, kernel rows, kernel columns, C, 16]`, flat.
    """
    inputs, most = change.shape[2], 0
    channels = weights.size // (geometry[0] * geometry[1] * inputs)
    for n in range(len(boxes)):
        most = max(most, boxes[n, 3] - boxes[n, 2])
    lines = (change.shape[0] + 2 * geometry[4] - geometry[0]) // geometry[2] + 1
    for part in prange(len(parts) - 1):
        ins, outs = np.empty(max(lines, len(rows)), np.int64), np.empty(max(lines, len(rows)), np.int64)
        masked, sums = np.empty(change.shape, np.float32), np.empty(lines * most * geometry[0] * channels, np.float32)
        first = parts[part]
        while first < parts[part + 1]:
            column = first // len(rows)
            end = min(parts[part + 1], (column + 1) * len(rows))
            low, high = reach[column]
            left, right = boxes[first, 2], boxes[first, 3]
            for y in range(change.shape[0]):
                for x in range(low, high):
                    from_, to, weight = change[y, x], masked[y, x], columns[column, x]
                    for c in range(inputs):
                        to[c] = from_[c] * weight
            _sum_columns(masked, low, high, left, right, lines, weights, geometry, channels, sums, ins, outs)
            out[starts[first] : starts[end]] = 0
            _sum_rows(first, end, rows, left, right, lines, geometry, channels, sums, boxes, starts, out, ins, outs)
            first = end


@_compiled
def _sum_columns(masked, low, high, left, right, lines, weights, geometry, channels, sums, ins, outs):  # pyright: ignore
    """`sums [lines, right - left, channels / 16, kernel rows, 16]`, flat: each kernel row's over a window's columns."""
    height, width, inputs = masked.shape
    tall, wide, down, over, above, before = geometry
    flat, each = masked.reshape(-1), tall * channels
    sums[: lines * (right - left) * each] = 0
    for block in range(channels // COLUMNS):
        for u in range(tall):
            count = 0
            for i in range(lines):
                y = i * down - above + u
                if 0 <= y < height:
                    ins[count] = y * width * inputs
                    outs[count] = i * (right - left) * each + (block * tall + u) * COLUMNS
                    count += 1
            for j in range(left, right):
                x = j * over - before
                start, stop = max(x, low), min(x + wide, high)
                at = ((block * tall + u) * wide + start - x) * inputs * COLUMNS
                for r in range(0, count, ROWS):
                    add_products(
                        flat, ins, start * inputs, weights, at, (stop - start) * inputs,
                        sums, outs, (j - left) * each, r, count,
                    )  # fmt: skip


@_compiled
def _sum_rows(first, end, rows, left, right, lines, geometry, channels, sums, boxes, starts, out, ins, outs):  # pyright: ignore
    """The masks `first` to `end`, of one profile of columns: for each position the kernel rows' sums, weighted by each
    mask's profile of rows."""
    tall, down, above = geometry[0], geometry[2], geometry[4]
    height, flat = rows.shape[1], rows.reshape(-1)
    for i in range(lines):
        y = i * down - above
        start, stop, count = max(y, 0), min(y + tall, height), 0
        for n in range(first, end):
            if boxes[n, 0] <= i < boxes[n, 1]:
                ins[count] = (n % len(rows)) * height + start
                outs[count] = starts[n] + (i - boxes[n, 0]) * (right - left) * channels
                count += 1
        for j in range(right - left):
            for block in range(channels // COLUMNS):
                at = (((i * (right - left) + j) * (channels // COLUMNS) + block) * tall + start - y) * COLUMNS
                for r in range(0, count, ROWS):
                    add_products(
                        flat, ins, 0, sums, at, stop - start, out, outs, j * channels + block * COLUMNS, r, count
                    )


@_in_parallel
def convolve(parts, values, boxes, starts, inputs, weights, geometry, out, out_boxes, out_starts):  # pyright: ignore
    """A convolution of what changed; see `convolve_products` for `geometry` and `weights`."""
    tall, wide = geometry[0], geometry[1]
    channels, most = weights.size // (tall * wide * inputs), 1
    for n in range(len(out_boxes)):
        most = max(most, out_boxes[n, 1] - out_boxes[n, 0])
    for part in prange(len(parts) - 1):
        ins, outs = np.empty(most * _TOGETHER, np.int64), np.empty(most * _TOGETHER, np.int64)
        first = parts[part]
        while first < parts[part + 1]:
            end = first + 1
            while (
                end < min(parts[part + 1], first + _TOGETHER)
                and boxes[end, 2] == boxes[first, 2]
                and boxes[end, 3] == boxes[first, 3]
            ):
                end += 1
            _convolve_run(
                first, end, values, boxes, starts, inputs, weights, geometry, channels, out, out_boxes, out_starts,
                ins, outs,
            )  # fmt: skip
            first = end


@_compiled
def _convolve_run(
    first, end, values, boxes, starts, inputs, weights, geometry, channels, out, out_boxes, out_starts, ins, outs
):  # pyright: ignore
    """Masks of the same columns: a product for each kernel row and output column, over all rows of all masks."""
    tall, wide, down, right, above, before = geometry
    left, edge, out_left, out_edge = boxes[first, 2], boxes[first, 3], out_boxes[first, 2], out_boxes[first, 3]
    out[out_starts[first] : out_starts[end]] = 0
    for block in range(channels // COLUMNS):
        for u in range(tall):
            count = 0
            for n in range(first, end):
                for i in range(out_boxes[n, 0], out_boxes[n, 1]):
                    y = i * down - above + u
                    if boxes[n, 0] <= y < boxes[n, 1]:
                        ins[count] = starts[n] + (y - boxes[n, 0]) * (edge - left) * inputs
                        line = (i - out_boxes[n, 0]) * (out_edge - out_left)
                        outs[count] = out_starts[n] + line * channels + block * COLUMNS
                        count += 1
            for j in range(out_left, out_edge):
                x = j * right - before
                start, stop = max(x, left), min(x + wide, edge)
                at = ((block * tall + u) * wide + start - x) * inputs * COLUMNS
                for r in range(0, count, ROWS):
                    add_products(
                        values, ins, (start - left) * inputs, weights, at, (stop - start) * inputs,
                        out, outs, (j - out_left) * channels, r, count,
                    )  # fmt: skip


# Slices, as an index that may be negative for all that a compiler knows keeps a loop from vector operations.


@_in_parallel
def rectify(parts, values, boxes, starts, base, out):  # pyright: ignore
    """max(base + value, 0) − max(base, 0), `base [H, W, C]` being what the layer is without a perturbation; written so
    that a small value keeps its digits where the base is positive."""
    flat = base.reshape(-1)
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            top, bottom, left, right = boxes[n]
            line = (right - left) * base.shape[2]
            for y in range(top, bottom):
                at, own = (y * base.shape[1] + left) * base.shape[2], starts[n] + (y - top) * line
                before, change, to = flat[at : at + line], values[own : own + line], out[own : own + line]
                for i in range(line):
                    to[i] = max(change[i] + min(before[i], np.float32(0)), -max(before[i], np.float32(0)))


@_in_parallel
def pool(parts, values, boxes, starts, base, pooled, geometry, out, out_boxes, out_starts):  # pyright: ignore
    """The change of a max-pool, `base [H, W, C]` before and `pooled` after it: the largest of how far each value, with
    its change, lies above the largest without."""
    tall, wide, down, over, above, before = geometry
    height, width, channels = base.shape
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            top, bottom, left, right = boxes[n]
            for i in range(out_boxes[n, 0], out_boxes[n, 1]):
                for j in range(out_boxes[n, 2], out_boxes[n, 3]):
                    line = (i - out_boxes[n, 0]) * (out_boxes[n, 3] - out_boxes[n, 2])
                    at = out_starts[n] + (line + j - out_boxes[n, 2]) * channels
                    to = out[at : at + channels]
                    to[:] = -np.inf
                    after = pooled[i, j]
                    for y in range(max(i * down - above, 0), min(i * down - above + tall, height)):
                        for x in range(max(j * over - before, 0), min(j * over - before + wide, width)):
                            plain = base[y, x]
                            if top <= y < bottom and left <= x < right:
                                at = starts[n] + ((y - top) * (right - left) + x - left) * channels
                                change = values[at : at + channels]
                                for c in range(channels):
                                    to[c] = max(to[c], plain[c] - after[c] + change[c])
                            else:
                                for c in range(channels):
                                    to[c] = max(to[c], plain[c] - after[c])


@_in_parallel
def add_into(parts, values, boxes, starts, channels, out, out_boxes, out_starts):  # pyright: ignore
    """Add what changed to `out`, whose boxes hold these."""
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            top, bottom, left, right = boxes[n]
            line, wide = (right - left) * channels, (out_boxes[n, 3] - out_boxes[n, 2]) * channels
            for y in range(top, bottom):
                own = starts[n] + (y - top) * line
                at = out_starts[n] + (y - out_boxes[n, 0]) * wide + (left - out_boxes[n, 2]) * channels
                change, to = values[own : own + line], out[at : at + line]
                for i in range(line):
                    to[i] += change[i]


@_in_parallel
def add_to_copies(parts, values, boxes, starts, stored, base, out):  # pyright: ignore
    """`out [N, H, W, C]`: for each mask all of a layer, `base [H, W, C]`, with what changed, of `stored` channels."""
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            out[n] = base
            top, bottom, left, right = boxes[n]
            for y in range(top, bottom):
                for x in range(left, right):
                    at = starts[n] + ((y - top) * (right - left) + x - left) * stored
                    change, to = values[at : at + stored], out[n, y, x]
                    for c in range(base.shape[2]):
                        to[c] += change[c]
