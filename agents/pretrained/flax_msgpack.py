"""What `flax.serialization.to_bytes` wrote, read without Flax: a tree of plain values and arrays. Nothing in it is run.

It is MessagePack (github.com/msgpack/msgpack/blob/master/spec.md) of dictionaries with string keys, which tuples and
lists are too. An array is an extension of type 1, a NumPy scalar one of type 3: the MessagePack of its shape, the name
of its dtype and its bytes in C order.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.read import open_file, reading

_DTYPES = (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip
_ARRAY, _SCALAR = 1, 3
_DEEPEST = 64
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZED = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"),
    0xC7: ("extension", ">B"), 0xC8: ("extension", ">H"), 0xC9: ("extension", ">I"),
    0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"),
    0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip
"""First bytes of what is followed by its size."""


@dataclass(frozen=True)
class Array:
    """An array as it lies in the file."""

    shape: tuple[int, ...]
    dtype: str
    data: memoryview

    def numpy(self) -> NDArray[Any]:
        """A copy.

        Raises:
            ValueError: a dtype that is not read (such as bfloat16), or other bytes than its shape takes.
        """
        if self.dtype not in _DTYPES:
            raise ValueError(f"an array is of type {self.dtype[:40]!r}, which is not read")
        values = np.frombuffer(self.data, self.dtype)
        if any(side < 0 for side in self.shape) or len(self.shape) > 8:
            raise ValueError(f"an array says that it is {self.shape}")
        return values.reshape(self.shape).copy()


def read_flax(path: Path | str, remedy: str) -> Any:
    """The tree in a file: dictionaries, lists, plain values, and an `Array` for each array.

    Raises:
        RunError: there is no such file, or it is not what Flax writes.
    """
    with open_file(path, remedy) as file, reading(path, remedy, "is no file of flax.serialization"):
        reader = _Reader(memoryview(file.read()))
        value = reader.value(0)
        if reader.at != len(reader.data):
            raise ValueError(f"{len(reader.data) - reader.at} bytes follow its end")
        return value


class _Reader:
    """Values of a buffer, one after the other."""

    def __init__(self, data: memoryview):
        self.data, self.at = data, 0

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deep")
        kind = self._number(">B")
        if kind <= 0x7F or kind >= 0xE0:
            return kind if kind <= 0x7F else kind - 0x100
        if kind <= 0xBF:  # short ones have their size in the first byte
            name = "map" if kind <= 0x8F else "list" if kind <= 0x9F else "text"
            return self._sized(name, kind & (0x1F if name == "text" else 0x0F), depth)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind in _SIZED:
            name, size = _SIZED[kind]
            return self._sized(name, self._number(size), depth)
        if 0xD4 <= kind <= 0xD8:
            return self._sized("extension", 2 ** (kind - 0xD4), depth)
        raise ValueError(f"a value begins with the byte {kind:#x}")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise ValueError("it ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def _sized(self, name: str, size: int, depth: int) -> Any:
        if name == "text":
            return bytes(self._take(size)).decode()
        if name == "bytes":
            return self._take(size)
        if name == "extension":
            return _extension(self._number(">b"), self._take(size), depth)
        if size > len(self.data) - self.at:  # each takes a byte at least
            raise ValueError("it ends early")
        if name == "list":
            return [self.value(depth + 1) for _ in range(size)]
        return {str(self.value(depth + 1)): self.value(depth + 1) for _ in range(size)}


def _extension(kind: int, data: memoryview, depth: int) -> Any:
    if kind not in (_ARRAY, _SCALAR):
        return None  # a complex number, or what is not Flax's
    shape, dtype, values = _Reader(data).value(depth + 1)
    return Array(tuple(int(side) for side in shape), str(dtype), values)
