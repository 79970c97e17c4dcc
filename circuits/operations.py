"""The operations of a step at which an agent's terms are added up or multiplied, seen one by one as they are called."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rl_interp.circuits.graph import Kind
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import inside_hook

KINDS: dict[str, Kind] = {
    "linear": "linear", "matmul": "linear", "__matmul__": "linear", "mm": "linear",
    "conv1d": "conv", "conv2d": "conv", "conv3d": "conv",
    "add": "sum", "__add__": "sum", "__radd__": "sum", "add_": "sum", "__iadd__": "sum",
    "sub": "sum", "__sub__": "sum", "__rsub__": "sum", "rsub": "sum", "sub_": "sum", "__isub__": "sum",
    "mul": "product", "__mul__": "product", "__rmul__": "product", "multiply": "product", "mul_": "product",
    "__imul__": "product",
}  # fmt: skip
"""PyTorch's functions that read, by name."""

_IN_PLACE = {"add_": "add", "__iadd__": "add", "sub_": "sub", "__isub__": "sub", "mul_": "mul", "__imul__": "mul"}


class Operation:
    """One call of PyTorch's that may read: `index` counts those of a step."""

    def __init__(self, index: int, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]):
        self.index, self.function, self.args, self.named = index, function, args, named
        self.name = function.__name__
        self.kind: Kind = KINDS[self.name]

    @property
    def operands(self) -> dict[int, Tensor]:
        """The tensors that are read, by their place: one where there are weights, else two."""
        if self.kind in ("linear", "conv"):
            x = self._argument(0, "input")
            return {0: x} if isinstance(x, Tensor) else {}
        return {i: x for i, x in enumerate((self._argument(0, "input"), self._argument(1, "other"))) if _many(x)}

    @property
    def weight(self) -> Tensor | None:
        """`[R, F]` of a matrix, `[R, C, ...]` of a convolution; None where nothing is weighted, or by no matrix."""
        weight = self._argument(1, "weight" if self.name in ("linear", *_CONVOLUTIONS) else "other")
        if self.kind not in ("linear", "conv") or not isinstance(weight, Tensor):
            return None
        if self.kind == "linear" and self.name != "linear":
            return weight.T if weight.dim() == 2 else None
        return weight

    def plain(self) -> Any:
        """The call as it was made."""
        return self.function(*self.args, **self.named)

    def with_operands(self, changed: dict[int, Tensor]) -> Any:
        """The call with other operands of a sum or a product; what it would have written into is written into."""
        args, named = list(self.args), dict(self.named)
        for i, value in changed.items():
            if i < len(args):
                args[i] = value
            else:
                named[("input", "other")[i]] = value
        if self.name not in _IN_PLACE:
            return self.function(*args, **named)
        target = self.args[0]
        return target.copy_(getattr(torch, _IN_PLACE[self.name])(*args, **named))

    def product(self, x: Tensor, weight: Tensor, bias: bool) -> Tensor:
        """The weighted sum of another input and with other weights: of its kind, stride, padding and bias."""
        b = self._argument(2, "bias") if bias and self.name in ("linear", *_CONVOLUTIONS) else None
        if self.kind == "linear":
            return F.linear(x, weight, b)
        return getattr(F, self.name)(x, weight, b, *self._geometry())

    def products(self, x: Tensor, weights: Tensor, bias: bool) -> Tensor:
        """As `product`, with weights of each sample's own: `weights [P, ...]` for `x [P * S, ...]`, S samples each."""
        count, each = len(weights), len(x) // len(weights)
        b = self._argument(2, "bias") if bias and self.name in ("linear", *_CONVOLUTIONS) else None
        if self.kind == "linear":
            rows = torch.bmm(x.reshape(count, -1, x.shape[-1]), weights.mT)
            return (rows if b is None else rows + b).reshape(*x.shape[:-1], -1)
        stride, padding, dilation, _ = self._geometry()
        if self.name != "conv2d":
            parts = x.reshape(count, each, *x.shape[1:])
            out = [getattr(F, self.name)(p, w, b, *self._geometry()) for p, w in zip(parts, weights, strict=True)]
            return torch.cat(out)
        if isinstance(padding, str):
            raise HookError(f"a convolution padded by {padding!r} can't have weights of each sample's own.")
        kernel = weights.shape[-2:]
        pointwise = tuple(kernel) == (1, 1) and _two(stride) == (1, 1) and _two(padding) == (0, 0)
        columns = x.flatten(2) if pointwise else F.unfold(x, kernel, dilation, padding, stride)  # [P S, C k k, L]
        size = [
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, p, d, k, s in zip(x.shape[-2:], *map(_two, (padding, dilation, kernel, stride)), strict=True)
        ]
        columns = columns.reshape(count, each, *columns.shape[1:]).transpose(1, 2).flatten(2)  # [P, C k k, S L]
        out = torch.bmm(weights.flatten(2), columns).unflatten(2, (each, -1)).transpose(1, 2)
        out = out if b is None else out + b[:, None]
        return out.reshape(count * each, weights.shape[1], *size)

    def weights_like(self, mask: Tensor) -> Tensor:
        """A mask `[..., R, F]` in the shape of the weights, to be multiplied with them."""
        assert self.weight is not None
        return mask.reshape(*mask.shape, *(1,) * (self.weight.dim() - 2))

    @property
    def groups(self) -> int:
        return 1 if self.kind != "conv" else self._geometry()[3]

    def _geometry(self) -> tuple[Any, Any, Any, int]:
        defaults = (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
        stride, padding, dilation, groups = (self._argument(3 + i, n, d) for i, (n, d) in enumerate(defaults))
        return stride, padding, dilation, groups

    def _argument(self, place: int, name: str, default: Any = None) -> Any:
        return self.args[place] if place < len(self.args) else self.named.get(name, default)


class Operations(TorchFunctionMode):
    """Calls `handle` for each operation that may read, in the place of the call, and `other` for each call else.

    What hooks compute inside is not the agent's, and is left alone.
    """

    def __init__(self, handle: Callable[[Operation], Any], other: Callable[..., Any] | None = None):
        super().__init__()
        self.handle, self.other, self.count = handle, other, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if not inside_hook() and getattr(func, "__name__", "") in KINDS:
            operation = Operation(self.count, func, args, named)
            self.count += 1
            return self.handle(operation)
        return self.other(func, args, named) if self.other else func(*args, **named)


@contextmanager
def watched(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """A hook that does nothing on each module: agents that compute a value only where somebody looks compute it."""
    handles = [module.register_forward_hook(_nothing) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def _nothing(module: Any, args: Any, output: Any) -> None:
    return None


def _many(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0


def _two(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, tuple | list | torch.Size) else (value, value)
