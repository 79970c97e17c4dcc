"""Reading untrusted files, which may be damaged or altered.

What is wrong with one becomes one sentence, a `RunError` that names the file and what to do; nothing in one is run; and
what it says of its size is compared before memory is taken for it.
"""

import io
import json
import math
import os
import re
import reprlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from rl_interp.core.errors import RunError, UserError

RESTORE = "restore it from where it came"
"""What helps against most damage."""

_MIB = 2**20
MAX_YAML = _MIB // 16
LIMITS = {"json": 256 * _MIB, "yaml": MAX_YAML, "header": 16 * _MIB, "pickle": 16 * _MIB}
"""In bytes, far above what is ever written, and low enough to take little beside the weights: YAML is read at some
100 kB a second."""


_CODECS = {0, 1}
"""Of a table's columns, by their numbers in its footer: none, and Snappy, which is written and packs some twenty times
at most."""


@contextmanager
def reading(path: Path | str, remedy: str = RESTORE, what: str = "can't be read") -> Iterator[None]:
    """Whatever goes wrong in the block is the file's fault, and becomes an error of one sentence.

    Parsers raise any exception at all on damaged files, so all are caught; those of this suite pass.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise RunError(f"{path} {what} ({error.strerror or first_line(error)}); {remedy}.") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise RunError(f"{path} takes more memory than there is; free some, or {remedy}.") from error
    except Exception as error:
        raise RunError(f"{path} {what} ({first_line(error)}); {remedy}.") from error


def first_line(error: BaseException) -> str:
    """An error's message, as one short line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def read_text(path: Path | str, remedy: str = RESTORE, limit: int = LIMITS["json"]) -> str:
    """A UTF-8 file's text."""
    with open_file(path, remedy, limit) as file, reading(path, remedy, "is no UTF-8 text"):
        return file.read().decode("utf-8")


def read_json(path: Path | str, remedy: str = RESTORE) -> dict[str, Any]:
    """The object that a JSON file holds."""
    text = read_text(path, remedy)
    with reading(path, remedy, "is no JSON"):
        value = json.loads(text, parse_constant=_no_constant)
    return _object(value, path, remedy)


def read_json_lines(path: Path | str, remedy: str = RESTORE) -> list[dict[str, Any]]:
    """The objects that a file holds, one a line; a last line without its end, cut off by a crash, is left out."""
    found = []
    for number, line in enumerate(read_text(path, remedy).rpartition("\n")[0].split("\n"), 1):
        if line.strip():
            where = f"line {number} of {path}"
            with reading(where, remedy, "is no JSON"):
                value = json.loads(line, parse_constant=_no_constant)
            found.append(_object(value, where, remedy))
    return found


def read_yaml(path: Path | str, remedy: str = RESTORE) -> dict[str, Any]:
    """The mapping that a YAML file holds, of plain values."""
    text = read_text(path, remedy, LIMITS["yaml"])
    with reading(path, remedy, "is no YAML of plain values"):
        value = yaml.load(text, _PlainLoader)
    return _object(value, path, remedy)


def require(values: Mapping[str, Any], source: Path | str, remedy: str = RESTORE, /, **kinds: type) -> None:
    """Raise a `RunError` unless each name is among the values, and of its kind; whole numbers are at least 0."""
    for name, kind in kinds.items():
        value = values.get(name)
        if not fits(value, kind) or not _in_range(value, kind):
            have = reprlib.repr(value) if name in values else "nothing"
            raise RunError(f"{source} has {have} for {reprlib.repr(name)}, where {_KINDS[kind]} is wanted; {remedy}.")


def _in_range(value: Any, kind: type) -> bool:
    return value >= 0 if kind is int else kind is not float or math.isfinite(value)


def fits(value: Any, kind: type) -> bool:
    """Whether a value is of a kind. Whole numbers are numbers, but true and false are none; what does not fit 64 bits
    is never meant."""
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int) and kind in (int, float):
        return abs(value) < 2**63
    return isinstance(value, kind)


def numbers(values: Mapping[str, Any], name: str, source: Path | str, remedy: str = RESTORE) -> list[float]:
    """A list of at least one finite number."""
    require(values, source, remedy, **{name: list})
    for each in values[name]:
        require({name: each}, source, remedy, **{name: float})
    if not values[name]:
        raise RunError(f"{source} has no numbers for {reprlib.repr(name)}; {remedy}.")
    return values[name]


_KINDS = {
    int: "a whole number", float: "a number", str: "a text", dict: "an object", list: "a list", bool: "true or false",
}  # fmt: skip


def read_manifest(directory: Path, needed: Sequence[str], remedy: str = RESTORE) -> dict[str, Any]:
    """`manifest.json` of a directory, whose `files` are names in it with their sha256, the needed ones among them."""
    path = directory / "manifest.json"
    manifest = read_json(path, remedy)
    require(manifest, path, remedy, files=dict)
    for name, digest in manifest["files"].items():
        if name in ("", ".", "..", "manifest.json") or not re.fullmatch(r"[\w.\- ]+", name):
            raise RunError(f"{path} lists {reprlib.repr(name)}, which is no name of a file in {directory}; {remedy}.")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise RunError(f"{path} has {reprlib.repr(digest)} for {name!r}, where a sha256 is wanted; {remedy}.")
    for name in needed:
        if name not in manifest["files"]:
            raise RunError(f"{path} does not list {reprlib.repr(name)}, so it can't be verified; {remedy}.")
    return manifest


def read_array(path: Path, shape: tuple[int, ...], dtype: str, remedy: str = RESTORE) -> NDArray[Any]:
    """A `.npy` file as a read-only memory map, of the shape and dtype that it is said to have."""
    with open_file(path, remedy), reading(path, remedy, "is no array of NumPy's"):
        array = np.lib.format.open_memmap(path, mode="r")
    have = f"{array.dtype} {array.shape}"
    if array.shape != shape or array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
        raise RunError(f"{path} holds {have}, where {dtype} {shape} is wanted; {remedy}.")
    return array


def open_table(path: Path, rows: int, remedy: str = RESTORE) -> Any:
    """A Parquet file of `rows` rows of numbers, as `pyarrow.parquet.ParquetFile`."""
    import pyarrow.parquet as pq
    import pyarrow.types as kinds

    with open_file(path, remedy) as file, reading(path, remedy, "is no Parquet file"):
        packed = not _codecs(file) <= _CODECS
        table = pq.ParquetFile(path)
        meta, fields = table.metadata, list(table.schema_arrow)
        counted = sum(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    if meta.num_rows != rows or counted != rows:
        raise RunError(f"{path} has {meta.num_rows} rows, where {rows} are wanted; {remedy}.")
    if packed:
        raise RunError(f"{path} is packed in a way that this suite does not write; {remedy}.")
    for field in fields:
        if not (kinds.is_integer(field.type) or kinds.is_floating(field.type) or kinds.is_boolean(field.type)):
            raise RunError(f"{path} has the column {field.name!r} of type {field.type}, which is no number; {remedy}.")
    return table


def _codecs(file: IO[bytes]) -> set[int]:
    """What a Parquet file's columns are packed by, from its footer: FileMetaData's field 4 is its row groups, theirs 1
    its columns, and of a column's metadata, 3, field 4 is the codec.

    Asking pyarrow (26) for a column's metadata ends the process where its statistics are damaged.
    """
    file.seek(-8, os.SEEK_END)
    size = int.from_bytes(file.read(4), "little")
    if file.read(4) != b"PAR1" or size > LIMITS["header"]:
        raise ValueError("it has no footer")
    file.seek(-8 - size, os.SEEK_END)
    footer = _thrift(io.BytesIO(file.read(size)), 12)
    return {column[3][4] for group in footer[4] for column in group[1]}


def _thrift(data: io.BytesIO, kind: int) -> Any:
    """A value of Thrift's compact protocol; a struct is a dict by its fields' numbers."""
    if kind in (1, 2, 3):  # in a struct a truth value is in its field's head, and not read here
        return _taken(data, 1)
    if kind in (4, 5, 6):
        number = _varint(data)
        return (number >> 1) ^ -(number & 1)
    if kind == 7:
        return _taken(data, 8)
    if kind == 8:
        return _taken(data, _varint(data))
    if kind in (9, 10):
        head = _taken(data, 1)[0]
        size = head >> 4 if head >> 4 < 15 else _varint(data)
        return [_thrift(data, head & 15) for _ in range(size)]
    if kind != 12:
        raise ValueError("its footer holds what no table's does")
    fields, number = {}, 0
    while head := _taken(data, 1)[0]:
        number = number + (head >> 4) if head >> 4 else _thrift(data, 4)
        fields[number] = head & 15 == 1 if head & 15 in (1, 2) else _thrift(data, head & 15)
    return fields


def _varint(data: io.BytesIO) -> int:
    number = shift = 0
    while (byte := _taken(data, 1)[0]) & 128:
        number, shift = number | (byte & 127) << shift, shift + 7
        if shift > 63:
            raise ValueError("its footer holds a number that is too large")
    return number | byte << shift


def _taken(data: io.BytesIO, size: int) -> bytes:
    taken = data.read(size)
    if len(taken) < size:
        raise ValueError("its footer ends early")
    return taken


class _PlainLoader(yaml.SafeLoader):
    """Without aliases, by which a few lines can stand for any number of values; none are ever written."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has aliases")
        return super().compose_node(parent, index)


@contextmanager
def open_file(path: Path | str, remedy: str, limit: float = math.inf) -> Iterator[IO[bytes]]:
    """A file, open for reading, if it is one."""
    with reading(path, remedy):
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise RunError(f"{path} is a directory or a device and no file; {remedy}.")
        if not info.st_size:
            raise RunError(f"{path} is empty; {remedy}.")
        if info.st_size > limit:
            raise RunError(f"{path} has {info.st_size} bytes, more than the {limit} that are read; {remedy}.")
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


def _object(value: Any, path: Path | str, remedy: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RunError(f"{path} holds {reprlib.repr(value)}, where an object is wanted; {remedy}.")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no JSON")
