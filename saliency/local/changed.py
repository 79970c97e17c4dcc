"""A tensor of an agent's that knows what masks change of it, and where: most of a perturbed picture is as it was.

An agent is run on one as on any other. Convolutions, ReLUs, max-pools and sums compute what changed, and nothing else;
where each change reaches follows from kernels, strides and paddings. What is flattened goes into a linear layer the
same way. Whatever else an agent does is done to the whole tensors, for every mask. A change is never added to what it
is a change of before an operation asks for it, so it keeps its digits: the drop of a Q-value near 26 by a thousandth is
known to seven of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_interp.saliency.local.regions import Filters, Geometry, Products, Regions, Sums


class NotLocalError(Exception):
    """An agent does something to pictures, or to a tensor's memory, for which they must be there as a whole."""


class Changed(Tensor):
    """`[N, ...]`, or with further leading axes of one: for each of N masks `base [1, ...]` with `change`.

    A change is in `Products` or `Sums` of an image, in `Regions` of a layer, or of vectors all there, `[N, D]`.
    """

    base: Tensor
    change: Products | Sums | Regions | Tensor

    @staticmethod
    def __new__(cls, base: Tensor, change: Products | Sums | Regions | Tensor, shape: tuple[int, ...]):  # pyright: ignore
        return Tensor._make_wrapper_subclass(cls, shape, dtype=base.dtype)  # pyright: ignore

    def __init__(self, base: Tensor, change: Products | Sums | Regions | Tensor, shape: tuple[int, ...]):
        self.base, self.change = base, change

    def whole(self) -> Tensor:
        """An ordinary tensor of the same shape.

        Raises:
            NotLocalError: of an image, which is then better perturbed at once.
        """
        if isinstance(self.change, Products | Sums):
            raise NotLocalError
        shape = self._shape
        if isinstance(self.change, Tensor):
            return (self.base + self.change).reshape(shape)
        return self.change.added_to(self.base).reshape(shape)

    @property
    def _shape(self) -> torch.Size:
        with torch._C.DisableTorchFunctionSubclass():
            return self.shape

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func)
        found = NotImplemented if rule is None else rule(*args, **kwargs)
        if found is not NotImplemented:
            return found
        if func in _ABOUT or getattr(func, "__name__", "") == "__get__":
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return func(*_whole(args), **_whole(kwargs))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotLocalError


def _whole(given: Any) -> Any:
    if isinstance(given, Changed):
        return given.whole()
    if isinstance(given, dict):
        return {name: _whole(value) for name, value in given.items()}
    return type(given)(map(_whole, given)) if type(given) in (tuple, list) else given


def _convolution(
    x: Any, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    if not _is_map(x) or isinstance(padding, str) or groups != 1 or {dilation} - {1, (1, 1)}:
        return NotImplemented
    base = F.conv2d(x.base, weight, bias, stride, padding)
    if isinstance(x.change, Sums):
        return base + x.change.convolved(weight, stride, padding)
    geometry = _geometry(weight.shape[2:], stride, padding)
    filters = Filters(weight, tuple(weight.shape))  # pyright: ignore[reportArgumentType]
    return _of_map(base, x.change.convolved(filters, geometry, tuple(base.shape[2:])))


def _linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not isinstance(x, Changed) or x._shape[:-1] != (len(x.change),) or isinstance(x.change, Products | Sums):
        return NotImplemented
    base = F.linear(x.base.flatten(1), weight, bias)
    if isinstance(x.change, Tensor):
        return _of_vectors(base, F.linear(x.change, weight))
    _, channels, height, width = x.base.shape
    filters = Filters(weight, (len(weight), channels, height, width))
    change = x.change.convolved(filters, (height, width, 1, 1, 0, 0), (1, 1))
    return _of_vectors(base, change.vectors(len(weight)))


def _relu(x: Any, inplace: bool = False) -> Any:
    if inplace or not isinstance(x, Changed) or isinstance(x.change, Products | Sums):
        return NotImplemented
    if isinstance(x.change, Regions):
        return Changed(x.base.relu(), x.change.rectified(x.base), x._shape)
    # max(base + change, 0) − max(base, 0), so that a small change keeps its digits.
    change = torch.maximum(x.change + x.base.clamp(max=0), -x.base.clamp(min=0))
    return Changed(x.base.relu(), change, x._shape)


def _max_pool(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    if not _is_map(x) or not isinstance(x.change, Regions) or ceil_mode or return_indices or {dilation} - {1, (1, 1)}:
        return NotImplemented
    base = F.max_pool2d(x.base, kernel_size, stride, padding)
    geometry = _geometry(_pair(kernel_size), kernel_size if stride is None else stride, padding)
    return _of_map(base, x.change.pooled(x.base, base, geometry))


def _sum(x: Any, other: Any, alpha: float = 1) -> Any:
    if alpha != 1 or not (isinstance(x, Changed) and isinstance(other, Changed)) or x._shape != other._shape:
        return NotImplemented
    if isinstance(x.change, Regions) and isinstance(other.change, Regions):
        return Changed(x.base + other.base, x.change.plus(other.change), x._shape)
    if isinstance(x.change, Tensor) and isinstance(other.change, Tensor):
        return Changed(x.base + other.base, x.change + other.change, x._shape)
    return NotImplemented


def _times(x: Any, factor: Any) -> Any:
    if not isinstance(x, Changed) or not isinstance(factor, int | float) or isinstance(x.change, Tensor):
        return NotImplemented
    return Changed(x.base * factor, x.change.scaled(factor), x._shape)


def _divided(x: Any, divisor: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None or not isinstance(divisor, int | float):
        return NotImplemented
    scaled = _times(x, 1 / divisor)
    return scaled if scaled is NotImplemented else Changed(x.base / divisor, scaled.change, scaled._shape)


def _as_type(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x if not kwargs and args in ((torch.float32,), ()) else NotImplemented


def _laid_out(x: Any, memory_format: Any = None) -> Any:
    return x


def _view(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A rule for what gives the same numbers another shape: leading axes of one more or fewer, or flattened maps."""

    def rule(x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, Changed):
            return NotImplemented
        before = x._shape
        after = function(torch.empty(before, device="meta"), *args, **kwargs).shape
        own, other = _without_ones(before, len(x.change)), _without_ones(after, len(x.change))
        flat = isinstance(x.change, Regions) and other == (len(x.change), x.base.numel())
        return Changed(x.base, x.change, tuple(after)) if own == other or flat else NotImplemented

    return rule


def _without_ones(shape: torch.Size, masks: int) -> tuple[int, ...]:
    """Without axes of one before that of the masks."""
    sizes = tuple(shape)
    while sizes and sizes[0] == 1 and sizes[1:2] == (masks,):
        sizes = sizes[1:]
    return sizes


def _is_map(x: Any) -> bool:
    return isinstance(x, Changed) and not isinstance(x.change, Tensor) and x._shape[1:] == x.base.shape[1:]


def _of_map(base: Tensor, change: Regions) -> Changed:
    return Changed(base, change, (len(change), *base.shape[1:]))


def _of_vectors(base: Tensor, change: Tensor) -> Changed:
    return Changed(base, change, tuple(change.shape))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _geometry(kernel: Any, stride: Any, padding: Any) -> Geometry:
    return (*_pair(kernel), *_pair(stride), *_pair(padding))


_ABOUT = {
    Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.is_contiguous, Tensor.__len__,
    Tensor.nelement, torch.is_floating_point, torch.numel, Tensor.stride,
}  # fmt: skip
"""What is asked of a tensor, and not of its numbers."""
_RULES: dict[Any, Callable[..., Any]] = {
    F.conv2d: _convolution,
    torch.conv2d: _convolution,
    F.linear: _linear,
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    torch.max_pool2d: _max_pool,
    F.max_pool2d: _max_pool,
    torch.add: _sum,
    Tensor.add: _sum,
    Tensor.__add__: _sum,
    torch.mul: _times,
    Tensor.mul: _times,
    Tensor.__mul__: _times,
    Tensor.__rmul__: _times,
    torch.div: _divided,
    Tensor.div: _divided,
    Tensor.__truediv__: _divided,
    Tensor.float: _as_type,
    Tensor.to: _as_type,
    Tensor.contiguous: _laid_out,
    Tensor.clone: _laid_out,
    Tensor.detach: _laid_out,
    **{
        function: _view(function)
        for function in (
            torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape, Tensor.unflatten,
            Tensor.__getitem__, Tensor.squeeze, Tensor.unsqueeze,
        )
    },
}  # fmt: skip
"""By function, what it does to what changed; `NotImplemented` where it needs the whole."""
