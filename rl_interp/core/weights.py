"""Weights and training states from untrusted files: sizes are checked before memory is taken, and nothing is run."""

import itertools
import json
import os
import pickletools
import re
import reprlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from rl_interp.core.errors import RunError, ShapeError, UserError
from rl_interp.core.read import LIMITS, RESTORE, open_file, reading

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

M = TypeVar("M", bound=nn.Module)


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
            if size > LIMITS["header"]:
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
        """Read all of them."""
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
                f"{source} has a different architecture: {name!r} is {_word(weights.dtypes[name])} there and "
                f"{_word(tensor.dtype)} in {type(module).__name__}; open it with the config it was made with."
            )
    # Layouts are kept. Not by `empty_like`, which on the meta device imports SymPy, for seconds.
    filled = {id(t): torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in tensors.values()}
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
                f"{source} has a different architecture: {reprlib.repr(name)} is {there} there and {here} in "
                f"{type(module).__name__}; open it with the config it was made with.",
                have,
                want,
            )


def read_state(path: Path | str, remedy: str = RESTORE) -> Any:
    """What `torch.save` wrote, if it is a tree of tensors, numbers, strings, lists and dicts. Nothing in it is run.

    The format of PyTorch before 1.6 is read as well.
    """
    with open_file(path, remedy) as file:
        return state_of(file, path, remedy)


def state_of(file: IO[bytes], path: Path | str, remedy: str = RESTORE) -> Any:
    """What `read_state` reads, from a file that is open; `path` names it in errors."""
    with reading(path, remedy, "is no checkpoint of PyTorch's"):
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
        if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
            raise RunError(f"{path} says that it holds more than it does; {remedy}.")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as data:
                    _check_pickle(data, path, remedy)


def _check_pickle(file: IO[bytes], path: Path | str, remedy: str) -> None:
    start = file.tell()
    for opcode, argument, position in operations(file):
        if (position or 0) - start > LIMITS["pickle"]:
            raise RunError(f"{path} has a pickle of over {LIMITS['pickle'] // 2**20} MiB beside its tensors; {remedy}.")
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


def _single(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point else dtype


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
