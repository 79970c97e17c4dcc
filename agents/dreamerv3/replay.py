"""Replay of sequences: what was seen and done, in the order in which it happened, and the latents if asked.

With `replay_latents` a slot also keeps the latent that the agent had there: a sequence starts from the one before it,
and an update writes its own back (the published package does this since 2024; 1.5.0 does not). Otherwise a sequence
that starts in the middle of an episode knows nothing of what came before, and a reward that is paid once an episode,
as all of Crafter's are, cannot be predicted. It costs 272 bytes beside a frame of 12 KiB at size `tiny`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rl_interp.agents.ring import Ring
from rl_interp.core.errors import UserError

Batch = dict[str, NDArray[Any]]
"""`obs`, `actions` int64, `rewards`, `terminated`, `first`, and `bonus` if there is one: `[T, B, ...]`. With
latents, also what came before the sequences: `before_NAME [B, ...]` of each latent, float32 or int64, and
`before_actions [B]`."""


class SequenceReplay(Ring):
    """A ring of `capacity` slots over `num_envs` environments, on disk if given a directory.

    A slot is an observation, what arriving at it gave (reward, bonus, whether it ended or began an episode), and the
    action taken then. A frame is stored once: 12 KiB for one of Crafter's.

    Args:
        latents: names, widths and dtypes of the latents that each slot is to keep besides, as `RSSM.packed` gives
            them.
        dtype: of an observation's numbers.
        actions: how many there are.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_shape: tuple[int, ...],
        bonus: bool = False,
        directory: Path | None = None,
        latents: Mapping[str, tuple[int, DTypeLike]] = MappingProxyType({}),
        dtype: DTypeLike = np.uint8,
        actions: int = 18,
    ):
        super().__init__(max(1, capacity // num_envs), num_envs, directory)
        grid = (self.length, num_envs)
        self.fields = {
            "obs": self.array("obs", (*grid, *observation_shape), dtype),
            "actions": self.array("actions", grid, np.min_scalar_type(actions - 1)),
            "rewards": self.array("rewards", grid, np.float32),
            "terminated": self.array("terminated", grid, np.bool_),
            "first": self.array("first", grid, np.bool_),
        }
        if bonus:
            self.fields["bonus"] = self.array("bonus", grid, np.float32)
        self.latents = {name: self.array(name, (*grid, width), dtype) for name, (width, dtype) in latents.items()}
        self._drawn: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def add(self, **values: NDArray[Any]) -> None:
        """Store one slot per environment: `[N, ...]` of each field and latent."""
        at = self.begin()
        for name, value in values.items():
            (self.latents if name in self.latents else self.fields)[name][at] = value
        self.advance()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> Batch:
        """Draw `batch` sequences of `length` slots uniformly, with replacement; a sequence may span episodes.

        Without latents, its first slot is marked as an episode's first, since what led there is not in it.
        """
        if not self.holds(length):
            raise UserError(
                f"the replay holds {self.size} steps of each environment and sequences of {length} were asked for"
                f"{', with a latent before them' if self.latents else ''}; collect more before learning, or lower "
                "batch_length."
            )
        # With latents, the slot before each sequence is drawn too: there its first latent comes from.
        before = 1 if self.latents else 0
        slots = (self._starts(batch, before + length, rng) + np.arange(before + length)[:, None]) % self.length
        envs = rng.integers(self.num_envs, size=batch)
        self._drawn = slots[before:], envs
        drawn = {name: array[self._drawn] for name, array in self.fields.items()}
        drawn["actions"] = drawn["actions"].astype(np.int64)
        if not self.latents:
            drawn["first"][0] = True
            return drawn
        at = slots[0], envs
        drawn["before_actions"] = self.fields["actions"][at].astype(np.int64)
        for name, array in self.latents.items():
            drawn[f"before_{name}"] = array[at].astype(np.float32 if array.dtype == np.float16 else np.int64)
        return drawn

    def holds(self, length: int) -> bool:
        """Whether it is long enough for sequences of `length`."""
        return self.size >= length + bool(self.latents)

    def renew(self, **latents: NDArray[Any]) -> None:
        """Replace the latents of the batch drawn last by newer ones, `[T, B, ...]`."""
        assert self._drawn is not None
        for name, values in latents.items():
            self.latents[name][self._drawn] = values

    def _starts(self, batch: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Slots `[batch]` that begin sequences without a gap, such as a resume leaves."""
        starts, oldest = np.empty(0, np.int64), self.cursor - self.size
        for _ in range(1000):
            drawn = oldest + rng.integers(self.size - length + 1, size=batch)
            ahead = self.tick[(drawn + length - 1) % self.length] - self.tick[drawn % self.length]
            starts = np.concatenate([starts, drawn[ahead == length - 1]])
            if len(starts) >= batch:
                return starts[:batch]
        raise UserError(f"the replay holds no {length} steps in a row; collect more before learning.")

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from `state`, without the slots that a killed run wrote after it. Latents that it renewed since stay as
        they are, until an update renews them."""
        super().restore(dict(state))
        written_after = self.tick >= self.next_tick
        self.tick[written_after] = self._never
