"""The layer norm, in float32 as published, whatever type comes in.

PyTorch's on a CPU has two faults that matter here. In bf16 it sums the gradients of its weights in bf16, where a sum
no longer grows once it is a few hundred times what is added: of 16,384 rows two fifths of the bias's gradient were
lost, of 262,144 all but 4%. And it processes rows shorter than a vector register one number at a time: with the 8
channels and 32×32 positions of size `tiny`, two norms took two fifths of an update. Those are compiled here, and take a
seventh of the time.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor, nn

from rl_interp.core.compiled import compiled
from rl_interp.core.threads import share_threads

_WIDTH = 16
"""Numbers in the widest vector registers: rows of as many are PyTorch's."""
_ROWS = 4096
"""Rows per part: threads share the parts, and gradients of the weights are summed part by part."""


class LayerNorm(nn.LayerNorm):
    """Over the last axis; the result has the type of the input."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-3)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        small = len(weight) < _WIDTH and (weight.device.type, weight.dtype) == ("cpu", torch.float32)
        if small and loops_are_right(len(weight)):
            return _Normed.apply(input, weight, self.bias, self.eps)
        return super().forward(input.to(weight.dtype)).to(input.dtype)


@cache
def loops_are_right(width: int) -> bool:
    """Whether the compiled loops for rows this wide give PyTorch's norm and gradients on some known numbers; tried
    once."""
    x, gradient = (torch.arange(5.0 * width).view(5, width).mul(step).sin() for step in (1, 2))
    tried = []

    def plain(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return nn.functional.layer_norm(x, (width,), weight, bias, eps)

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        for norm in (_Normed.apply, plain):
            leaves = [each.clone().requires_grad_() for each in (x, gradient[0], gradient[1])]
            out: Tensor = norm(*leaves, 1e-3)  # pyright: ignore[reportCallIssue]
            tried.append((out, *torch.autograd.grad(out, leaves, gradient)))
    return all(torch.allclose(ours, right, rtol=1e-4, atol=1e-4) for ours, right in zip(*tried, strict=True))


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        rows = x.detach().reshape(-1, len(weight)).float().contiguous()
        out, inverse = torch.empty_like(rows), torch.empty(len(rows))
        normed = torch.empty_like(rows)
        share_threads()
        forward, _ = _kernels(len(weight))
        forward(rows.numpy(), weight.numpy(force=True), bias.numpy(force=True), np.float32(eps), out.numpy(),
                normed.numpy(), inverse.numpy())  # fmt: skip
        ctx.save_for_backward(normed, inverse, weight)
        return out.to(x.dtype).view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        normed, inverse, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, len(weight)).float().contiguous()
        before = torch.empty_like(rows)
        sums = torch.empty(-(-len(rows) // _ROWS), 2, len(weight))
        share_threads()
        _, backward = _kernels(len(weight))
        backward(rows.numpy(), normed.numpy(), inverse.numpy(), weight.numpy(force=True), before.numpy(), sums.numpy())
        by_weight, by_bias = sums.sum(0)
        return before.to(gradient.dtype).view(gradient.shape), by_weight, by_bias, None


@cache
def _kernels(channels: int) -> tuple[Any, Any]:
    """Forward and backward for rows of a length known at compile time, so that the loops over them are unrolled."""
    compile_rows = compiled(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}, parallel=True)
    share = np.float32(1 / channels)

    @compile_rows
    def forward(x, weight, bias, eps, out, normed, inverse):
        for part in prange(-(-len(x) // _ROWS)):
            for n in range(part * _ROWS, min((part + 1) * _ROWS, len(x))):
                mean, square = np.float32(0), np.float32(0)
                for c in range(channels):
                    mean += x[n, c] * share
                for c in range(channels):
                    square += (x[n, c] - mean) ** 2 * share
                inverse[n] = np.float32(1) / np.sqrt(square + eps)
                for c in range(channels):
                    normed[n, c] = (x[n, c] - mean) * inverse[n]
                    out[n, c] = normed[n, c] * weight[c] + bias[c]

    @compile_rows
    def backward(gradient, normed, inverse, weight, before, sums):
        for part in prange(len(sums)):
            by_weight, by_bias = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
            for n in range(part * _ROWS, min((part + 1) * _ROWS, len(normed))):
                along_ones, along_normed = np.float32(0), np.float32(0)
                for c in range(channels):
                    along_ones += gradient[n, c] * weight[c] * share
                    along_normed += gradient[n, c] * weight[c] * normed[n, c] * share
                for c in range(channels):
                    by_weight[c] += gradient[n, c] * normed[n, c]
                    by_bias[c] += gradient[n, c]
                    direct = gradient[n, c] * weight[c] - along_ones - normed[n, c] * along_normed
                    before[n, c] = direct * inverse[n]
            sums[part, 0], sums[part, 1] = by_weight, by_bias

    return forward, backward
