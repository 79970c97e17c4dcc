"""Which level an episode plays, and for how many steps at most: both follow from its seed."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.config import GENERATED, SokobanConfig
from rl_interp.core.envs.sokoban.files import load
from rl_interp.core.envs.sokoban.generate import ALL, HELD_OUT, TRAINING, generate, held_out
from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.splitmix import below
from rl_interp.core.errors import UserError

_PARTS = {"all": ALL, "training": TRAINING, "held out": HELD_OUT}
_MOST = 2**31
"""Seeds are below this."""


class Choice:
    """The levels of a `SokobanConfig`, by an episode's seed. Of a set of L levels, `seed % L` is the level's number.

    Attributes:
        set: the levels; None where they are generated.
    """

    def __init__(self, config: SokobanConfig):
        """Raises:
        UserError: levels that can't be read, or none of the part to play.
        """
        self._config = config
        self._excluded = np.empty(0, np.uint64)
        if config.part == "training" and config.held_out:
            self._excluded = np.sort(load(config.held_out, config.rows, config.columns).hashes)
        self.set = None if config.levels == GENERATED else self._part(load(config.levels, config.rows, config.columns))

    def _part(self, levels: Levels) -> Levels:
        config = self._config
        if config.part == "all":
            return levels
        hashes = levels.hashes
        kept = (
            held_out(hashes) == (config.part == "held out") if not config.held_out else ~np.isin(hashes, self._excluded)
        )
        if not kept.any():
            raise UserError(f"{config.levels} has no levels of part={config.part!r}; give part='all', or more levels.")
        return levels[kept]

    def seed(self, random: int, seed: int, number: int) -> int:
        """The seed of the episode of this number, whichever environment plays it, from a random number of its own."""
        if self.set is None:
            return random
        count = len(self.set)
        level = int(_order(seed, number // count, count)[number % count])
        return random % (_MOST // count) * count + level

    def levels(self, seeds: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Boards `[N, H, W]`, and their numbers in the set; of generated ones the seeds themselves."""
        if self.set is not None:
            numbers = seeds % len(self.set)
            return self.set.boards[numbers], numbers
        config = self._config
        boards = np.empty((len(seeds), config.rows, config.columns), np.uint8)
        # With levels held out by name, all others may be trained in.
        part = ALL if config.held_out else _PARTS[config.part]
        for board, seed in zip(boards, seeds, strict=True):
            generate(int(seed), config.boxes, part, self._excluded, board)
        return boards, seeds

    def level_id(self, number: int) -> str:
        """What the level of this number is called."""
        if number < 0:
            return "set by hand"
        return f"{GENERATED}:{number}" if self.set is None else self.set.ids[number]

    def limits(self, seeds: NDArray[np.int64]) -> NDArray[np.int64]:
        """`[N]`: steps after which each episode is truncated."""
        config = self._config
        return _limits(seeds, config.min_steps, config.max_steps)


@lru_cache(4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which a set's levels are played the n-th time."""
    return np.random.default_rng([seed, epoch]).permutation(count)


@compiled()
def _limits(seeds: NDArray[np.int64], least: int, most: int) -> NDArray[np.int64]:
    out, state = np.empty(len(seeds), np.int64), np.empty(1, np.uint64)
    for i in range(len(seeds)):
        state[0] = np.uint64(seeds[i]) ^ np.uint64(0x5EED)
        out[i] = least + below(state, most - least + 1)
    return out
