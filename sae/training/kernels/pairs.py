"""The two products of a sparse autoencoder that is being fitted, over its active pairs (sample, latent) alone.

Encoding selects pairs and needs their pre-activations, decoding a weighted sum of directions for each sample; each is
the other's gradient. A `SparseKernel` computes both pair by pair, on a CPU (`cpu.py`) or an accelerator
(`accelerator.py`); `DenseKernel` by dense products and autograd, anywhere: the reference that the others are tested
against.

Shape letters: N samples, F latents, D width, P active pairs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@dataclass(frozen=True)
class Pairs:
    """Active pairs, sample by sample: those of sample n are `starts[n] : starts[n + 1]`, in order of the latents."""

    starts: Tensor
    """`[N + 1]`, int64."""
    latents: Tensor
    """`[P]`, int32."""
    d_sae: int

    @classmethod
    def of(cls, active: tuple[Tensor, Tensor], samples: int, d_sae: int) -> "Pairs":
        """From sample and latent of each pair `[P]`, in order."""
        ends = torch.arange(samples + 1, device=active[0].device)
        return cls(torch.searchsorted(active[0], ends), active[1].int(), d_sae)

    def __len__(self) -> int:
        """N."""
        return len(self.starts) - 1

    @cached_property
    def samples(self) -> Tensor:
        """`[P]`, int64."""
        return _repeated(self.starts, len(self.latents))

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """`starts [F + 1]`, `samples [P]` and places in this order `[P]`, latent by latent."""
        latents, places = self.latents.sort(stable=True)
        ends = torch.arange(self.d_sae + 1, dtype=latents.dtype, device=latents.device)
        return torch.searchsorted(latents, ends), self.samples[places], places

    def where(self, kept: Tensor) -> "Pairs":
        """The pairs for which `kept [P]` is true."""
        return replace(self, starts=F.pad(kept.cumsum(0), (1, 0))[self.starts], latents=self.latents[kept])


Active = tuple[Pairs, Tensor]
"""Pairs and their pre-activations `[P]`."""


class Kernel(Protocol):
    """Selection of pairs with their pre-activations, and decoding; gradients go through both.

    `x [N, D]`, `encoder [F, D]`, `bias [F]`; the pre-activations are `x encoderᵀ + bias`. The largest are selected
    among the positive ones.
    """

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Active:
        """The k largest of each sample."""
        ...

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Active:
        """The `count` largest of the batch; of those that equal the smallest of them some, or all."""
        ...

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Active:
        """Those above `floors [F]`, and some just below."""
        ...

    def decode(self, values: Tensor, decoder: Tensor, pairs: Pairs) -> Tensor:
        """`[N, D]`: each sample's sum of `decoder [F, D]`, weighted by `values [P]`."""
        ...

    def error(self, values: Tensor, decoder: Tensor, b_dec: Tensor, y: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """The residual `[N, D]`, which is what is decoded, plus `b_dec [D]`, less `y [N, D]`: its squares' sum, of
        which `y` gets no gradient, and itself without gradient."""
        ...


class SparseKernel(ABC):
    """The products and their gradients as sums over the pairs, none of size `[N, F]`. Selection, and the sums
    themselves, depend on the device."""

    def encode(self, x: Tensor, encoder: Tensor, bias: Tensor, pairs: Pairs, values: Tensor | None = None) -> Active:
        """The pairs with their pre-activations, which are computed unless they are given."""
        return pairs, _Encode.apply(x, encoder, bias, values, pairs, self)  # pyright: ignore[reportReturnType]

    def decode(self, values: Tensor, decoder: Tensor, pairs: Pairs) -> Tensor:
        return _Decode.apply(values, decoder, pairs, self)  # pyright: ignore[reportReturnType]

    def error(self, values: Tensor, decoder: Tensor, b_dec: Tensor, y: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return _Error.apply(values, decoder, b_dec, y, pairs, self)  # pyright: ignore[reportReturnType]

    def residuals(
        self, values: Tensor, decoder: Tensor, b_dec: Tensor, y: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        """`[N, D]`, see `error`; and `[P]`: products of a sample's residual and a latent's row of the decoder."""
        residual = self.by_sample(pairs, values, decoder).add_(b_dec).sub_(y)
        return residual, self.dots(pairs, residual, decoder, decoder.new_zeros(len(decoder)))

    @abstractmethod
    def dots(self, pairs: Pairs, rows: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
        """`[P]`: products of a sample's row `[N, D]` and a latent's `[F, D]`, plus the latent's offset `[F]`."""

    @abstractmethod
    def by_sample(self, pairs: Pairs, weights: Tensor, latents: Tensor) -> Tensor:
        """`[N, D]`: sums of `latents [F, D]`, weighted by `[P]`."""

    @abstractmethod
    def by_latent(self, pairs: Pairs, weights: Tensor, rows: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """`[F, D]` and `[F]`: sums of `rows [N, D]`, weighted by `[P]`, and of the weights."""


class DenseKernel:
    """Dense products and autograd, on any device."""

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Active:
        pre = torch.addmm(bias, x, encoder.T)
        kept = torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(k, dim=1).indices, True)
        return _active(kept & (pre > 0), pre)

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Active:
        pre = torch.addmm(bias, x, encoder.T)
        floor = pre.flatten().topk(min(count, pre.numel())).values[-1]
        return _active((pre >= floor) & (pre > 0), pre)

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Active:
        pre = torch.addmm(bias, x, encoder.T)
        return _active(pre >= floors, pre)

    def decode(self, values: Tensor, decoder: Tensor, pairs: Pairs) -> Tensor:
        latents = values.new_zeros(len(pairs), pairs.d_sae).index_put((pairs.samples, pairs.latents), values)
        return latents @ decoder

    def error(self, values: Tensor, decoder: Tensor, b_dec: Tensor, y: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        residual = self.decode(values, decoder, pairs) + (b_dec - y.detach())
        return residual.square().sum(), residual.detach()


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder: Tensor, bias: Tensor, values: Tensor | None, pairs: Pairs, kernel: SparseKernel
    ) -> Tensor:
        ctx.save_for_backward(x, encoder)
        ctx.pairs, ctx.kernel = pairs, kernel
        return kernel.dots(pairs, x, encoder, bias) if values is None else values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, encoder), pairs, kernel = ctx.saved_tensors, ctx.pairs, ctx.kernel
        needs_x, needs_encoder, *_ = ctx.needs_input_grad
        to_encoder, to_bias = kernel.by_latent(pairs, gradient, x if needs_encoder else None)
        to_x = kernel.by_sample(pairs, gradient, encoder) if needs_x else None
        return to_x, to_encoder, to_bias, None, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, decoder: Tensor, pairs: Pairs, kernel: SparseKernel) -> Tensor:
        ctx.save_for_backward(values, decoder)
        ctx.pairs, ctx.kernel = pairs, kernel
        return kernel.by_sample(pairs, values, decoder)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (values, decoder), pairs, kernel = ctx.saved_tensors, ctx.pairs, ctx.kernel
        needs_values, needs_decoder, *_ = ctx.needs_input_grad
        to_values = kernel.dots(pairs, gradient, decoder, decoder.new_zeros(len(decoder))) if needs_values else None
        return to_values, kernel.by_latent(pairs, values, gradient)[0] if needs_decoder else None, None, None


class _Error(torch.autograd.Function):
    """All that its gradients need but sums over the latents is there once the residual is: a kernel may find it while
    the decoder's rows are at hand."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, decoder: Tensor, b_dec: Tensor, y: Tensor, pairs: Pairs, kernel: SparseKernel
    ) -> tuple[Tensor, Tensor]:
        residual, along = kernel.residuals(values, decoder, b_dec, y, pairs)
        ctx.save_for_backward(values, residual, along)
        ctx.pairs, ctx.kernel = pairs, kernel
        ctx.mark_non_differentiable(residual)
        ctx.set_materialize_grads(False)  # the residual's would be zeros of its size
        return torch.dot(residual.flatten(), residual.flatten()), residual

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
        (values, residual, along), scale = ctx.saved_tensors, 2 * gradient
        _, needs_decoder, needs_bias, *_ = ctx.needs_input_grad
        to_decoder = ctx.kernel.by_latent(ctx.pairs, values * scale, residual)[0] if needs_decoder else None
        to_bias = residual.sum(0) * scale if needs_bias else None
        return along * scale, to_decoder, to_bias, None, None, None


def from_floors(x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> tuple[Tensor, Tensor]:
    """For `SparseKernel.above` in bf16: a bias `[F]` and one threshold, above which every pre-activation lies that is
    above its latent's floor, however it was rounded, and some just below theirs.

    Pre-activations are counted from their floors, so that rounding, which is relative, moves little what is near them.
    """
    rounding = _ROUNDING * x.norm() * encoder.detach().norm() / (len(x) * len(encoder) * x.shape[1]) ** 0.5
    return bias.detach() - floors.detach() + 2 * rounding, rounding


_ROUNDING = 2.0**-5
"""What is taken to be lost to rounding, relative to a pre-activation of mean size: products in bf16 lose an eighth of
it, or less."""


def _active(kept: Tensor, pre: Tensor) -> Active:
    samples, latents = kept.nonzero(as_tuple=True)
    return Pairs.of((samples, latents), len(pre), pre.shape[1]), pre[samples, latents]


def _repeated(starts: Tensor, total: int) -> Tensor:
    rows = torch.arange(len(starts) - 1, device=starts.device)
    return rows.repeat_interleave(starts.diff(), output_size=total)
