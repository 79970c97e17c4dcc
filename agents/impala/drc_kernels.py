"""A DRC's tick and its gradient, compiled: everything but the products of matrices in one pass over memory.

Shape letters: B batch, P cells of the board, C channels. Gates `[B, P, 4C]` are i, j, f and o, one after the other.
"""

import numpy as np

from rl_interp.core.compiled import compiled

KINDS = 9
"""Of cells: in the first, a middle or the last row, and in the first, a middle or the last column."""
_compiled = compiled(nogil=True, error_model="numpy", fastmath={"contract"})


@_compiled
def _tanh(x):
    """Within 4e-7: the rational minimax approximation of Eigen and XLA. A NaN stays one."""
    x = np.float32(7.905311) if x > np.float32(7.905311) else x
    x = np.float32(-7.905311) if x < np.float32(-7.905311) else x
    y = x * x
    p = np.float32(-2.76076847742355e-16) * y + np.float32(2.00018790482477e-13)
    p = p * y + np.float32(-8.60467152213735e-11)
    p = p * y + np.float32(5.12229709037114e-08)
    p = p * y + np.float32(1.48572235717979e-05)
    p = p * y + np.float32(6.37261928875436e-04)
    p = p * y + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06) * y + np.float32(1.18534705686654e-04)
    q = q * y + np.float32(2.26843463243900e-03)
    q = q * y + np.float32(4.89352518554385e-03)
    return x * p / q


@_compiled
def pool(both, peak, place, mean):
    """Maximum, where it is, and mean over the board of a layer's own hidden state."""
    batch, places, channels = both.shape[0], both.shape[1], both.shape[2] // 2
    for b in range(batch):
        for c in range(channels):
            peak[b, c], place[b, c], mean[b, c] = both[b, 0, channels + c], 0, 0
        for p in range(places):
            for c in range(channels):
                value = both[b, p, channels + c]
                mean[b, c] += value
                if value > peak[b, c]:
                    peak[b, c], place[b, c] = value, p
        for c in range(channels):
            mean[b, c] /= np.float32(places)


@_compiled
def tick(from_h, from_x, from_kinds, kinds, keep, next_keep, is_last, before, gates, cell, both, above, out, peak,
          place, mean):  # fmt: skip
    """One layer's tick: gates, cell and hidden state, which goes to the layer above (or, of the last layer, to the
    first at the next tick) and to the layer itself at the next tick; with its maximum and mean there."""
    batch, places, channels = before.shape
    # sigmoid(x) = 0.5 + 0.5 tanh(0.5 x), so that all gates are one loop.
    half, shift = np.ones(4 * channels, np.float32), np.zeros(4 * channels, np.float32)
    half[channels : 3 * channels] = shift[channels : 3 * channels] = np.float32(0.5)
    # Short loops over few arrays, and over small ones of their own, which the compiler turns into vector instructions.
    gate, h = np.empty(4 * channels, np.float32), np.empty(channels, np.float32)
    for b in range(batch):
        kept, factor = next_keep[b], next_keep[b] if is_last else np.float32(1)
        where, total = np.zeros(channels, np.int32), np.zeros(channels, np.float32)
        largest = np.full(channels, np.float32(-2))  # less than any hidden state
        for p in range(places):
            kind = kinds[p]
            for g in range(4 * channels):
                gate[g] = from_h[b, p, g] + from_x[b, p, g] + from_kinds[b, kind, g]
            for g in range(4 * channels):
                gate[g] = shift[g] + half[g] * _tanh(half[g] * gate[g])
            for g in range(4 * channels):
                gates[b, p, g] = gate[g]
            for c in range(channels):
                h[c] = gate[c + 2 * channels] * before[b, p, c] * keep[b] + gate[c] * gate[c + channels]
            for c in range(channels):
                cell[b, p, c] = h[c]
            for c in range(channels):
                h[c] = _tanh(h[c]) * gate[c + 3 * channels]
            for c in range(channels):
                both[b, p, channels + c] = h[c] * kept
            for c in range(channels):
                above[b, p, c] = h[c] * factor
            for c in range(channels):
                total[c] += h[c]
            for c in range(channels):
                where[c] = np.int32(p) if h[c] > largest[c] else where[c]
            for c in range(channels):
                largest[c] = h[c] if h[c] > largest[c] else largest[c]
            if is_last:
                for c in range(channels):
                    out[b, p, c] = h[c]
        for c in range(channels):
            peak[b, c], place[b, c], mean[b, c] = largest[c] * kept, where[c], total[c] * kept / np.float32(places)


@_compiled
def tick_backward(gates, before, cell, keep, next_keep, is_last, d_own, d_above, d_out, is_out, d_peak, place, d_mean,
                   kinds, d_cell, d_gates, d_from_x, d_kinds):  # fmt: skip
    """From the gradients of what follows a tick to those of its gates' inputs, of its cell before (in place), and their
    sums over each kind of cells."""
    batch, places, channels = before.shape
    one = np.float32(1)
    t, d_h, d_c = np.empty((3, channels), np.float32)
    d_gate = np.empty(4 * channels, np.float32)
    for b in range(batch):
        kept, factor = next_keep[b], next_keep[b] if is_last else one
        given = one if is_out else np.float32(0)
        d_kinds[b] = 0
        for p in range(places):
            kind = kinds[p]
            for c in range(channels):
                t[c] = _tanh(cell[b, p, c])
            for c in range(channels):
                d_h[c] = d_own[b, p, channels + c] + d_mean[b, c]
            for c in range(channels):
                d_h[c] += d_peak[b, c] if place[b, c] == p else np.float32(0)
            for c in range(channels):
                d_h[c] = d_h[c] * kept + d_above[b, p, c] * factor + d_out[b, p, c] * given
            for c in range(channels):
                d_c[c] = d_cell[b, p, c] + d_h[c] * gates[b, p, c + 3 * channels] * (one - t[c] * t[c])
            for c in range(channels):
                i, j = gates[b, p, c], gates[b, p, c + channels]
                d_gate[c] = d_c[c] * j * (one - i * i)
                d_gate[c + channels] = d_c[c] * i * j * (one - j)
            for c in range(channels):
                f, o = gates[b, p, c + 2 * channels], gates[b, p, c + 3 * channels]
                d_gate[c + 2 * channels] = d_c[c] * before[b, p, c] * keep[b] * f * (one - f)
                d_gate[c + 3 * channels] = d_h[c] * t[c] * (one - o * o)
            for c in range(channels):
                d_cell[b, p, c] = d_c[c] * gates[b, p, c + 2 * channels] * keep[b]
            for g in range(4 * channels):
                d_gates[b, p, g] = d_gate[g]
            for g in range(4 * channels):
                d_from_x[b, p, g] += d_gate[g]
            for g in range(4 * channels):
                d_kinds[b, kind, g] += d_gate[g]
