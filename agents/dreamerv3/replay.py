"""Replay of sequences: what was seen and done, in the order in which it happened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.ring import Ring
from rl_interp.core.errors import UserError

Batch = dict[str, NDArray[Any]]
"""`obs` uint8, `actions` int64, `rewards`, `terminated`, `first`, and `bonus` if there is one: `[T, B, ...]`."""


class SequenceReplay(Ring):
    """A ring of `capacity` slots over `num_envs` environments, on disk if given a directory.

    A slot is an observation, what arriving at it gave (reward, bonus, whether it ended or began an episode), and the
    action taken then. A frame is stored once: 12 KiB for one of Crafter's.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_shape: tuple[int, ...],
        bonus: bool = False,
        directory: Path | None = None,
    ):
        super().__init__(max(1, capacity // num_envs), num_envs, directory)
        grid = (self.length, num_envs)
        self.fields = {
            "obs": self.array("obs", (*grid, *observation_shape), np.uint8),
            "actions": self.array("actions", grid, np.uint8),
            "rewards": self.array("rewards", grid, np.float32),
            "terminated": self.array("terminated", grid, np.bool_),
            "first": self.array("first", grid, np.bool_),
        }
        if bonus:
            self.fields["bonus"] = self.array("bonus", grid, np.float32)

    def add(self, **values: NDArray[Any]) -> None:
        """Store one slot per environment: `[N, ...]` of each field."""
        for name, value in values.items():
            self.fields[name][self.cursor] = value
        self.advance()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> Batch:
        """Draw `batch` sequences of `length` slots uniformly, with replacement; a sequence may span episodes.

        Its first slot is marked as an episode's first, since what led there is not in it.
        """
        if self.size < length:
            raise UserError(
                f"the replay holds {self.size} decisions of each environment and sequences of {length} were asked for; "
                "collect more before learning, or lower batch_length."
            )
        slots = (self._starts(batch, length, rng) + np.arange(length)[:, None]) % self.length
        envs = rng.integers(self.num_envs, size=batch)
        drawn = {name: array[slots, envs] for name, array in self.fields.items()}
        drawn["actions"] = drawn["actions"].astype(np.int64)
        drawn["first"][0] = True
        return drawn

    def _starts(self, batch: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Slots `[batch]` that begin sequences without a gap, where a resume left out some."""
        starts, oldest = np.empty(0, np.int64), self.cursor - self.size
        for _ in range(1000):
            drawn = oldest + rng.integers(self.size - length + 1, size=batch)
            ahead = self.tick[(drawn + length - 1) % self.length] - self.tick[drawn % self.length]
            starts = np.concatenate([starts, drawn[ahead == length - 1]])
            if len(starts) >= batch:
                return starts[:batch]
        raise UserError(f"the replay holds no {length} decisions in a row; collect more before learning.")

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from `state`, without the slots written after it by a run that was killed."""
        super().restore(dict(state))
        written_after = self.tick >= self.next_tick
        self.tick[written_after] = -self.length
