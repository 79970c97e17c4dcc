"""Methods that go through an agent layer by layer: Grad-CAM at a spatial hook point, and layer-wise relevance."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rl_interp.core.agent import Agent, PolicyOutput, State, evaluating, tree_map
from rl_interp.core.check_agent import taking_floats
from rl_interp.core.errors import NotFiniteError, UserError
from rl_interp.core.hooks import Site, hook_point, hooked, run_with_cache
from rl_interp.core.read import first_line
from rl_interp.saliency.methods.differentiable import (
    as_map,
    as_pixels,
    differentiable,
    gradient_of,
    require_slope,
)
from rl_interp.saliency.targets import Score, Target, at_positions, evaluate, prepare


@dataclass(frozen=True, eq=False)
class GradCAM:
    """ReLU(Σ_k w_k A_k), A_k being a channel of a layer and w_k the mean of the target's gradient over its positions,
    linear between positions (Selvaraju et al. 2017, arXiv 1610.02391, eq. 1 and 2).

    The layer is a hook point, whose last value in the step counts: Captum's version, which hooks a module, sees one
    call of a module that is called several times. Needs no gradient at the observation, which may be symbols.
    """

    at: str | None = None
    """A spatial hook point; None: the last one that the target depends on."""
    signed: ClassVar[bool] = False

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32.

        Raises:
            UserError: an agent without a spatial hook point that the target depends on.
            HookError: no such hook point.
        """
        require_slope(target)
        pixels = obs if agent.observation == "symbols" else as_pixels(agent, obs)
        spatial = [name for name, point in agent.hook_points.items() if point.kind == "spatial" or "H" in point.axes]
        for name in [self.at] if self.at else reversed(spatial):
            found = self._at(agent, obs, pixels, target, state, name)
            if found is not None:
                return found
        raise UserError(
            f"Grad-CAM needs a spatial hook point that {target.name} depends on, and the agent has none; name one in "
            "its hook_points, or use perturbation."
        )

    def _at(
        self, agent: Agent, obs: Tensor, pixels: Tensor, target: Target, state: State, name: str
    ) -> np.ndarray | None:
        if "H" not in hook_point(agent, name).axes:
            raise UserError(f"{name!r} has no positions; Grad-CAM needs a spatial hook point.")
        kept: list[Tensor] = []

        def keep(value: Tensor, site: Site) -> Tensor:
            kept.append(value)
            return value

        state = agent.initial_state(len(obs)) if state is None else state
        with differentiable(agent):
            score, decided = prepare(agent, obs, state, target)
            with hooked(agent, {name: keep}):
                values = evaluate(agent, pixels, state, target, score, decided)
            if not values.isfinite().all():
                raise NotFiniteError(f"the maps of {target.name}")
            if not (values.requires_grad and kept[-1].requires_grad):
                return None
            (gradient,) = torch.autograd.grad(values.sum(), kept[-1], allow_unused=True)
        if gradient is None:
            return None
        weights = gradient.mean((-2, -1), keepdim=True)
        cam = (weights * kept[-1].detach()).sum(1, keepdim=True).relu()
        size = (obs.shape[-2], obs.shape[-1])
        return F.interpolate(cam, size, mode="bilinear", align_corners=False)[:, 0].float().cpu().numpy()


@dataclass(frozen=True, eq=False)
class LRP:
    """Layer-wise relevance propagation (Bach et al. 2015), by Zennit's `EpsilonPlusFlat`: the ε rule in linear layers,
    z⁺ in convolutions and flat in the first layer. Needs the extra `lrp`.

    Biases take no relevance (`zero_params`), and a sum of two results, as in residual blocks, shares it in proportion
    to the sizes of its terms, where plain backpropagation would hand all of it to each. So a map sums to its target: to
    1.00 of the shipped DQN's Q-values, and of an advantage, which is a difference of them; to 0.79 to 1.05 of a maze
    agent's logits, whose residual blocks have sums near 0.
    """

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`.

        Raises:
            UserError: Zennit is missing, an agent that sees symbols, or one with layers that LRP has no rule for.
        """
        require_slope(target)
        pixels = as_pixels(agent, obs)
        composite = _composite(agent)
        state = agent.initial_state(len(obs)) if state is None else state
        with differentiable(agent):
            score, decided = prepare(agent, obs, state, target)
            values = evaluate(agent, pixels, state, target, score, decided)
            gradient_of(values, pixels, target)  # what no gradient reaches, no relevance does
            with composite.context(agent):
                with _SharedSums():  # and not around the rules themselves, which add too
                    out, value = _run(agent, pixels, state, target)
                (found,) = torch.autograd.grad(*_relevance(out, value, score, pixels))
        return as_map(found)


def _run(agent: Agent, pixels: Tensor, state: State, target: Target) -> tuple[PolicyOutput, Tensor | None]:
    with evaluating(agent), taking_floats():
        if target.at is None:
            return agent.step(pixels, state), None
        out, cache = run_with_cache(agent, pixels, state, names=[target.at])
    return out, at_positions(agent, target.at, cache, len(pixels))


def _relevance(
    out: PolicyOutput, value: Tensor | None, score: Score, pixels: Tensor
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """What the score reads, where relevance goes, and the relevance of each number read: itself times the score's
    slope."""
    ends: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        ends.append(tensor)
        leaves.append(tensor.detach().requires_grad_())
        return leaves[-1]

    leaves: list[Tensor] = []
    heads = tree_map(leaf, PolicyOutput((), out.logits, out.q_values, out.value, out.mean, out.std))
    read = None if value is None else leaf(value)
    slopes = torch.autograd.grad(score(heads, read).sum(), leaves, allow_unused=True)
    used = [(end, end.detach() * slope) for end, slope in zip(ends, slopes, strict=True) if slope is not None]
    return [end for end, _ in used], pixels, [relevance for _, relevance in used]


_KNOWN = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.MaxPool2d,
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Dropout,
)  # fmt: skip


def _composite(agent: Agent) -> Any:
    try:
        from zennit.composites import EpsilonPlusFlat  # pyright: ignore[reportMissingImports]
        from zennit.rules import Pass  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"lrp asked for, and Zennit can't be imported ({first_line(error)}); pip install 'rl-interp[lrp]', or use "
            "integrated-gradients."
        ) from None
    except RuntimeError:  # "operator torchvision::nms does not exist": its library could not be loaded
        raise UserError(
            f"lrp asked for, and Zennit needs a torchvision that is built for the same device as PyTorch "
            f"{torch.__version__}, which PyPI's is not beside a PyTorch for CPUs alone: pip install --force-reinstall "
            "--no-deps torchvision --index-url https://download.pytorch.org/whl/cpu, or use integrated-gradients."
        ) from None
    scales = []
    for path, module in agent.named_modules():
        own = next(module.parameters(recurse=False), None)
        if isinstance(module, _KNOWN) or (own is None and any(True for _ in module.children())):
            continue
        if own is not None:
            raise UserError(
                f"lrp has rules for convolutions, linear layers, pools and ReLUs, and the agent's {path or 'own part'} "
                f"is a {type(module).__name__}; use integrated-gradients."
            )
        scales.append(type(module))  # without weights: what scales the pixels, whose relevance is that of what it gives
    kept = [(kind, Pass()) for kind in dict.fromkeys(scales) if kind is not type(agent)]
    return EpsilonPlusFlat(zero_params=["bias"], layer_map=kept)


class _SharedSums(TorchFunctionMode):
    """Sums of two results share relevance in proportion to the sizes of their terms: in proportion to the terms
    themselves, two that nearly cancel would get a thousand times what there is."""

    sums = frozenset({torch.add, Tensor.add, Tensor.__add__})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shares = func in self.sums and not kwargs and len(args) == 2 and all(_is_result(each) for each in args)
        if shares and args[0].shape == args[1].shape:
            return _SharedSum.apply(*args)
        return func(*args, **(kwargs or {}))


def _is_result(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


class _SharedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        a, b = ctx.saved_tensors
        share = relevance / (a.abs() + b.abs()).clamp(min=1e-9)
        return a.abs() * share, b.abs() * share
