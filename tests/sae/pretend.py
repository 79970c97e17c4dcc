"""A device that isn't there: tensors that say they are elsewhere and compute on the CPU, so that an operation on
tensors of both kinds is noticed without an accelerator."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # any other than the CPU that this PyTorch can name
# As on a real one: transfers, and indices from the CPU.
_MAY_MIX = ("_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_")


class Elsewhere(torch.Tensor):
    """Holds a tensor of the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), named=None):
        return _run(operation, arguments, named or {})


class Pretending(TorchDispatchMode):
    """While this is on, what is made on `DEVICE` is an `Elsewhere`."""

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        return _run(operation, arguments, named or {})


def _run(operation: Any, arguments: Any, named: dict[str, Any]) -> Any:
    tensors = [each for each in tree_flatten((arguments, named))[0] if isinstance(each, torch.Tensor)]
    there = any(isinstance(each, Elsewhere) for each in tensors)
    here = any(not isinstance(each, Elsewhere) and each.dim() for each in tensors)
    name = operation.overloadpacket.__name__
    if there and here and name not in _MAY_MIX:
        raise RuntimeError(f"{name} was given tensors of two devices.")
    device = named.get("device")
    if device is not None:
        there, named = torch.device(device) == DEVICE, named | {"device": torch.device("cpu")}
    result = operation(*tree_map(_held, arguments), **tree_map(_held, named))
    if name.endswith("_"):
        return arguments[0]
    return (
        tree_map(lambda each: Elsewhere(each) if isinstance(each, torch.Tensor) else each, result) if there else result
    )


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value
