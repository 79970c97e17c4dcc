"""Seeds of episodes, computed many at a time: where episodes are short, what each costs at its start counts."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_BLOCK = 128
"""Episodes whose seeds are computed at once."""


def episode_seed(seed: int, game: int, episode: int) -> int:
    """A 31-bit seed of its own for every episode of every game under every seed.

    It is the upper 31 bits of `np.random.SeedSequence([seed, game, episode]).generate_state(1)[0]`.

    Raises:
        ValueError: one of them is negative.
    """
    if min(seed, game, episode) < 0:
        raise ValueError(f"seed {seed}, game {game} and episode {episode} given; none may be negative")
    return _block(seed, game, episode // _BLOCK)[episode % _BLOCK]


@lru_cache(maxsize=4_096)
def _block(seed: int, game: int, number: int) -> list[int]:
    words = [np.full(_BLOCK, word, np.uint32) for value in (seed, game) for word in _words(value)]
    episodes = np.arange(number * _BLOCK, (number + 1) * _BLOCK, dtype=np.uint32)
    return (_first_output([*words, episodes]) >> 1).tolist()


def _words(value: int) -> Iterator[int]:
    """The 32-bit words of a number, the lowest first."""
    yield value & 0xFFFFFFFF
    if value >> 32:
        yield from _words(value >> 32)


def _first_output(entropy: list[Words]) -> Words:
    """What NumPy's `SeedSequence` generates first, for many at once.

    The hash is O'Neill's ("Developing a seed_seq Alternative", pcg-random.org, 2015): a pool of four words, into each
    of which each other word is mixed.
    """
    constants = pairwise(_powers(0x43B0D7E5, 0x931E8875))
    padded = [*entropy, *[np.zeros_like(entropy[0])] * 4]
    pool = [_hashed(word, *next(constants)) for word in padded[:4]]
    for source, target in permutations(range(4), 2):
        pool[target] = _mixed(pool[target], _hashed(pool[source], *next(constants)))
    for word in entropy[4:]:
        pool = [_mixed(each, _hashed(word, *next(constants))) for each in pool]
    return _hashed(pool[0], *next(pairwise(_powers(0x8B51F9DD, 0x58F38DED))))


def _powers(value: int, factor: int) -> Iterator[int]:
    while True:
        yield value
        value = value * factor & 0xFFFFFFFF


def _hashed(word: Words, mask: int, factor: int) -> Words:
    return _folded((word ^ np.uint32(mask)) * np.uint32(factor))


def _mixed(word: Words, other: Words) -> Words:
    return _folded(word * np.uint32(0xCA01F9DD) - other * np.uint32(0x4973F715))


def _folded(word: Words) -> Words:
    return word ^ word >> np.uint32(16)
