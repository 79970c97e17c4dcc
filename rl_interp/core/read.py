"""Reading files that anybody may have written, damaged or altered.

What is wrong with one becomes one sentence, a `RunError` that names the file and what to do; nothing in one is run; and
what it says of its size is compared before memory is taken for it.
"""

import io
import itertools
import json
import math
import os
import pickletools
import re
import reprlib
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from rl_interp.core.errors import RunError, ShapeError, UserError

RESTORE = "restore it from where it came"
"""What helps against most damages."""

_MIB = 2**20
MAX_YAML = _MIB // 16
_LIMITS = {"json": 256 * _MIB, "yaml": MAX_YAML, "header": 16 * _MIB, "pickle": 16 * _MIB}
"""In bytes, far above what is ever written, and low enough to take little beside the weights: YAML is read at some
100 kB a second."""
_OPERATIONS, _TUPLES = 2**22, 2**15
"""Of a pickle: each can make an object; and some tens of thousands of tuples, one in the other, overflow the stack of
whoever hashes them."""

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Types of safetensors, by their names in its header."""

_STATE_PARTS = re.compile(r"torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage|collections OrderedDict")
"""What tensors and plain containers are pickled with; PyTorch admits more, such as bytearrays of any size."""

_CODECS = {0, 1}
"""Of a table's columns, by their numbers in its footer: none, and Snappy, which is written and packs some twenty times
at most."""

M = TypeVar("M", bound=nn.Module)


@contextmanager
def reading(path: Path | str, remedy: str = RESTORE, what: str = "can't be read") -> Iterator[None]:
    """Whatever goes wrong in the block is the file's fault, and is said in one sentence.

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
    """What an error says, in one short line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def read_text(path: Path | str, remedy: str = RESTORE, limit: int = _LIMITS["json"]) -> str:
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
    text = read_text(path, remedy, _LIMITS["yaml"])
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
    if file.read(4) != b"PAR1" or size > _LIMITS["header"]:
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


class Weights:
    """The tensors of a safetensors file: names, shapes and types at once, values when they are asked for.

    Values are read tensor by tensor, so that there is never more than one beside those that are kept; of lower or
    higher precision they become float32. Values that are not finite are refused.

    Args:
        infinite: names of those that may be infinite.
    """

    def __init__(self, path: Path | str, remedy: str = RESTORE, infinite: Sequence[str] = ()):
        self.path, self._remedy, self._infinite = Path(path), remedy, infinite
        with open_file(path, remedy) as file, reading(path, remedy, "is no safetensors file"):
            size = int.from_bytes(file.read(8), "little")
            if size > _LIMITS["header"]:
                raise ValueError(f"its header is {size} bytes long")
            with safe_open(path, "pt"):  # checks types, sizes and offsets against one another and the file
                pass
            header: dict[str, Any] = json.loads(file.read(size))
        header.pop("__metadata__", None)
        self._start = 8 + size
        self._entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
        for name, entry in self._entries:
            if entry["dtype"] not in _DTYPES:
                raise RunError(f"{path} has {name!r} of type {entry['dtype']}, which is not read; {remedy}.")
        self.shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        self.dtypes = {name: _single(_DTYPES[entry["dtype"]]) for name, entry in header.items()}

    def load(self) -> dict[str, Tensor]:
        """All of them."""
        loaded = {name: torch.empty(shape, dtype=self.dtypes[name]) for name, shape in self.shapes.items()}
        self.read_into(loaded)
        return loaded

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the values into tensors of the same names, shapes and types, whatever their layout."""
        with open_file(self.path, self._remedy) as file, reading(self.path, self._remedy):
            for name, entry in self._entries:
                target, dtype = tensors[name], _DTYPES[entry["dtype"]]
                direct = target.dtype == dtype and target.is_contiguous()
                value = target if direct else torch.empty(target.shape, dtype=dtype)
                file.seek(self._start + entry["data_offsets"][0])
                if file.readinto(value.view(-1).view(torch.uint8).numpy()) != value.nbytes:  # pyright: ignore
                    raise ValueError("it ends early")
                if not direct:
                    target.copy_(value)
                require_finite(target, name, self.path, name in self._infinite)


class Held:
    """Tensors in memory, to be put into a module as those of a file are."""

    def __init__(self, tensors: Mapping[str, Tensor], source: Path | str, infinite: Sequence[str] = ()):
        self._tensors, self.path, self._infinite = tensors, source, infinite
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.dtypes = {name: _single(tensor.dtype) for name, tensor in tensors.items()}

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        for name, target in tensors.items():
            target.copy_(self._tensors[name])
            require_finite(target, name, self.path, name in self._infinite)


def require_finite(tensor: Tensor, name: str, source: Path | str, infinite: bool = False) -> None:
    """Raise a `RunError` unless all values are finite. One pass and no memory, mostly: where a sum is finite, so are
    its terms."""
    if not tensor.is_floating_point() or bool(tensor.detach().sum().isfinite()):
        return
    wrong = tensor.detach().isnan() if infinite else ~tensor.detach().isfinite()
    if bool(wrong.any()):
        raise RunError(
            f"{source} has values in {reprlib.repr(name)} that are not finite, so the training diverged or the file is "
            "damaged; use another checkpoint."
        )


def with_weights(make: Callable[[], M], weights: Weights | Held, source: Path | str) -> M:
    """The module that `make` makes, with these weights; what it ties stays tied.

    It is made on the meta device, without memory, and compared with the weights' shapes first: a configuration, which
    is small, can't ask for more memory than the weights that come with it have.

    Raises:
        RunError: no such module can be made, or a tensor does not fit; the message names the first.
    """
    with reading(source, "open it with the config that it was made with", "has a config that makes no agent"):
        try:
            with torch.device("meta"):
                module = make()
        except UserError as error:  # of values, or of other runs: it does not know who named them
            raise RunError(f"{source} has a config that makes no agent: {error}") from error
    tensors = module.state_dict(keep_vars=True)
    check_fit(module, weights.shapes, source)
    for name, tensor in tensors.items():
        if tensor.dtype != weights.dtypes[name]:
            raise RunError(
                f"{source} is of another architecture: {name!r} is {_word(weights.dtypes[name])} there and "
                f"{_word(tensor.dtype)} in {type(module).__name__}; open it with the config it was made with."
            )
    filled = {id(tensor): torch.empty_like(tensor, device="cpu") for tensor in tensors.values()}  # keeps layouts
    weights.read_into({name: filled[id(tensor)] for name, tensor in tensors.items()})
    for tensor in tensors.values():
        if isinstance(tensor, nn.Parameter) and not isinstance(filled[id(tensor)], nn.Parameter):
            filled[id(tensor)] = nn.Parameter(filled[id(tensor)], tensor.requires_grad)
    module.load_state_dict({name: filled[id(tensor)] for name, tensor in tensors.items()}, assign=True)
    if left := [name for name, value in itertools.chain(module.named_parameters(), module.named_buffers()) if
                value.is_meta]:  # fmt: skip
        raise RuntimeError(f"{left} of {type(module).__name__} are not in its state; make them on the CPU.")
    return module


def check_fit(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: Path | str) -> None:
    """Raise a `ShapeError` that names the first tensor that `module` has otherwise or not at all."""
    wanted = module.state_dict()
    for name in itertools.chain(wanted, shapes):
        have = shapes.get(name)
        want = tuple(wanted[name].shape) if name in wanted else None
        if have != want:
            there, here = ("nothing" if each is None else each for each in (have, want))
            raise ShapeError(
                f"{source} is of another architecture: {reprlib.repr(name)} is {there} there and {here} in "
                f"{type(module).__name__}; open it with the config it was made with.",
                have,
                want,
            )


def read_state(path: Path | str, remedy: str = RESTORE) -> Any:
    """What `torch.save` wrote, if it is a tree of tensors, numbers, strings, lists and dicts. Nothing in it is run.

    The format of PyTorch before 1.6 is read as well.
    """
    with open_file(path, remedy) as file, reading(path, remedy, "is no checkpoint of PyTorch's"):
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if zipped:
            _check_archive(file, path, remedy)
        else:
            for _ in range(5):  # a magic number, a protocol, a system, the data, the keys of its storages
                _check_pickle(file, path, remedy)
        file.seek(0)
        value = torch.load(file, weights_only=True, map_location="cpu")
    _check_tree(value, path, remedy)
    return value


def _check_archive(file: IO[bytes], path: Path | str, remedy: str) -> None:
    """What PyTorch writes is not compressed, so what comes out is no larger than what is there."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise RunError(f"{path} is compressed, which PyTorch does not write; {remedy}.")
        if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise RunError(f"{path} says that it holds more than it does; {remedy}.")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as data:
                    _check_pickle(data, path, remedy)


def _check_pickle(file: IO[bytes], path: Path | str, remedy: str) -> None:
    start = file.tell()
    for opcode, argument, position in operations(file):
        if (position or 0) - start > _LIMITS["pickle"]:
            raise RunError(f"{path} has a pickle of over {_LIMITS['pickle'] // _MIB} MiB beside its tensors; {remedy}.")
        if opcode in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (
            opcode == "GLOBAL" and not _STATE_PARTS.fullmatch(argument)
        ):
            named = f"something by {opcode}"
            if isinstance(argument, str):
                named = argument.replace(" ", ".").replace("__builtin__", "builtins")
            raise RunError(
                f"{path} was not read: it holds {named}, which is neither a tensor nor a plain container; {remedy}."
            )


def operations(file: IO[bytes]) -> Iterator[tuple[str, Any, int | None]]:
    """The operations of a pickle, none of them done: name, argument and position.

    Raises:
        ValueError: it is none, is cut off, has more operations than any that is read, or memoises at places beyond
            their number, which a reader would make room for.
    """
    count = tuples = 0
    for opcode, argument, position in pickletools.genops(file):
        count += opcode.name != "BININT1"  # bytes, of which each is there once: an episode's actions are many
        tuples += opcode.name.startswith(("TUPLE", "NEWOBJ", "FROZENSET"))
        if count > _OPERATIONS or tuples > _TUPLES:
            raise ValueError(f"it has over {_OPERATIONS} parts or {_TUPLES} tuples")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > max(count, 256):
            raise ValueError("it is no pickle that Python wrote")
        yield opcode.name, argument, position


def _check_tree(value: Any, path: Path | str, remedy: str) -> None:
    """Plain values, not nested too deep, and tensors that are what their storages hold: a view can be of any size."""
    level, seen, depth = [value], set(), 0
    while level:
        below: list[Any] = []
        for each in level:
            if isinstance(each, Tensor):
                if each.layout != torch.strided or each.device.type != "cpu" or (
                    each.nbytes > each.untyped_storage().nbytes()
                ):  # fmt: skip
                    raise RunError(f"{path} has a tensor of {tuple(each.shape)} that it does not hold; {remedy}.")
            elif isinstance(each, Mapping | list | tuple):
                if id(each) not in seen:
                    seen.add(id(each))
                    below.extend(itertools.chain(each, each.values()) if isinstance(each, Mapping) else each)
            elif not isinstance(each, str | int | float | None):
                raise RunError(f"{path} holds a {type(each).__name__}, which is no plain value; {remedy}.")
        level, depth = below, depth + 1
        if depth > 64:
            raise RunError(f"{path} is nested too deep; {remedy}.")


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


def _single(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point else dtype


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
