"""Random numbers inside compiled loops: SplitMix64 (Steele et al. 2014, "Fast Splittable Pseudorandom Number
Generators"), in integers alone, so a seed gives the same world everywhere.
"""

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled

_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@compiled()
def mixed(number: np.uint64) -> np.uint64:
    """A hash of 64 bits."""
    z = (number ^ (number >> _30)) * _MIX1
    z = (z ^ (z >> _27)) * _MIX2
    return z ^ (z >> _31)  # pyright: ignore[reportReturnType]


@compiled()
def below(state: NDArray[np.uint64], bound: int) -> int:
    """A random number from 0 to `bound` - 1; advances `state [1]`."""
    state[0] += _GOLDEN
    return np.int64(((mixed(state[0]) >> _32) * np.uint64(bound)) >> _32)  # pyright: ignore[reportReturnType]


@compiled()
def skip(state: NDArray[np.uint64], count: int) -> None:
    """Advance `state [1]` as so many calls of `below` would."""
    state[0] += np.uint64(count) * _GOLDEN
