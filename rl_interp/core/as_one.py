"""Computations that are looked at from outside alone."""

from collections.abc import Callable
from functools import wraps

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def as_one(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of tensors that whatever watches operations, such as `circuits.trace`, sees as a single one.

    For an agent to say that what happens inside, such as an attention head's products, is one unit's own work: edges
    lead to its arguments and from its result. PyTorch shows its own functions in Python, such as `F.normalize`, to a
    `TorchFunctionMode` in the same way. Weights are not among the arguments; the function knows them.
    """

    @wraps(function)
    def called(*tensors: Tensor) -> Tensor:
        if has_torch_function(tensors):
            return handle_torch_function(called, tensors, *tensors)
        return function(*tensors)

    return called
