"""Gradients of what an agent decides, where it may not depend on a layer, and where the agent may pass none on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rl_interp.core.errors import UserError


class NoGradientError(UserError):
    """Decisions that depend on a layer, and have no gradient there."""

    def __init__(self):
        super().__init__(
            "the agent's decisions have no gradient with respect to this layer (the agent detaches or rounds it); use "
            "what needs none: a dictionary without policy_weight, importance by zero, mean-position or resample, acdc."
        )


def gradient(
    of: Tensor, values: Tensor, decide: Callable[[Tensor], Tensor], retain_graph: bool | None = None
) -> Tensor:
    """Of a number with respect to `values`, like these; zeros where decisions do not depend on them.

    Args:
        of: made of `decide(values)`, from which the number's gradient would come.

    Raises:
        NoGradientError: no gradient comes from there, although other values lead to other decisions.
    """
    found = None
    if of.requires_grad:
        (found,) = torch.autograd.grad(of, values, retain_graph=retain_graph, allow_unused=True)
    if found is not None:
        return found
    with torch.no_grad():
        own = decide(values)
        if any(not torch.equal(own, decide(other)) for other in (torch.zeros_like(values), values + 1)):
            raise NoGradientError
    return torch.zeros_like(values)


@contextmanager
def through_numpy() -> Iterator[None]:
    """Turns what PyTorch raises where an agent makes arrays of tensors with gradients into a `NoGradientError`."""
    try:
        yield
    except RuntimeError as error:
        if "numpy()" not in str(error):
            raise
        raise NoGradientError from error
