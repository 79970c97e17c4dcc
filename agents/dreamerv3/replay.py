"""Replay of sequences: what was seen and done, in the order in which it happened, and the latents if asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.ring import Ring
from rl_interp.core.errors import UserError

Batch = dict[str, NDArray[Any]]
"""`obs` uint8, `actions` int64, `rewards`, `terminated`, `first`, and `bonus` if there is one: `[T, B, ...]`. With
latents, what came before the sequences: `before_deter [B, D]`, `before_stoch [B, S]` and `before_actions [B]`."""


class SequenceReplay(Ring):
    """A ring of `capacity` slots over `num_envs` environments, on disk if given a directory.

    A slot is an observation, what arriving at it gave (reward, bonus, whether it ended or began an episode), and the
    action taken then. A frame is stored once: 12 KiB for one of Crafter's.

    Args:
        latents: the latent's widths, `(deter, categoricals)`, if each slot is to keep the one that the agent had there.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_shape: tuple[int, ...],
        bonus: bool = False,
        directory: Path | None = None,
        latents: tuple[int, int] | None = None,
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
        self.latents: dict[str, NDArray[Any]] = {}
        if latents is not None:
            deter, categoricals = latents
            self.latents["deter"] = self.array("deter", (*grid, deter), np.float16)  # lies within [-1, 1]
            self.latents["stoch"] = self.array("stoch", (*grid, categoricals), np.uint8)
        self._drawn: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def add(self, **values: NDArray[Any]) -> None:
        """Store one slot per environment: `[N, ...]` of each field, and of `deter` and `stoch` (the classes' numbers)
        where latents are kept."""
        for name, value in values.items():
            (self.latents if name in self.latents else self.fields)[name][self.cursor] = value
        self.advance()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> Batch:
        """Draw `batch` sequences of `length` slots uniformly, with replacement; a sequence may span episodes.

        Without latents, its first slot is marked as an episode's first, since what led there is not in it.
        """
        before = 1 if self.latents else 0
        if self.size < before + length:
            raise UserError(
                f"the replay holds {self.size} decisions of each environment and sequences of {length} were asked for; "
                "collect more before learning, or lower batch_length."
            )
        slots = (self._starts(batch, before + length, rng) + np.arange(before + length)[:, None]) % self.length
        envs = rng.integers(self.num_envs, size=batch)
        self._drawn = slots[before:], envs
        drawn = {name: array[self._drawn] for name, array in self.fields.items()}
        drawn["actions"] = drawn["actions"].astype(np.int64)
        if not self.latents:
            drawn["first"][0] = True
            return drawn
        at = slots[0], envs
        return drawn | {
            "before_deter": self.latents["deter"][at].astype(np.float32),
            "before_stoch": self.latents["stoch"][at].astype(np.int64),
            "before_actions": self.fields["actions"][at].astype(np.int64),
        }

    def renew(self, deter: NDArray[np.float32], stoch: NDArray[np.uint8]) -> None:
        """Put newer latents `[T, B, ...]` in the place of those of the batch that was drawn last."""
        assert self._drawn is not None
        self.latents["deter"][self._drawn], self.latents["stoch"][self._drawn] = deter, stoch

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
