"""Replay memory that stores every frame once.

Where an observation is four consecutive frames of one environment, transitions stored as two stacks would hold each
frame eight times. Here each environment's newest frame is one slot of a ring, and stacks are assembled when a batch is
drawn. Elsewhere an observation is one frame, of any shape.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from rl_interp.agents.ring import Ring
from rl_interp.core.errors import UserError

_LEAST = 1e-3
"""Added to errors, so that every transition is drawn again some time."""
_CORRECTION = 0.4
"""Exponent β of the weights that make up, in part, for drawing some more often (Schaul et al. 2016, §3.4, where it
grows to 1)."""


@dataclass(frozen=True)
class Batch:
    """`n`-step transitions: `obs`, `next_obs` `[B, ...]` as the environment gives them, the rest `[B]`.

    `returns` is the sum of `gamma^k r_k` up to the bootstrap; `discounts` multiplies the value of
    `next_obs`, and is 0 where the episode (or life, if so configured) ended before it.
    """

    obs: NDArray[Any]
    actions: NDArray[np.int64]
    returns: NDArray[np.float32]
    discounts: NDArray[np.float32]
    next_obs: NDArray[Any]
    weights: NDArray[np.float32] | None = None
    """`[B]`, at most 1: of each one's loss, where they were not drawn uniformly; None where all are 1."""
    where: tuple[NDArray[np.int64], ...] = ()
    """Slots and environments `[B]` that they were drawn from, for `Replay.reprioritize`."""


class Replay(Ring):
    """A ring of `capacity` slots over `num_envs` environments, on disk if given a directory.

    A slot is one observation's newest frame and what followed it: action, reward, whether the value
    after it is zero (`terminal`), whether it is a real transition (`valid`: false for an episode's
    last observation, whose action only resets), and how many earlier frames belong to its episode.

    Args:
        stack: frames `[S, *frame_shape]` in an observation; None where it is one frame, `frame_shape`.
        actions: how many there are.
        priority: exponent α of the errors by which transitions are drawn (Schaul et al. 2016, arXiv 1511.05952, eq. 1);
            0 to draw them uniformly.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        frame_shape: tuple[int, ...] = (84, 84),
        stack: int | None = 4,
        n_step: int = 1,
        gamma: float = 0.99,
        directory: Path | None = None,
        dtype: DTypeLike = np.uint8,
        actions: int = 18,
        priority: float = 0.0,
    ):
        length, frames = capacity // num_envs, stack or 1
        if length <= frames + n_step:
            raise UserError(
                f"a replay of {capacity} slots over {num_envs} environments is too short for stacks of {frames} and "
                f"{n_step}-step returns; give at least {(frames + n_step + 1) * num_envs}."
            )
        super().__init__(length, num_envs, directory)
        self.stack, self.n_step, self.gamma = stack, n_step, gamma
        grid = (length, num_envs)
        self.frames = self.array("frames", (*grid, *frame_shape), dtype)
        self.action = self.array("action", grid, np.min_scalar_type(actions - 1))
        self.reward = self.array("reward", grid, np.float32)
        self.terminal = self.array("terminal", grid, np.bool_)
        self.valid = self.array("valid", grid, np.bool_)
        self.age = self.array("age", grid, np.uint8)
        self.priority = priority
        if priority:
            # (|error| + ε) ** α, and their sums over environments: in memory, and saved with the agent's weights, whose
            # errors they are.
            self.mass = np.zeros(grid, np.float32)
            self._rows = np.zeros(length)
            self._largest = 1.0

    def add(
        self,
        frames: NDArray[Any],
        first: NDArray[np.bool_],
        actions: NDArray[np.int64],
        reward: NDArray[np.float32],
        terminal: NDArray[np.bool_],
        valid: NDArray[np.bool_],
    ) -> None:
        """Store one slot per environment, whose observations' newest frames are `frames [N, *frame_shape]`."""
        at, before = self.begin(), self.cursor - 1
        # How far back the stack of this slot reaches: not over an episode's start, nor over a gap left by a resume.
        continued = np.minimum(self.age[before] + 1, (self.stack or 1) - 1)
        consecutive = self.next_tick > 0 and self.tick[before] == self.next_tick - 1
        self.age[at] = np.where(first | (not consecutive), 0, continued)
        self.frames[at] = frames
        self.action[at] = actions
        self.reward[at] = reward
        self.terminal[at] = terminal
        self.valid[at] = valid
        if self.priority:
            # What was never learned from is drawn soon; what starts no transition, never.
            self.mass[at] = self._largest * valid
            self._rows[at] = self.mass[at].sum(dtype=np.float64)
        self.advance()

    def sample(self, batch: int, rng: np.random.Generator) -> Batch:
        """Draw `batch` transitions, with replacement, from those whose window is complete."""
        slots, envs = self._draw(batch, rng)
        # R = Σ_k γ^k r_k while the episode runs; `ahead` counts the steps to the observation bootstrapped from.
        returns = np.zeros(batch, np.float32)
        discount = np.ones(batch, np.float32)
        ahead = np.zeros(batch, np.int64)
        running = np.ones(batch, bool)
        for k in range(self.n_step):
            at = (slots + k) % self.length
            running = running & self.valid[at, envs]  # a truncated episode is bootstrapped from its last observation
            returns += np.where(running, discount * self.reward[at, envs], 0)
            discount = np.where(running, discount * self.gamma * ~self.terminal[at, envs], discount)
            ahead += running
            running = running & ~self.terminal[at, envs]
        return Batch(
            self._observations(slots, envs),
            self.action[slots, envs].astype(np.int64),
            returns,
            discount.astype(np.float32),
            self._observations((slots + ahead) % self.length, envs),
            self._weights(slots, envs) if self.priority else None,
            (slots, envs),
        )

    def _weights(self, slots: NDArray[np.int64], envs: NDArray[np.int64]) -> NDArray[np.float32]:
        weights = self.mass[slots, envs] ** -_CORRECTION
        return weights / weights.max()

    def reprioritize(self, batch: Batch, errors: NDArray[np.float32]) -> None:
        """Draw the transitions of a batch from now on by what was wrong with their values, `errors [B]`."""
        if self.priority and np.isfinite(errors).all():  # others end the training, and are not to outlast it
            mass = (np.abs(errors) + _LEAST) ** self.priority
            self.mass[batch.where] = mass
            self._rows[batch.where[0]] = self.mass[batch.where[0]].sum(1, dtype=np.float64)
            self._largest = max(self._largest, float(mass.max()))

    def _draw(self, batch: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        slots = np.empty(0, np.int64)
        envs = np.empty(0, np.int64)
        # Drawn blindly and thrown away where the window, from the stack's first frame to the last reward, has a gap.
        for _ in range(1000):
            s, e = self._candidates(batch, rng)
            end = self.tick[(s + self.n_step) % self.length]
            start = self.tick[(s - self.age[s, e]) % self.length]
            whole = (end - self.tick[s] == self.n_step) & (self.tick[s] - start == self.age[s, e])
            fit = whole & self.valid[s, e]
            slots, envs = np.concatenate([slots, s[fit]]), np.concatenate([envs, e[fit]])
            if len(slots) >= batch:
                return slots[:batch], envs[:batch]
        raise UserError(f"the replay holds {len(self)} slots but no complete transition; collect more before learning.")

    def _candidates(self, batch: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not self.priority:
            return rng.integers(self.size, size=batch), rng.integers(self.num_envs, size=batch)
        # First a slot by the sum over its environments, then one of these.
        below = np.cumsum(self._rows[: self.size])
        points = rng.random(batch) * below[-1]
        slots = np.minimum(np.searchsorted(below, points, side="right"), self.size - 1)
        within = np.cumsum(self.mass[slots], axis=1, dtype=np.float64)
        envs = (within <= (points - below[slots] + self._rows[slots])[:, None]).sum(1)
        return slots, np.minimum(envs, self.num_envs - 1)

    def _observations(self, slots: NDArray[np.int64], envs: NDArray[np.int64]) -> NDArray[Any]:
        if self.stack is None:
            return self.frames[slots, envs]
        back = np.arange(self.stack - 1, -1, -1)
        frames = self.frames[(slots[:, None] - back) % self.length, envs[:, None]]
        frames[back > self.age[slots, envs][:, None]] = 0
        return frames

    def state(self) -> dict[str, Any]:
        if not self.priority:
            return super().state()
        return super().state() | {"mass": torch.from_numpy(self.mass.copy()), "largest": self._largest}

    def restore(self, state: dict[str, Any], goes_on: bool = False) -> None:
        """Go on from `state`.

        Slots written after it (by a run that was killed) stay usable, but a gap in the ticks keeps every batch on one
        side of the seam, since the episodes on the two sides differ; unless the episodes of `state` go on, which fill
        these slots again.
        """
        super().restore(state)
        if goes_on:
            self.tick[self.tick >= self.next_tick] = self._never
        else:
            self.next_tick = max(self.next_tick, int(self.tick.max())) + self.length
        if self.priority:
            self._largest = state["largest"]
            self.mass[: len(state["mass"])] = state["mass"].numpy()  # fewer, of a ring that is longer now
            self._rows = self.mass.sum(1, dtype=np.float64)
