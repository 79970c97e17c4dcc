"""What a fit reads: an activation store, an array, or anything else with these four members."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError


class Activations(Protocol):
    """Rows `[width]` of float32, as `rl_interp.core.store.ActivationStore` serves them."""

    width: int

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The given rows `[n, width]`, in order."""
        ...

    def batches(
        self, batch: int, rng: np.random.Generator | None = None, rows: NDArray[np.integer] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """All rows, or `rows`, in batches, shuffled if `rng` is given; the last may be short."""
        ...


class ArrayActivations:
    """An array `[rows, width]` in memory."""

    def __init__(self, array: NDArray[np.floating]):
        if array.ndim != 2:
            raise UserError(f"an array of shape {array.shape} given; activations are [rows, width].")
        self.array = np.ascontiguousarray(array, np.float32)
        self.width = array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        return self.array[rows]

    def batches(
        self, batch: int, rng: np.random.Generator | None = None, rows: NDArray[np.integer] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        order = np.arange(len(self)) if rows is None else np.asarray(rows)
        if rng is not None:
            order = rng.permutation(order)
        for start in range(0, len(order), batch):
            yield self.array[order[start : start + batch]]


def check_finite(data: Activations, rows: NDArray[np.integer], batch: int = 8192) -> None:
    """Read `rows` of `data` and raise a `UserError` that names the first with a NaN or infinity."""
    order = np.sort(rows)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        bad = ~np.isfinite(data.read(chosen)).all(1)
        if bad.any():
            raise UserError(
                f"activation row {chosen[np.argmax(bad)]} holds NaN or infinity; collect the store again from an agent "
                "whose weights are finite."
            )


def split_by_episode(
    episodes: NDArray[np.integer], held_out: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row indices (train, held out): whole episodes on one side, so that neighbours do not leak."""
    names = np.unique(episodes)
    chosen = np.random.default_rng(seed).permutation(names)[: round(held_out * len(names))]
    if held_out > 0 and not 0 < len(chosen) < len(names):
        raise UserError(f"the store holds {len(names)} episode(s), too few to hold out {held_out:.0%}; collect more.")
    is_held_out = np.isin(episodes, chosen)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
