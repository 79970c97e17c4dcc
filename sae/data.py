"""What a fit reads: an activation store, an array, or anything else with these three members."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.errors import UserError


class Activations(Protocol):
    """Rows `[width]` of float32, as `rl_interp.core.store.ActivationStore` serves them."""

    width: int

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The given rows `[n, width]`, in order."""
        ...


Data = Activations | NDArray[np.floating] | Tensor
"""What may be given for activations: see `as_activations`."""


@runtime_checkable
class Located(Protocol):
    """Activations that can say where a row is kept."""

    def locate(self, row: int) -> str: ...


_RUN = 64
"""Neighbouring rows that a shuffled read from a disk keeps together: long enough to read at its speed."""


def batches(
    data: Activations, rows: NDArray[np.integer], batch: int, rng: np.random.Generator | None = None
) -> Iterator[NDArray[np.float32]]:
    """Batches `[batch, width]` of the rows, which are in rising order; shuffled if `rng` is given. The last may be
    short.

    What is not in memory is shuffled by taking runs of 64 rows from all over and mixing those of a pool of at least 16
    batches, so that a batch holds many episodes while a disk is read in runs and memory stays bounded.
    """
    if rng is None or isinstance(data, ArrayActivations):
        order = rows if rng is None else rng.permutation(rows)
        for start in range(0, len(rows), batch):
            yield data.read(order[start : start + batch])
        return
    starts = rng.permutation(-(-len(rows) // _RUN)) * _RUN
    pool = max(1024, 16 * batch // _RUN)
    left = np.empty((0, data.width), np.float32)
    for at in range(0, len(starts), pool):
        chosen = np.concatenate([rows[start : start + _RUN] for start in np.sort(starts[at : at + pool])])
        values = np.concatenate([left, data.read(chosen)])
        order, whole = rng.permutation(len(values)), len(values) // batch * batch
        for first in range(0, whole, batch):
            yield values[order[first : first + batch]]
        left = values[order[whole:]]
    if len(left):
        yield left


class ArrayActivations:
    """An array `[rows, width]` in memory."""

    def __init__(self, array: NDArray[np.floating]):
        if array.ndim != 2:
            raise UserError(f"an array of shape {array.shape} given; activations are [rows, width].")
        self.array = np.require(array, np.float32, ["C", "W"])
        self.width = array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        chosen = torch.from_numpy(np.ascontiguousarray(rows, np.int64))
        return torch.from_numpy(self.array).index_select(0, chosen).numpy()  # NumPy would use one thread


def as_activations(data: Data) -> Activations:
    """An array or a tensor `[rows, width]` as `ArrayActivations`; other activations as they are."""
    if isinstance(data, Tensor):
        data = data.detach().cpu().float().numpy()
    return ArrayActivations(data) if isinstance(data, np.ndarray) else data


class Paired:
    """Two sets of activations of the same samples side by side: rows `[first.width + second.width]`, as a transcoder
    reads them."""

    def __init__(self, first: Activations, second: Activations):
        if len(first) != len(second):
            raise UserError(
                f"{len(first)} and {len(second)} samples given; a transcoder needs both layers at the same samples: "
                "collect them together."
            )
        self.first, self.second, self.width = first, second, first.width + second.width

    def __len__(self) -> int:
        return len(self.first)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        return np.concatenate([self.first.read(rows), self.second.read(rows)], axis=1)

    def locate(self, row: int) -> str:
        """Where a row is kept: on the target's side, unless the source has NaN or infinity there."""
        if np.isfinite(self.first.read(np.array([row]))).all():
            return f"{_place(self.second, row)} of the target"
        return f"{_place(self.first, row)} of the source"


def sample_rows(rows: NDArray[np.integer], count: int, rng: np.random.Generator) -> NDArray[np.integer]:
    """At most `count` of the rows, drawn at random, in rising order: every n-th might all be of one position."""
    # Far fewer than the rows, as a rule: drawing without the permutation of all of them.
    return np.sort(rows[rng.choice(len(rows), min(count, len(rows)), replace=False, shuffle=False)])


def check_finite(data: Activations, rows: NDArray[np.integer], batch: int = 8192) -> None:
    """Read `rows` of `data`, in rising order, and raise a `UserError` that names the first with a NaN or infinity."""
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        bad = ~np.isfinite(data.read(chosen)).all(1)
        if bad.any():
            row = int(chosen[np.argmax(bad)])
            raise UserError(
                f"{_place(data, row)} holds NaN or infinity; collect the store again from an agent whose weights are "
                "finite."
            )


def _place(data: Activations, row: int) -> str:
    return data.locate(row) if isinstance(data, Located) else f"activation row {row}"


def split_by_episode(
    episodes: NDArray[np.integer], held_out: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row indices (train, held out): whole episodes on one side, so that neighbours do not leak."""
    names = np.unique(episodes)
    chosen = np.random.default_rng(seed).permutation(names)[: round(held_out * len(names))]
    if held_out > 0 and not 0 < len(chosen) < len(names):
        raise UserError(f"the store holds {len(names)} episode(s), too few to hold out {held_out:.0%}; collect more.")
    # A part at a time: of tens of millions of rows at once, `isin` would take a gigabyte on the way.
    parts = np.array_split(episodes, 1 + len(episodes) // 2**20)
    is_held_out = np.concatenate([np.isin(part, chosen) for part in parts])
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
