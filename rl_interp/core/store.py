"""The activation store: samples of one hook point on disk, beside an index that says where each came from.

    <store>/shard-00000.npy ...   float32 (or float16) [rows, *sample_shape]
            index.parquet         one row a sample: episode, step, action, value, reward, concept labels
            manifest.json         hook, shapes, dtype, sha256 of every file, where the data came from

Written by streaming and read by memory map: neither collecting nor fitting needs the data in memory.
"""

import json
from collections.abc import Mapping
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

_FILES = ("manifest.json", "index.parquet", "shard-*.npy")
"""What a store consists of."""


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
        """Add `values [N, *sample_shape]` and, for each column of the index, N entries."""
        if self.dtype == np.float16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise UserError(f"an activation of {self.hook!r} exceeds float16's range (65,504); collect as float32.")
        wrong = [name for name, column in columns.items() if len(column) != len(values)]
        if wrong or (self._columns and columns.keys() != self._columns.keys()):
            raise UserError(
                f"the index columns {wrong or sorted(columns)} do not fit: every call must give the same columns, one "
                "entry a sample."
            )
        self._pending.append(values.astype(self.dtype))
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(np.asarray(column))
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
        if not (self.path / "manifest.json").is_file():
            raise RunError(
                f"{path} is no activation store (it has no manifest.json); make one with `rl-interp collect`."
            )
        self.manifest = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        verify(self.path, self.manifest["files"])
        self.hook: str = self.manifest["hook"]
        self.samples: int = self.manifest["rows"]
        self.sample_shape = tuple(self.manifest["sample_shape"])
        self._shards = [np.load(self.path / shard["file"], mmap_mode="r") for shard in self.manifest["shards"]]
        self._starts = np.cumsum([0, *(shard["rows"] for shard in self.manifest["shards"])])
        size = int(np.prod(self.sample_shape))
        self.width = size if whole else self.sample_shape[0]
        self.positions = size // self.width

    def __len__(self) -> int:
        return self.samples * self.positions

    @property
    def sha256(self) -> str:
        """Of its manifest, which has those of all its files: what a result that is made from the store records."""
        return sha256(self.path / "manifest.json")

    def columns(self) -> list[str]:
        """Names of the index's columns."""
        return pq.read_schema(self.path / "index.parquet").names

    def column(self, name: str, rows: NDArray[np.integer] | None = None) -> NDArray[Any]:
        """One column of the index, `[samples]`; or for each of the given rows that of its sample, `[n]`."""
        if name not in self.columns():
            raise UserError(unknown("index column", name, self.columns()))
        with pq.ParquetFile(self.path / "index.parquet") as index:
            values, done = np.empty(self.samples, index.schema_arrow.field(name).type.to_pandas_dtype()), 0
            for part in index.iter_batches(columns=[name]):  # a whole table takes several copies of the column
                values[done : done + len(part)] = part.column(0).to_numpy(zero_copy_only=False)
                done += len(part)
        if rows is None:
            return values
        return values[rows if self.positions == 1 else rows // self.positions]

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """`[n, width]`: the given rows, in order."""
        samples, position = np.divmod(np.asarray(rows), self.positions)
        out = np.empty((len(samples), self.width), np.float32)
        shard_of = np.searchsorted(self._starts, samples, side="right") - 1
        for shard in np.unique(shard_of):
            mine = np.flatnonzero(shard_of == shard)
            flat = self._shards[shard].reshape(self._shards[shard].shape[0], self.width, self.positions)
            out[mine] = flat[samples[mine] - self._starts[shard], :, position[mine]]
        return out

    def locate(self, row: int) -> str:
        """Where a row is kept, for a message."""
        sample, position = divmod(row, self.positions)
        shard = int(np.searchsorted(self._starts, sample, side="right") - 1)
        at = f", position {position}" if self.positions > 1 else ""
        return f"{self.path / self.manifest['shards'][shard]['file']}, row {sample - self._starts[shard]}{at},"
