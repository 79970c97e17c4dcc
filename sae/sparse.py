"""The Top-K encoder with a gradient as sparse as its output.

Autograd would send the gradient of K latents a sample back through `[N, F]` matrix products: two more
besides the one of the forward pass. Only N·K entries of it are not zero, so here the sums over them are
taken directly. What is left of the cost is the forward product, N·D·F multiplications.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def encode_topk(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The K largest of `(x − b_dec) W_enc + b_enc`, before the ReLU, in no order.

    `x [N, D]`, `W_enc [D, F]`, `b_enc [F]`, `b_dec [D]`; returns values `[N, K]` and indices `[N, K]`
    (int64). Differentiable once in the four tensors, at fixed indices.
    """
    values, indices = _EncodeTopK.apply(x, W_enc, b_enc, b_dec, k)  # type: ignore[misc]
    return values, indices


class _EncodeTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int) -> tuple[Tensor, Tensor]:
        centred = x - b_dec
        values, indices = torch.addmm(b_enc, centred, W_enc).topk(k, dim=-1, sorted=False)
        ctx.save_for_backward(centred, W_enc, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor | None, ...]:
        centred, W_enc, indices = ctx.saved_tensors
        needs_x, needs_weight, _, needs_b_dec, _ = ctx.needs_input_grad
        per_latent = gradient.new_zeros(W_enc.shape[1]).index_add_(0, indices.flatten(), gradient.flatten())
        return (
            F.embedding_bag(indices, W_enc.T.contiguous(), per_sample_weights=gradient, mode="sum")
            if needs_x
            else None,
            _sum_by_latent(indices, gradient, centred, W_enc.shape[1]).T.contiguous() if needs_weight else None,
            per_latent,
            -(W_enc @ per_latent) if needs_b_dec else None,
            None,
        )


def _sum_by_latent(indices: Tensor, weights: Tensor, rows: Tensor, latents: int) -> Tensor:
    """`[F, D]`: for each latent, the sum of `rows [N, D]` over the samples that selected it, weighted.

    The product of a transposed sparse `[N, F]` with `rows`, as one bag of samples a latent: in a fixed
    order, hence the same to the last bit whatever the number of threads.
    """
    flat = indices.flatten()
    order = flat.argsort(stable=True)
    ends = torch.bincount(flat, minlength=latents).cumsum(0)
    return F.embedding_bag(
        order // indices.shape[1],
        rows,
        F.pad(ends[:-1], (1, 0)),
        per_sample_weights=weights.flatten()[order],
        mode="sum",
    )
