"""Compiled loops over the active pairs of a batch, on a CPU.

Shape letters: N samples, F latents, D width, P active pairs (sample, latent). Pairs lie sample by sample, as in a CSR
matrix: those of sample n are `starts[n] : starts[n + 1]`. Every output row is summed by one thread in one order, so
results do not depend on the number of threads.

The loops run on Numba's OpenMP threads, which are PyTorch's own: a thread pool beside them competed for the cores
with PyTorch's spinning threads and took half as long again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.threads import share_threads

Array = NDArray[Any]

_GROUPS_EACH = 8
"""Groups of latents for each that is looked for."""
_BF16_BIT = 16
"""The last bit of a number in fp32 that one in bf16 has."""
_MAGNITUDE = np.int32(0x7FFFFFFF)
_WORTH_A_THREAD = 1 << 20
"""Operations; they take about 0.1 ms."""


def quantised(x: Array) -> tuple[Array, Array, Array]:
    """`x [N, D]`, fp32, as int8, each row by a scale of its own; the scales `[N]`; and what rounding took of each row,
    `[N]`, relative to the norm of its numbers below half the largest, which are all but a few."""
    out, (scales, lost) = np.empty(x.shape, np.int8), np.empty((2, len(x)), np.float32)
    _quantise(_even_parts(*x.shape), x, x.view(np.int32), out, scales, scales.view(np.int32), lost)
    return out, scales, lost


def rescaled(product: Array, row_scales: Array, scales: Array, bias: Array) -> Array:
    """`[N, F]`, fp32: the pre-activations of which `product [N, F]`, int32, is that of rows and latents `quantised` by
    the scales `[N]` and `[F]`."""
    out = np.empty(product.shape, np.float32)
    _rescale(_even_parts(*product.shape), product, row_scales, scales, bias, out)
    return out


def top_rows(pre: Array, k: int) -> tuple[Array, Array]:
    """The k largest positive entries of each row of `pre [N, F]`, fp32, and as a rule some of those that come next: how
    many `[N]`, and `latents [P]`, row by row and in order.

    The k-th largest of the maxima of groups is not above the k-th largest of all, and nearly as large where the groups
    are many; only groups that reach it hold what is looked for.
    """
    groups = min(pre.shape[1], -(-_GROUPS_EACH * k // 32) * 32)
    return _selected(pre, lambda parts, *found: _top_rows(parts, pre.view(np.int32), k, groups, *found))


def above(pre: Array, floor: float) -> tuple[Array, Array]:
    """The entries that are at least `floor`. See `top_rows`."""
    return _selected(pre, lambda parts, *found: _above(parts, pre, np.float32(floor), *found))


def largest(starts: Array, values: Array, k: int) -> Array:
    """`[P]`: whether a value, of `values [P]` in fp32, is among the k largest positive ones of its row of pairs. Of
    equal ones the first are."""
    kept = np.empty(len(values), np.bool_)
    _largest(_parts(starts, 32), starts, values.view(np.int32), k, kept)
    return kept


def where(kept: Array, starts: Array, latents: Array, values: Array) -> tuple[Array, Array, Array]:
    """Starts, latents and values of the pairs for which `kept [P]` is true."""
    return _where(kept, starts, latents, values)


def starts_of(counts: Array) -> Array:
    """`[N + 1]`: where each row of pairs starts, from the number in each, `[N]`."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def by_latent(starts: Array, latents: Array, d_sae: int) -> tuple[Array, Array, Array]:
    """The same pairs latent by latent: `starts [F + 1]`, `samples [P]`, and each one's place in `latents`, `[P]`."""
    return _transposed(_parts(starts, 16), starts, latents, d_sae)


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


def residuals(
    starts: Array, columns: Array, weights: Array, rows: Array, offset: Array, y: Array
) -> tuple[Array, Array]:
    """`[N, D]`: as `sums`, plus `offset [D]` and less `y [N, D]`; and `[P]`: each pair's product of this row and
    `rows[column]`, which are still in the cache."""
    out, along = np.empty_like(y), np.empty_like(weights)
    _residuals(_parts(starts, 2 * rows.shape[1]), starts, columns, weights, rows, offset, y, out, along)
    return out, along


def totals(starts: Array, weights: Array) -> Array:
    """`[len(starts) - 1]`: for each row of pairs the sum of `weights [P]`."""
    return _totals(starts, weights)


def _parts(starts: Array, width: int) -> Array:
    """Bounds that divide the rows into parts of equal work, one for each thread that PyTorch uses: one part only where
    the work, `width` operations a pair, is too little to share."""
    threads = share_threads(most=1 + int(starts[-1]) * width // _WORTH_A_THREAD)
    inner = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1)[1:-1])
    return np.concatenate([[0], inner, [len(starts) - 1]])


def _even_parts(rows: int, width: int) -> Array:
    """As `_parts`, for rows that are all `width` wide."""
    threads = share_threads(most=1 + rows * width // _WORTH_A_THREAD)
    return np.array([rows * part // threads for part in range(threads + 1)])


def _selected(pre: Array, select: Callable[[Array, Array, Array], None]) -> tuple[Array, Array]:
    parts, places, counts = _even_parts(*pre.shape), np.empty(pre.shape, np.int32), np.empty(len(pre), np.int64)
    select(parts, places, counts)
    starts = starts_of(counts)
    latents = np.empty(starts[-1], np.int32)
    _list(parts, starts, places, latents)
    return counts, latents


_compiled = compiled(nogil=True, fastmath=True, error_model="numpy")
# Numba's threads are PyTorch's own where both use GNU OpenMP. A pool apart would compete with those that PyTorch leaves
# waiting for its next product, in a loop.
_in_parallel = compiled(nogil=True, fastmath=True, error_model="numpy", parallel=True)


# Positive numbers in fp32 are in the same order as the integers that their bits are, of which vector operations take
# the largest; of numbers that may be NaN they would not.


@_in_parallel
def _quantise(parts, x, bits, out, scales, scale_bits, lost):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            row, row_bits, to = x[n], bits[n], out[n]
            largest = np.int32(0)
            for j in range(row.shape[0]):
                largest = max(largest, np.int32(row_bits[j] & _MAGNITUDE))
            scale_bits[n] = largest  # which is `scales`, read as the integers that its numbers' bits are
            inverse = np.float32(127) / scales[n] if scales[n] > 0 else np.float32(0)
            scales[n] /= np.float32(127)
            quiet, rest = np.float32(0), np.float32(0)
            for j in range(row.shape[0]):
                scaled = row[j] * inverse
                rounded = np.rint(scaled)
                to[j] = np.int8(np.int32(rounded))
                quiet += scaled * scaled if abs(scaled) < np.float32(63.5) else np.float32(0)
                rest += (scaled - rounded) * (scaled - rounded)
            lost[n] = np.sqrt(rest / quiet) if quiet > 0 else np.float32(0)


@_in_parallel
def _rescale(parts, product, row_scales, scales, bias, out):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            row, to, scale = product[n], out[n], row_scales[n]
            for f in range(row.shape[0]):
                to[f] = np.float32(row[f]) * (scale * scales[f]) + bias[f]


@_in_parallel
def _top_rows(parts, bits, k, groups, places, counts):  # pyright: ignore
    for part in prange(len(parts) - 1):
        # Group g is g, g + groups, g + 2 groups and so on, which a vector operation compares side by side.
        maxima, chosen = np.empty(groups, np.int32), np.empty(groups, np.int32)
        for n in range(parts[part], parts[part + 1]):
            row, to = bits[n], places[n]
            maxima[:] = 0
            for at in range(0, row.shape[0], groups):
                members = row[at : at + groups]
                for g in range(members.shape[0]):
                    maxima[g] = max(maxima[g], members[g])
            floor = max(np.int32(1), _kth_largest(maxima, k, _BF16_BIT))
            hits = _places_above(maxima, floor, chosen)
            found = 0
            for at in range(0, row.shape[0], groups):
                if at + groups > row.shape[0]:
                    hits = _places_above(maxima[: row.shape[0] - at], floor, chosen)
                for i in range(hits):
                    to[found] = at + chosen[i]
                    found += row[at + chosen[i]] >= floor
            counts[n] = found


@_in_parallel
def _above(parts, pre, floor, places, counts):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            counts[n] = _places_above(pre[n], floor, places[n])


@_in_parallel
def _list(parts, starts, places, latents):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            for i in range(starts[n + 1] - starts[n]):
                latents[starts[n] + i] = places[n, i]


@_compiled
def _places_above(row, floor, places):  # pyright: ignore
    """Where the row is at least `floor`: without a branch, which would be mispredicted again and again."""
    found = 0
    for j in range(row.shape[0]):
        places[found] = j
        found += row[j] >= floor
    return found


@_in_parallel
def _largest(parts, starts, bits, k, kept):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            row, taken = bits[starts[n] : starts[n + 1]], kept[starts[n] : starts[n + 1]]
            threshold = max(np.int32(1), _kth_largest(row, k, 0))
            ties = k
            for i in range(row.shape[0]):
                ties -= row[i] > threshold
            for i in range(row.shape[0]):
                equal = (row[i] == threshold) & (ties > 0)
                taken[i] = (row[i] > threshold) | equal
                ties -= equal


@_compiled
def _kth_largest(bits, k, last):  # pyright: ignore
    """The k-th largest of positive numbers, or 0 if there are fewer, bit by bit from the top to bit `last`."""
    threshold = np.int32(0)
    for bit in range(30, last - 1, -1):
        candidate = np.int32(threshold | np.int32(1 << bit))
        larger = np.int32(0)
        for i in range(bits.shape[0]):
            larger = np.int32(larger + np.int32(bits[i] >= candidate))
        threshold = candidate if larger >= k else threshold
    return threshold


@_compiled
def _where(kept, starts, latents, values):  # pyright: ignore
    total = 0
    for p in range(len(kept)):
        total += kept[p]
    new_starts, new_latents, new_values = (
        np.zeros_like(starts),
        np.empty(total, latents.dtype),
        np.empty(total, values.dtype),
    )
    at = 0
    for n in range(len(starts) - 1):
        for p in range(starts[n], starts[n + 1]):
            if kept[p]:
                new_latents[at], new_values[at] = latents[p], values[p]
                at += 1
        new_starts[n + 1] = at
    return new_starts, new_latents, new_values


@_in_parallel
def _transposed(parts, starts, latents, d_sae):  # pyright: ignore
    # A counting sort: where in the order of the latents each part's pairs of a latent go.
    at = np.zeros((len(parts) - 1, d_sae), np.int64)
    for part in prange(len(parts) - 1):
        for p in range(starts[parts[part]], starts[parts[part + 1]]):
            at[part, latents[p]] += 1
    ends, total = np.empty(d_sae + 1, np.int64), 0
    for f in range(d_sae):
        ends[f] = total
        for part in range(len(parts) - 1):
            at[part, f], total = total, total + at[part, f]
    ends[d_sae] = total
    samples, places = np.empty(len(latents), np.int32), np.empty(len(latents), np.int64)
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            for p in range(starts[n], starts[n + 1]):
                q = at[part, latents[p]]
                at[part, latents[p]] = q + 1
                samples[q], places[q] = n, p
    return ends, samples, places


@_in_parallel
def _dots(parts, starts, columns, left, right, offsets, out):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            _dot_rows(starts[n], starts[n + 1], columns, right, left[n], out)
            for p in range(starts[n], starts[n + 1]):
                out[p] += offsets[columns[p]]


@_in_parallel
def _sums(parts, starts, columns, weights, rows, out):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            out[n] = 0
            _add_rows(starts[n], starts[n + 1], columns, weights, rows, out[n])


@_in_parallel
def _residuals(parts, starts, columns, weights, rows, offset, y, out, along):  # pyright: ignore
    for part in prange(len(parts) - 1):
        for n in range(parts[part], parts[part + 1]):
            total, wanted, first, end = out[n], y[n], starts[n], starts[n + 1]
            for j in range(total.shape[0]):
                total[j] = offset[j] - wanted[j]
            _add_rows(first, end, columns, weights, rows, total)
            _dot_rows(first, end, columns, rows, total, along)


@_compiled
def _add_rows(p, end, columns, weights, rows, total):  # pyright: ignore
    while p + 4 <= end:
        r0, r1, r2, r3 = rows[columns[p]], rows[columns[p + 1]], rows[columns[p + 2]], rows[columns[p + 3]]
        a, b, c, d = weights[p], weights[p + 1], weights[p + 2], weights[p + 3]
        for j in range(total.shape[0]):
            total[j] += a * r0[j] + b * r1[j] + c * r2[j] + d * r3[j]
        p += 4
    while p < end:
        r0, a = rows[columns[p]], weights[p]
        for j in range(total.shape[0]):
            total[j] += a * r0[j]
        p += 1


@_compiled
def _dot_rows(p, end, columns, rows, row, out):  # pyright: ignore
    while p + 4 <= end:
        r0, r1, r2, r3 = rows[columns[p]], rows[columns[p + 1]], rows[columns[p + 2]], rows[columns[p + 3]]
        a = b = c = d = out.dtype.type(0)
        for j in range(row.shape[0]):
            a += row[j] * r0[j]
            b += row[j] * r1[j]
            c += row[j] * r2[j]
            d += row[j] * r3[j]
        out[p], out[p + 1], out[p + 2], out[p + 3] = a, b, c, d
        p += 4
    while p < end:
        r0 = rows[columns[p]]
        a = out.dtype.type(0)
        for j in range(row.shape[0]):
            a += row[j] * r0[j]
        out[p] = a
        p += 1


@_compiled
def _totals(starts, weights):  # pyright: ignore
    out = np.empty(len(starts) - 1, weights.dtype)
    for n in range(len(out)):
        total = out.dtype.type(0)
        for p in range(starts[n], starts[n + 1]):
            total += weights[p]
        out[n] = total
    return out
