"""What every method with gradients needs: observations as floats, a target as a function of them, and its gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, State, evaluating, tree_map
from rl_interp.core.errors import NotFiniteError, UserError
from rl_interp.saliency.targets import PolicyChange, Target, ValueChange, evaluate, prepare


def require_slope(target: Target, instead: str = "greydanus") -> None:
    """Refuse, with a `UserError`, the targets that are flat at the observation itself."""
    if isinstance(target, PolicyChange | ValueChange):
        raise UserError(f"{target.name} has no gradient at the observation, where nothing has changed; use {instead}.")


@contextmanager
def differentiable(agent: Agent) -> Iterator[None]:
    """Gradients in evaluation mode, which cuDNN's recurrent layers have in training mode only: they do without it."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in agent.modules())
    without = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with torch.enable_grad(), evaluating(agent), without:
        yield


def as_map(attributions: Tensor) -> np.ndarray:
    """`[B, H, W]`: an image's channels summed; vectors as they are."""
    return (attributions.sum(1) if attributions.dim() == 4 else attributions).float().cpu().numpy()


def as_pixels(agent: Agent, obs: Tensor) -> Tensor:
    """Observations as floats, of the type in which the agent computes; a `UserError` where they are symbols."""
    if agent.observation == "symbols":
        raise UserError("observations of symbols given, which have no gradient; use perturbation.")
    own = obs.dtype if obs.is_floating_point() else torch.float32
    dtype = next((weight.dtype for weight in agent.parameters() if weight.is_floating_point()), own)
    return obs.to(dtype).clone().requires_grad_()


def gradient_of(values: Tensor, pixels: Tensor, target: Target) -> Tensor:
    """The gradient of the sum of values with respect to pixels; a `UserError` where none reaches them, or where values
    are not finite, such as those of an action that is ruled out."""
    if not values.isfinite().all():
        raise NotFiniteError(f"the maps of {target.name}")
    found, why = None, "the agent detaches or rounds them"
    if values.requires_grad:
        try:
            (found,) = torch.autograd.grad(values.sum(), pixels, allow_unused=True)
        except RuntimeError as error:  # such as an operation in place that took what a derivative needs
            why = str(error).split(", which", maxsplit=1)[0]
    if found is None:
        raise UserError(f"{target.name} has no gradient with respect to the observations ({why}); use perturbation.")
    return found


def as_function(
    agent: Agent, obs: Tensor, pixels: Tensor, target: Target, state: State
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The target as a function of float pixels `[N, ...]`, N being a multiple of the batch; and its values `[B]` at
    `pixels`, those of `obs`, with their graph.

    Raises:
        UserError: as `prepare` and `evaluate` do.
    """
    state = agent.initial_state(len(obs)) if state is None else state
    score, decided = prepare(agent, obs, state, target)
    values = evaluate(agent, pixels, state, target, score, decided)

    def function(pixels: Tensor) -> Tensor:
        times = len(pixels) // len(obs)
        many = tree_map(lambda leaf: leaf.repeat(times, *[1] * (leaf.dim() - 1)), state)
        return evaluate(agent, pixels, many, target, score)

    return function, values


def one_state(state: State, i: int) -> State:
    return tree_map(lambda leaf: leaf[i : i + 1], state)
