"""What replays are built on: a ring of slots over N environments, in memory or on disk."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from rl_interp.core.errors import RunError
from rl_interp.core.files import full_disk_said


class Ring:
    """`length` slots of `num_envs` environments; subclasses make the arrays with `array` and write at `cursor`.

    `tick` numbers the writes: slots belong together only if their ticks are consecutive, which is all that keeps
    batches clear of the ring's seam and of gaps that a resume left. Slots found in a directory count only after
    `restore`; a ring that begins anew takes them for those of a dead run.
    """

    def __init__(self, length: int, num_envs: int, directory: Path | None = None):
        self.length, self.num_envs = length, num_envs
        self.cursor = self.size = self.next_tick = 0
        self._directory = directory
        self._is_new = True
        self._arrays: list[NDArray[Any]] = []
        self._longer: dict[Path, Path] = {}
        self.tick = self.array("tick", (length,), np.int64)

    def __len__(self) -> int:
        return self.size * self.num_envs

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Zeros of `shape`, or what the directory holds under that name, with more slots if it held fewer; the longer
        file takes the other's place once the ring is written to.

        Raises:
            RunError: the directory holds an array of a different shape or dtype, or the disk is full.
        """
        if self._directory is None:
            return np.zeros(shape, dtype)
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{name}.npy"
        _unfinished(path).unlink(missing_ok=True)  # a dead command's
        if not path.exists():
            array = _reserved(path, dtype, shape)
            _unfinished(path).rename(path)
        else:
            array = open_memmap(path, "r+")
        if array.dtype == dtype and array.shape[1:] == shape[1:] and array.shape[0] < shape[0]:
            try:
                array = _reserved(path, dtype, shape, array)
            except RunError:
                self._stay_short()
                raise
            self._longer[_unfinished(path)] = path
        if array.shape != shape or array.dtype != dtype:
            raise RunError(
                f"{path} holds {array.dtype} {array.shape}, but this run needs {np.dtype(dtype)} {shape}: it belongs "
                "to a run of a different configuration; give the run another name."
            )
        self._arrays.append(array)
        return array

    def begin(self) -> int:
        """The slot to write to next, which until `advance` belongs to nothing: a kill in between leaves no slot that
        is half old and half new."""
        if self._is_new:
            self.tick[:] = self._never
            self._go_on()
        self.tick[self.cursor] = self._never
        return self.cursor

    @property
    def _never(self) -> int:
        """A tick that no other is near to."""
        return -2 * self.length

    def advance(self) -> None:
        """Number the slot that was written at `cursor`, and go on to the next."""
        self.tick[self.cursor] = self.next_tick
        self.next_tick += 1
        self.cursor = (self.cursor + 1) % self.length
        self.size = min(self.size + 1, self.length)

    def state(self) -> dict[str, Any]:
        """The counters; the arrays are in the directory already."""
        return {"cursor": self.cursor, "size": self.size, "next_tick": self.next_tick}

    def restore(self, state: dict[str, Any]) -> None:
        self.cursor, self.size, self.next_tick = state["cursor"], state["size"], state["next_tick"]
        if self.size < self.length and self.cursor != self.size:
            if self.cursor:  # it has wrapped around, so its oldest slots would be in the middle of a longer ring
                self._stay_short()
                raise RunError(
                    f"{self._directory} holds a replay that has wrapped around and can't be made longer; keep "
                    "replay_capacity, or give the run another name."
                )
            self.cursor = self.size  # it was full to its last slot, and has more slots now
        self._go_on()

    def _go_on(self) -> None:
        self._is_new = False
        for longer, path in self._longer.items():
            longer.rename(path)
        self._longer = {}

    def _stay_short(self) -> None:
        for longer in self._longer:
            longer.unlink()
        self._longer = {}

    def flush(self) -> None:
        """Write dirty pages to the disk."""
        for array in self._arrays:
            if isinstance(array, np.memmap):
                array.flush()


def _reserved(path: Path, dtype: DTypeLike, shape: tuple[int, ...], slots: NDArray[Any] | None = None) -> NDArray[Any]:
    """A new memory map, with its blocks reserved on disk: if the disk were found full later, writing to the map would
    kill the process. It begins with the given slots, and does not have its final name yet."""
    unfinished = _unfinished(path)
    try:
        with full_disk_said(path):
            array = open_memmap(unfinished, "w+", np.dtype(dtype), shape)
            if hasattr(os, "posix_fallocate"):
                with open(unfinished, "rb+") as file:
                    os.posix_fallocate(file.fileno(), 0, unfinished.stat().st_size)
    except RunError as error:
        unfinished.unlink(missing_ok=True)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize / 2**20
        raise RunError(
            f"the replay's {path.name} needs {size:,.0f} MiB in {path.parent}, and the disk is full; free some space "
            "or lower replay_capacity."
        ) from error
    if slots is not None:
        array[: len(slots)] = slots
    return array


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".new")
