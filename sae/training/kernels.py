"""Compiled loops over the active pairs of a batch, on a CPU.

Shape letters: N samples, F latents, D width, P active pairs (sample, latent). Pairs lie sample by sample, as in a CSR
matrix: those of sample n are `starts[n] : starts[n + 1]`. Every output row is summed by one thread in one order, so
results do not depend on the number of threads.
"""

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from rl_interp.core.threads import share_threads

Array = NDArray[Any]

_HALF_OCTAVE = 64
"""In the integers that bf16 numbers are read as: a factor of about 1.5."""
_BLOCK_BYTES = 1 << 20
"""Half of a core's second-level cache, or less."""
_WORTH_A_THREAD = 1 << 20
"""Operations; they take about 0.1 ms."""


def top_rows(pre: Array, k: int) -> tuple[Array, Array]:
    """The k largest positive entries of each row: `starts [N + 1]`, `latents [P]`, in order of the latents.

    `pre [N, F]` are bf16 numbers read as int16, which keeps the order of the positive ones. Of equal entries the
    first are taken.
    """
    padded, counts = np.empty((len(pre), k), np.int32), np.empty(len(pre), np.int64)
    _top_rows(_parts(np.arange(len(pre) + 1), pre.shape[1]), pre, k, padded, counts)
    starts = _starts(counts)
    return starts, padded.ravel() if starts[-1] == padded.size else padded[np.arange(k) < counts[:, None]]


def top_all(pre: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest positive entries of all, and those that equal the smallest of them. See `top_rows`."""
    # A sixteenth of the rows tells where the threshold is about; only what is above that is looked at closely.
    sample = pre[:: 16 if len(pre) >= 1024 else 1]
    wanted = min(sample.size, int(1.3 * count * len(sample) / len(pre)) + 64)
    floor = max(1, int(np.partition(sample, -wanted, axis=None)[-wanted]))
    starts, latents = above(pre, floor)
    if len(latents) < count and floor > 1:
        starts, latents = above(pre, 1)
    if len(latents) <= count:
        return starts, latents
    rows = np.repeat(np.arange(len(pre)), np.diff(starts))
    values = pre[rows, latents]
    kept = values >= np.partition(values, -count)[-count]
    return _starts(np.bincount(rows[kept], minlength=len(pre))), latents[kept]


def above(pre: Array, floor: int) -> tuple[Array, Array]:
    """The entries that are at least `floor`, a positive bf16 number read as int16. See `top_rows`."""
    counts, parts = np.empty(len(pre), np.int64), _parts(np.arange(len(pre) + 1), pre.shape[1])
    _count_above(parts, pre, np.int16(floor), counts)
    starts = _starts(counts)
    latents = np.empty(starts[-1], np.int32)
    _list_above(parts, pre, np.int16(floor), starts, latents)
    return starts, latents


def by_latent(starts: Array, latents: Array, d_sae: int) -> tuple[Array, Array, Array]:
    """The same pairs latent by latent: `starts [F + 1]`, `samples [P]`, and each one's place in `latents`, `[P]`."""
    return _transposed(starts, latents, d_sae)


def dots(starts: Array, columns: Array, left: Array, right: Array, offsets: Array) -> Array:
    """`[P]`: for each pair (row, column) the dot product of `left[row]` and `right[column]`, plus `offsets[column]`."""
    out = np.empty(len(columns), left.dtype)
    _dots(_parts(starts, left.shape[1]), starts, columns, left, right, offsets, out)
    return out


def sums(starts: Array, columns: Array, weights: Array, rows: Array) -> Array:
    """`[len(starts) - 1, D]`: for each row of pairs the sum of `rows[column]`, weighted by `weights [P]`."""
    out = np.empty((len(starts) - 1, rows.shape[1]), rows.dtype)
    _sums(_parts(starts, rows.shape[1]), starts, columns, weights, rows, out)
    return out


def totals(starts: Array, weights: Array) -> Array:
    """`[len(starts) - 1]`: for each row of pairs the sum of `weights [P]`."""
    return _totals(starts, weights)


def _parts(starts: Array, width: int) -> Array:
    """Bounds that divide the rows into parts of equal work, one for each thread that PyTorch uses: one part only where
    the work, `width` operations a pair, is too little to share."""
    threads = share_threads(most=1 + int(starts[-1]) * width // _WORTH_A_THREAD)
    inner = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1)[1:-1])
    return np.concatenate([[0], inner, [len(starts) - 1]])


def _starts(counts: Array) -> Array:
    return np.concatenate([[0], np.cumsum(counts)])


_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
# Numba's threads are PyTorch's own where both use GNU OpenMP. A pool apart would compete with those that PyTorch leaves
# waiting for its next product, in a loop.
_in_parallel = njit(cache=True, nogil=True, fastmath=True, error_model="numpy", parallel=True)


@_in_parallel
def _top_rows(parts, pre, k, latents, counts):  # pyright: ignore
    for part in prange(len(parts) - 1):
        first, last = parts[part], parts[part + 1]
        width = pre.shape[1]
        places, values = np.empty(width, np.int32), np.empty(width, np.int16)
        floor = np.int32(1)
        for n in range(first, last):
            row = pre[n]
            found = _places_above(row, np.int16(floor), places)
            if found < k and floor > 1:  # the last row's threshold, lowered, was too high for this one
                found = _places_above(row, np.int16(1), places)
            threshold = np.int32(0)
            if found > k:
                for i in range(found):
                    values[i] = row[places[i]]
                # The k-th largest, bit by bit from the top.
                for bit in range(14, -1, -1):
                    candidate = threshold | np.int32(1 << bit)
                    larger = 0
                    for i in range(found):
                        larger += values[i] >= candidate
                    if larger >= k:
                        threshold = candidate
                larger = 0
                for i in range(found):
                    larger += values[i] > threshold
                ties = k - larger
                kept = 0
                for i in range(found):
                    if values[i] > threshold:
                        latents[n, kept] = places[i]
                        kept += 1
                    elif values[i] == threshold and ties > 0:
                        latents[n, kept] = places[i]
                        kept += 1
                        ties -= 1
                counts[n] = kept
            else:
                for i in range(found):
                    latents[n, i] = places[i]
                counts[n] = found
            floor = max(np.int32(1), threshold - np.int32(_HALF_OCTAVE))


@_compiled
def _places_above(row, floor, places):  # pyright: ignore
    """Where the row is at least `floor`: without a branch, which would be mispredicted again and again."""
    found = 0
    for j in range(row.shape[0]):
        places[found] = j
        found += row[j] >= floor
    return found


@_in_parallel
def _count_above(parts, pre, floor, counts):  # pyright: ignore
    for part in prange(len(parts) - 1):
        first, last = parts[part], parts[part + 1]
        for n in range(first, last):
            found = 0
            for j in range(pre.shape[1]):
                found += pre[n, j] >= floor
            counts[n] = found


@_in_parallel
def _list_above(parts, pre, floor, starts, latents):  # pyright: ignore
    for part in prange(len(parts) - 1):
        places = np.empty(pre.shape[1], np.int32)
        for n in range(parts[part], parts[part + 1]):
            found = _places_above(pre[n], floor, places)
            latents[starts[n] : starts[n + 1]] = places[:found]


@_compiled
def _transposed(starts, latents, d_sae):  # pyright: ignore
    ends = np.zeros(d_sae + 1, np.int64)
    for p in range(latents.shape[0]):
        ends[latents[p] + 1] += 1
    for f in range(d_sae):
        ends[f + 1] += ends[f]
    at = ends[:-1].copy()
    samples, places = np.empty(latents.shape[0], np.int32), np.empty(latents.shape[0], np.int64)
    for n in range(starts.shape[0] - 1):
        for p in range(starts[n], starts[n + 1]):
            q = at[latents[p]]
            at[latents[p]] = q + 1
            samples[q], places[q] = n, p
    return ends, samples, places


# The two products go through `right` or `rows` block by block, so that a block stays in the cache (the columns of a row
# are in rising order), and take four columns at a time, which share the loads of the row.


@_in_parallel
def _dots(parts, starts, columns, left, right, offsets, out):  # pyright: ignore
    for part in prange(len(parts) - 1):
        first, last = parts[part], parts[part + 1]
        block = max(64, _BLOCK_BYTES // (right.shape[1] * right.itemsize))
        at = starts[first:last].copy()
        for ceiling in range(block, right.shape[0] + block, block):
            for n in range(first, last):
                row, p, end = left[n], at[n - first], starts[n + 1]
                while p + 4 <= end and columns[p + 3] < ceiling:
                    r0, r1, r2, r3 = (
                        right[columns[p]],
                        right[columns[p + 1]],
                        right[columns[p + 2]],
                        right[columns[p + 3]],
                    )
                    a = b = c = d = out.dtype.type(0)
                    for j in range(row.shape[0]):
                        a += row[j] * r0[j]
                        b += row[j] * r1[j]
                        c += row[j] * r2[j]
                        d += row[j] * r3[j]
                    out[p], out[p + 1] = a + offsets[columns[p]], b + offsets[columns[p + 1]]
                    out[p + 2], out[p + 3] = c + offsets[columns[p + 2]], d + offsets[columns[p + 3]]
                    p += 4
                while p < end and columns[p] < ceiling:
                    r0 = right[columns[p]]
                    a = out.dtype.type(0)
                    for j in range(row.shape[0]):
                        a += row[j] * r0[j]
                    out[p] = a + offsets[columns[p]]
                    p += 1
                at[n - first] = p


@_in_parallel
def _sums(parts, starts, columns, weights, rows, out):  # pyright: ignore
    for part in prange(len(parts) - 1):
        first, last = parts[part], parts[part + 1]
        block = max(64, _BLOCK_BYTES // (rows.shape[1] * rows.itemsize))
        at = starts[first:last].copy()
        out[first:last] = 0
        for ceiling in range(block, rows.shape[0] + block, block):
            for n in range(first, last):
                total, p, end = out[n], at[n - first], starts[n + 1]
                while p + 4 <= end and columns[p + 3] < ceiling:
                    r0, r1, r2, r3 = rows[columns[p]], rows[columns[p + 1]], rows[columns[p + 2]], rows[columns[p + 3]]
                    a, b, c, d = weights[p], weights[p + 1], weights[p + 2], weights[p + 3]
                    for j in range(total.shape[0]):
                        total[j] += a * r0[j] + b * r1[j] + c * r2[j] + d * r3[j]
                    p += 4
                while p < end and columns[p] < ceiling:
                    r0, a = rows[columns[p]], weights[p]
                    for j in range(total.shape[0]):
                        total[j] += a * r0[j]
                    p += 1
                at[n - first] = p


@_compiled
def _totals(starts, weights):  # pyright: ignore
    out = np.empty(len(starts) - 1, weights.dtype)
    for n in range(len(out)):
        total = out.dtype.type(0)
        for p in range(starts[n], starts[n + 1]):
            total += weights[p]
        out[n] = total
    return out
