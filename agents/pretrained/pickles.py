"""Pickles of other programs, read without running code from them: numpy arrays, plain containers, and objects of named
classes, of which what was saved of them is kept and nothing is called."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import RunError
from rl_interp.core.read import open_file, reading
from rl_interp.core.weights import operations


def read_pickle(path: Path | str, remedy: str, what: str, stand_ins: Mapping[str, type]) -> Any:
    """What a pickle holds; arrays as `Array`s.

    Args:
        remedy: what to do about a file that is refused.
        what: such a file is, as in "checkpoint of dreamerv3 1.5.0".
        stand_ins: patterns of the classes that are let through, as `module name`, and what stands for each.

    Raises:
        RunError: the file is no pickle, or holds something else.
    """
    with open_file(path, remedy) as file, reading(path, remedy, f"is no {what}"):
        # What would exhaust memory or the stack is refused before anything is made.
        for _ in operations(file):
            pass
        file.seek(0)
        try:
            return _Reader(file, stand_ins).load()
        except RunError as error:
            raise RunError(f"{path} was not read: {error}; a {what} holds no such thing.") from None


class Array:
    """Stands for an array: what its pickle says of it."""

    def __init__(self, *_: object):
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def numpy(self) -> NDArray[Any] | None:
        """The array, over the bytes that were read; None where they are not numbers."""
        _, shape, kind, fortran, data = self.state
        dtype = kind.numpy() if isinstance(kind, _Type) else None
        if dtype is None or not isinstance(data, bytes | bytearray):
            return None
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


class Tuple(tuple):
    """Stands for a named tuple."""

    def __new__(cls, *values: Any) -> "Tuple":
        return super().__new__(cls, values)


class Object:
    """Stands for an object: its attributes, as its pickle has them."""

    def __init__(self, *_: object):
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


@dataclass
class _Type:
    """Stands for an array's type. NumPy's own is not hardened against malicious pickles."""

    code: str
    order: str = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> "np.dtype[Any] | None":
        plain = isinstance(self.code, str) and re.fullmatch(r"f[248]|[iu][1248]|b1", self.code)
        return np.dtype(self.code).newbyteorder(self.order) if plain and self.order in ("<", ">", "=", "|") else None


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    """How arrays are pickled since protocol 5."""
    array = Array()
    array.__setstate__((1, shape, kind, order == "F", data))
    return array


def _scalar(kind: Any, data: Any) -> Array:
    return _from_buffer(data, kind, (), "C")


_NUMPY: dict[str, Any] = {
    "_reconstruct": Array, "_frombuffer": _from_buffer, "scalar": _scalar, "ndarray": Array,
    "dtype": lambda code, *_: _Type(code),
}  # fmt: skip
"""What arrays are pickled with, and what stands for it here."""


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, stand_ins: Mapping[str, type]):
        super().__init__(file)
        self._stand_ins = stand_ins

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(r"numpy(\._?core\.(multiarray|numeric))?", module) and name in _NUMPY:
            return _NUMPY[name]
        for pattern, stand_in in self._stand_ins.items():
            if re.fullmatch(pattern, f"{module} {name}"):
                return stand_in
        raise RunError(f"it holds {module}.{name}, which is neither a numpy array nor a plain container")
