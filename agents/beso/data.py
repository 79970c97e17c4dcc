"""Demonstrations: episodes of states and actions, of which windows with a goal are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class Windows:
    """B windows of K steps, each with a state that was reached later in its episode."""

    states: NDArray[np.float32]
    """`[B, K, S]`"""
    actions: NDArray[np.float32]
    """`[B, K, A]`"""
    goals: NDArray[np.float32]
    """`[B, S]`"""
    there: NDArray[np.bool_]
    """`[B, K]`: whether there was such a step; an episode may be shorter than a window."""


@dataclass(frozen=True)
class Demonstrations:
    """Whole episodes, one after the other. One of T steps has T + 1 states, the last of which has no action (zeros)."""

    states: NDArray[np.float32]
    """`[N, S]`"""
    actions: NDArray[np.float32]
    """`[N, A]`"""
    starts: NDArray[np.int64]
    """`[E + 1]`: where each episode begins, and where the last one ends."""

    @staticmethod
    def of(episodes: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]], source: str) -> "Demonstrations":
        """From states `[T + 1, S]` and actions `[T, A]` of each episode.

        Args:
            source: for messages.

        Raises:
            UserError: no episodes, ragged ones, or values that are not finite.
        """
        if not episodes:
            raise UserError(f"{source} has no episodes; give demonstrations with at least one.")
        widths = tuple(each.shape[-1] for each in episodes[0])
        for number, (states, actions) in enumerate(episodes):
            if len(states) != len(actions) + 1 or not len(actions):
                raise UserError(
                    f"episode {number} of {source} is ragged, with {len(states)} states and {len(actions)} actions; of "
                    "T actions, at least one, it has T + 1 states, the last after the last action."
                )
            if (states.shape[-1], actions.shape[-1]) != widths:
                raise UserError(
                    f"episode {number} of {source} has states of {states.shape[-1]} numbers and actions of "
                    f"{actions.shape[-1]}, and the first has {widths[0]} and {widths[1]}; they must be the same in all."
                )
            for what, values in (("states", states), ("actions", actions)):
                if not np.isfinite(values).all():
                    raise UserError(
                        f"episode {number} of {source} has {what} that are NaN or infinite; leave it out, or mend it."
                    )
        padded = [np.concatenate([actions, np.zeros_like(actions[:1])]) for _, actions in episodes]
        lengths = [len(states) for states, _ in episodes]
        return Demonstrations(
            np.concatenate([states for states, _ in episodes]).astype(np.float32),
            np.concatenate(padded).astype(np.float32),
            np.cumsum([0, *lengths]).astype(np.int64),
        )

    def __len__(self) -> int:
        """Episodes."""
        return len(self.starts) - 1

    @property
    def steps(self) -> int:
        """Actions of all episodes."""
        return len(self._rows)

    def episode(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """States `[T + 1, S]` and actions `[T, A]`."""
        start, end = self.starts[number], self.starts[number + 1]
        return self.states[start:end], self.actions[start : end - 1]

    @property
    def taken(self) -> NDArray[np.float32]:
        """`[steps, A]`: all actions."""
        return self.actions[self._rows]

    def draw(self, count: int, window: int, last_goals: float, rng: np.random.Generator) -> Windows:
        """Windows that begin anywhere, but end within their episode where that is long enough.

        Args:
            last_goals: share of goals that are the last state of the episode; the others are any after the window.
        """
        episode = self._episodes[rng.integers(self.steps, size=count)]
        start, last = self.starts[episode], self.starts[episode + 1] - 1
        begin = start + (rng.random(count) * np.maximum(1, last - start - window + 1)).astype(np.int64)
        rows = begin[:, None] + np.arange(window)
        there, rows = rows < last[:, None], np.minimum(rows, last[:, None])
        after = np.minimum(begin + window, last)
        goal = after + (rng.random(count) * (last - after + 1)).astype(np.int64)
        goal = np.where(rng.random(count) < last_goals, last, goal)
        return Windows(self.states[rows], self.actions[rows], self.states[goal], there)

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """Rows with an action."""
        return np.setdiff1d(np.arange(len(self.states)), self.starts[1:] - 1)

    @cached_property
    def _episodes(self) -> NDArray[np.int64]:
        """`[steps]`: the episode of each."""
        return np.searchsorted(self.starts, self._rows, side="right") - 1
