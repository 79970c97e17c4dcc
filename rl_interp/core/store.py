"""The activation store: samples of one hook point on disk, beside an index that says where each came from.

    <store>/shard-00000.npy ...   float32 (or float16) [rows, *sample_shape]
            index.parquet         one row a sample: episode, step, action, value, reward, concept labels
            manifest.json         hook, shapes, dtype, sha256 of every file, where the data came from

Written by streaming and read by memory map: neither collecting nor fitting needs the data in memory.
"""

import mmap
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rl_interp.core.config import to_plain
from rl_interp.core.errors import RunError, UserError, unknown
from rl_interp.core.files import atomic_path, full_disk_said, recover, sha256, verify, write_json
from rl_interp.core.locks import writing
from rl_interp.core.read import open_table, read_array, read_manifest, reading, require

REMEDY = "collect the activations again"
_FILES = ("manifest.json", "index.parquet", "shard-*.npy")
"""What a store consists of."""
ACTION = "action"
"""The column with the number of the action that was taken; of continuous ones, there is one for each of their numbers,
`action.NAME`."""
LOOK = "observation_crc32"
"""The column with the `checksum` of each sample's observation, by which an episode that is played again is known."""


class StoreWriter:
    """Streams samples into a store; use as a context manager. The store appears whole on leaving the
    block, or not at all if it was left by an exception; it replaces an older store, and nothing else.

    Raises:
        RunError: another command is writing the store, the directory holds other things, or the disk is full.
    """

    def __init__(
        self,
        path: Path | str,
        hook: str,
        provenance: Mapping[str, Any],
        dtype: str = "float32",
        shard_rows: int = 16_384,
    ):
        if dtype not in ("float32", "float16"):
            raise UserError(f"dtype={dtype!r} given for an activation store; it is float32 or float16.")
        self.path, self.hook, self.provenance = Path(path), hook, to_plain(provenance)
        self.dtype, self.shard_rows = np.dtype(dtype), shard_rows
        self._pending: list[NDArray[Any]] = []
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._shards: list[dict[str, Any]] = []
        self._rows = 0

    def __enter__(self) -> "StoreWriter":
        with ExitStack() as stack:
            stack.enter_context(writing(self.path))
            self._directory = stack.enter_context(atomic_path(self.path, _FILES))
            self._directory.mkdir()
            self._stack = stack.pop_all()
        return self

    def append(self, values: NDArray[np.floating], columns: Mapping[str, NDArray[Any]]) -> None:
        """Add `values [N, *sample_shape]` and, for each column of the index, N numbers.

        Raises:
            UserError: they do not fit one another or what was added before, or a column is not of numbers.
        """
        if self.dtype == np.float16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise UserError(f"an activation of {self.hook!r} exceeds float16's range (65,504); collect as float32.")
        columns = {name: np.asarray(column) for name, column in columns.items()}
        wrong = [name for name, column in columns.items() if column.shape != values.shape[:1]]
        if wrong or not columns or (self._columns and columns.keys() != self._columns.keys()):
            raise UserError(
                f"the index columns {wrong or sorted(columns)} do not fit: every call must give the same columns, one "
                "entry a sample."
            )
        if other := [name for name, column in columns.items() if column.dtype.kind not in "biuf"]:
            raise UserError(f"the index column {other[0]!r} is of {columns[other[0]].dtype}; an index holds numbers.")
        if values.ndim < 2 or not np.prod(values.shape[1:]):
            raise UserError(f"activations of {self.hook!r} of shape {values.shape} given; they are [N, *sample_shape].")
        if not len(values):
            return
        self._pending.append(values.astype(self.dtype))
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column)
        if sum(map(len, self._pending)) >= self.shard_rows:
            self._write_shard()

    def _write_shard(self) -> None:
        values = np.ascontiguousarray(np.concatenate(self._pending))
        self._pending = []
        name = f"shard-{len(self._shards):05d}.npy"
        with full_disk_said(self.path), open(self._directory / name, "wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
            file.write(values.data)  # what `np.save` does, and a full disk has its number here
        self._shards.append({"file": name, "rows": len(values)})
        self._shape = values.shape[1:]
        self._rows += len(values)

    def __exit__(self, *raised: Any) -> None:
        if raised[0] is not None:
            self._stack.__exit__(*raised)
            return
        with self._stack:
            self._finish()

    def _finish(self) -> None:
        if self._pending:
            self._write_shard()
        if not self._rows:
            raise UserError(f"no samples of {self.hook!r} were collected, so there is no store to write.")
        table = pa.table({name: np.concatenate(parts) for name, parts in self._columns.items()})
        pq.write_table(table, self._directory / "index.parquet")
        files = [shard["file"] for shard in self._shards] + ["index.parquet"]
        manifest = {
            "hook": self.hook,
            "rows": self._rows,
            "sample_shape": list(self._shape),
            "dtype": self.dtype.name,
            "shards": self._shards,
            "files": {name: sha256(self._directory / name) for name in files},
            "provenance": self.provenance,
        }
        write_json(self._directory / "manifest.json", manifest)


class ActivationStore:
    """A store opened for reading, every file checked against its sha256.

    Samples of a spatial point keep their `[C, H, W]`; the rows served for fitting are their positions,
    `[C]` each, so that `len(store)` is samples times positions and `width` is C. With `whole`, rows are
    whole samples, flattened.
    """

    def __init__(self, path: Path | str, whole: bool = False):
        self.path = Path(path)
        recover(self.path)
        if not os.path.isfile(self.path / "manifest.json"):
            raise RunError(
                f"{path} is no activation store (it has no manifest.json); make one with `rl-interp collect`."
            )
        self.manifest = _read_manifest(self.path)
        self.hook: str = self.manifest["hook"]
        self.samples: int = self.manifest["rows"]
        self.sample_shape: tuple[int, ...] = tuple(self.manifest["sample_shape"])
        self._shards = [
            read_array(self.path / shard["file"], (shard["rows"], *self.sample_shape), self.manifest["dtype"], REMEDY)
            for shard in self.manifest["shards"]
        ]
        self._index = open_table(self.path / "index.parquet", self.samples, REMEDY)
        self._starts = np.cumsum([0, *(shard["rows"] for shard in self.manifest["shards"])])
        size = int(np.prod(self.sample_shape))
        self.width = size if whole else self.sample_shape[0]
        self.positions = size // self.width

    def __len__(self) -> int:
        return self.samples * self.positions

    @property
    def sha256(self) -> str:
        """The checksum of its manifest, which holds those of all its files; results made from the store record it."""
        return sha256(self.path / "manifest.json")

    def columns(self) -> list[str]:
        """Names of the index's columns."""
        return list(self._index.schema_arrow.names)

    def column(self, name: str, rows: NDArray[np.integer] | None = None) -> NDArray[Any]:
        """One column of the index, `[samples]`; or for each of the given rows that of its sample, `[n]`."""
        if name not in self.columns():
            raise UserError(unknown("index column", name, self.columns()))
        with reading(self.path / "index.parquet", REMEDY):
            values, done = np.empty(self.samples, self._index.schema_arrow.field(name).type.to_pandas_dtype()), 0
            for part in self._index.iter_batches(columns=[name]):  # a whole table takes several copies of the column
                if part.column(0).null_count:
                    raise ValueError(f"its column {name!r} has rows without a value")
                values[done : done + len(part)] = part.column(0).to_numpy(zero_copy_only=False)
                done += len(part)
        if rows is None:
            return values
        return values[rows if self.positions == 1 else rows // self.positions]

    def actions(self) -> NDArray[Any]:
        """Those taken: int64 `[samples]`, or float32 `[samples, D]` where they are continuous."""
        if ACTION in self.columns():
            return self.column(ACTION).astype(np.int64)
        parts = [name for name in self.columns() if name.startswith(f"{ACTION}.")]
        if not parts:
            raise UserError(unknown("index column", ACTION, self.columns()))
        return np.stack([self.column(name) for name in parts], 1).astype(np.float32)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """`[n, width]`: the given rows, in order."""
        samples, position = np.divmod(np.asarray(rows), self.positions)
        out = np.empty((len(samples), self.width), np.float32)
        shard_of = np.searchsorted(self._starts, samples, side="right") - 1
        for shard in np.unique(shard_of):
            mine = np.flatnonzero(shard_of == shard)
            flat = self._shards[shard].reshape(self._shards[shard].shape[0], self.width, self.positions)
            out[mine] = flat[samples[mine] - self._starts[shard], :, position[mine]]
            _let_go(self._shards[shard])
        return out

    def locate(self, row: int) -> str:
        """The file and row in which a row is kept, for a message."""
        sample, position = divmod(row, self.positions)
        shard = int(np.searchsorted(self._starts, sample, side="right") - 1)
        at = f", position {position}" if self.positions > 1 else ""
        return f"{self.path / self.manifest['shards'][shard]['file']}, row {sample - self._starts[shard]}{at},"


def action_columns(action: Any, names: Sequence[str]) -> dict[str, Any]:
    """What an index has of an action: its number, or, of a continuous one `[D]`, each of its numbers, by name."""
    if not np.ndim(action):
        return {ACTION: int(action)}
    return {f"{ACTION}.{name}": value for name, value in zip(names, action, strict=True)}


def checksum(obs: NDArray[Any]) -> int:
    """CRC-32 of an observation's bytes."""
    return zlib.crc32(np.ascontiguousarray(obs).data)


def _let_go(shard: NDArray[Any]) -> None:
    """Pages that were read count as this process's memory as long as they are mapped; the system keeps them anyway,
    while it has room."""
    mapped = getattr(shard, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _read_manifest(store: Path) -> dict[str, Any]:
    """A store's manifest, checked: it is one, its numbers add up, and every file has its sha256."""
    path = store / "manifest.json"
    manifest = read_manifest(store, ["index.parquet"], REMEDY)
    kinds = {"hook": str, "rows": int, "sample_shape": list, "dtype": str, "shards": list, "provenance": dict}
    require(manifest, path, REMEDY, **kinds)
    for size in manifest["sample_shape"]:
        require({"a size of sample_shape": size}, path, REMEDY, **{"a size of sample_shape": int})
    for shard in manifest["shards"]:
        require({"a shard": shard}, path, REMEDY, **{"a shard": dict})
        require(shard, path, REMEDY, file=str, rows=int)
    shards, shape = manifest["shards"], manifest["sample_shape"]
    names, total = [shard["file"] for shard in shards], sum(shard["rows"] for shard in shards)
    if manifest["dtype"] not in ("float32", "float16"):
        raise RunError(f"{path} has dtype {manifest['dtype']!r}; it is float32 or float16; {REMEDY}.")
    if not shape or 0 in shape or not names or 0 in (shard["rows"] for shard in shards):
        raise RunError(f"{path} is of a store without samples, of {len(names)} shards of shape {shape}; {REMEDY}.")
    if total != manifest["rows"]:
        raise RunError(f"{path} has {manifest['rows']} rows and shards of {total}; {REMEDY}.")
    read = {*names, "index.parquet"}
    if len(read) != len(names) + 1:
        raise RunError(f"{path} lists a shard twice; {REMEDY}.")
    if read != manifest["files"].keys():
        odd = sorted(read.symmetric_difference(manifest["files"]))[0]
        raise RunError(f"{path} has {odd!r} among its files or its shards, not both; {REMEDY}.")
    with reading(path, REMEDY):
        verify(store, manifest["files"])
    return manifest
