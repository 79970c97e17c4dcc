"""Counting observations in bounded memory: 64-bit keys, and a table of a fixed size.

The table's size is fixed, so memory does not grow with what is seen, and counts are never too low. A checkpoint keeps
the counters that are not 0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.core.errors import UserError

_ROWS = 4


class ExactKey:
    """`[N]` uint64 keys that differ where the observations do.

    A random multilinear hash modulo 2^64: two given observations share a key with probability below 2^-55.
    Signed values are kept apart from unsigned ones of the same bits.
    """

    def __init__(self, size: int, seed: int):
        self._weights = np.random.default_rng(seed).integers(1, 2**64, size, np.uint64) | np.uint64(1)

    def __call__(self, observations: NDArray[np.number]) -> NDArray[np.uint64]:
        """`observations [N, ...]`, of any integer type or float32, `size` values each."""
        if observations.dtype == np.float32:
            observations = (observations + 0.0).view(np.int32)  # by their bits, with -0 as 0
        flat = observations.reshape(len(observations), -1).astype(np.int64).view(np.uint64)
        return _mixed(flat @ self._weights)


class SimHash:
    """`[N]` uint64 keys that are the signs of `bits` seeded random projections (Charikar 2002): observations
    at a small angle share them."""

    def __init__(self, size: int, seed: int, bits: int = 32):
        self._projections = np.random.default_rng(seed).standard_normal((size, bits)).astype(np.float32)
        self._powers = np.uint64(1) << np.arange(bits, dtype=np.uint64)

    def __call__(self, observations: NDArray[np.number]) -> NDArray[np.uint64]:
        """`observations [N, ...]`, `size` values each."""
        flat = observations.reshape(len(observations), -1).astype(np.float32)
        return _mixed(((flat @ self._projections) > 0).astype(np.uint64) @ self._powers)


class CountTable:
    """How often each key was seen, in `4 · width` counters: a count-min sketch with conservative update
    (Cormode & Muthukrishnan 2005; Estan & Varghese 2002).

    Never too low; too high for a new key, once `n` others were counted, with probability at most
    (1 − exp(−n / width))^4: 2% for n = width / 2.
    """

    def __init__(self, width: int = 1 << 20):
        if width < 1 or width & (width - 1):
            raise ValueError(f"width={width} given; it must be a power of two.")
        self.counts = np.zeros((_ROWS, width), np.uint32)
        self._shifts = np.arange(_ROWS, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
        self._mask = np.uint64(width - 1)

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Count `keys [N]`, equal ones one after the other; returns the count of each, itself included, `[N]`."""
        cells = (_mixed(keys[None] + self._shifts) & self._mask).astype(np.int64)
        rows = np.arange(_ROWS)[:, None]
        counts = self.counts[rows, cells].min(0) + _occurrence(keys)
        np.maximum.at(self.counts, (rows, cells), counts)
        return counts

    def clear(self) -> None:
        self.counts[:] = 0

    def state(self) -> dict[str, Any]:
        """The counters that are not 0, for a checkpoint."""
        used = np.flatnonzero(self.counts)
        counts = self.counts.reshape(-1)[used].astype(np.int64)
        return {"size": self.counts.size, "used": torch.from_numpy(used), "counts": torch.from_numpy(counts)}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["size"] != self.counts.size:
            raise UserError(
                f"the checkpoint holds a count table of {state['size']} counters and this run needs one of "
                f"{self.counts.size}; resume with the configuration that it was made with."
            )
        self.clear()
        self.counts.reshape(-1)[state["used"].numpy()] = state["counts"].numpy()


def _occurrence(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """`[N]`: 1 for a key's first place among `keys`, 2 for its second, and so on."""
    order = np.argsort(keys, kind="stable")
    new = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])[: len(keys)]
    place = np.arange(len(keys))
    occurrence = np.empty(len(keys), np.uint32)
    occurrence[order] = place - np.maximum.accumulate(np.where(new, place, 0)) + 1
    return occurrence


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words that spreads every bit over all (SplitMix64's finaliser)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
