"""The two products of a sparse autoencoder that is being fitted, over its active pairs (sample, latent) alone.

Encoding needs the pre-activations of the active pairs, decoding a weighted sum of directions for each sample; each is
the other's gradient. `SparseKernel` computes both pair by pair, on a CPU; `DenseKernel` by dense products and
autograd, anywhere: the reference that the other is tested against.

Shape letters: N samples, F latents, D width, P active pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rl_interp.core.device import bf16_pays
from sae.training import kernels

_SELECTION_BYTES = 1 << 26
"""Pre-activations that selection holds at a time, where it may go by chunks of samples."""
_MARGIN = 2.0**-5
"""Relative to a pre-activation of mean size; the rounding of products in bf16 is an eighth of it, or less."""

_Found = tuple[NDArray[np.int64], NDArray[np.int32]]


@dataclass(frozen=True)
class Pairs:
    """Active pairs, sample by sample: those of sample n are `starts[n] : starts[n + 1]`, in order of the latents."""

    starts: NDArray[np.int64]
    """`[N + 1]`."""
    latents: NDArray[np.int32]
    """`[P]`."""
    d_sae: int
    dense: Tensor | None = None
    """`[N, F]`: all pre-activations, where a dense kernel made them."""

    @cached_property
    def by_latent(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
        """`starts [F + 1]`, `samples [P]` and places in this order `[P]`, latent by latent."""
        return kernels.by_latent(self.starts, self.latents, self.d_sae)

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """`[P]`."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def index(self) -> Tensor:
        """The latents `[P]`, int32, on the device of the values."""
        return torch.from_numpy(self.latents).to(self._device)

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """Samples and latents, as PyTorch indexes."""
        return torch.from_numpy(self.samples).to(self._device), self.index

    @property
    def _device(self) -> torch.device | str:
        return "cpu" if self.dense is None else self.dense.device

    def where(self, kept: NDArray[np.bool_]) -> "Pairs":
        """The pairs for which `kept [P]` is true."""
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return replace(self, starts=starts, latents=self.latents[kept])


class Kernel(Protocol):
    """Selection, and the two products with their gradients.

    `x [N, D]`, `encoder [F, D]`, `bias [F]`; the pre-activations are `x encoderᵀ + bias`. The largest are selected
    among the positive ones.
    """

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Pairs:
        """The k largest of each sample."""
        ...

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Pairs:
        """The `count` largest of the batch, and a few more about as large as the smallest of them."""
        ...

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Pairs:
        """Those above `floors [F]`, and some just below."""
        ...

    def encode(self, x: Tensor, encoder: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
        """`[P]`: the pairs' pre-activations."""
        ...

    def decode(self, values: Tensor, decoder: Tensor, pairs: Pairs) -> Tensor:
        """`[N, D]`: each sample's sum of `decoder [F, D]`, weighted by `values [P]`."""
        ...


class SparseKernel:
    """On a CPU. Pairs are selected by products in bf16, where the processor has it, and their values computed again
    in full precision; gradients are sums over the pairs, none of size `[N, F]`."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.bfloat16)
        self._bf16 = bf16_pays(torch.device("cpu"))

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Pairs:
        return self._by_chunks(x, encoder, bias, lambda pre: kernels.top_rows(pre, k))

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Pairs:
        return Pairs(*kernels.top_all(self._pre(x, encoder, bias), count), len(encoder))

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Pairs:
        # Selected is what is less than `margin` below its floor, several roundings of the product.
        margin = _MARGIN * x.norm() * encoder.detach().norm() / (len(x) * len(encoder) * x.shape[1]) ** 0.5
        shifted, floor = bias.detach() - floors.detach() + 2 * margin, _bits(margin.reshape(1).bfloat16())[0]
        return self._by_chunks(x, encoder, shifted, lambda pre: kernels.above(pre, int(floor)))

    def encode(self, x: Tensor, encoder: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
        return _Encode.apply(x, encoder, bias, pairs)  # pyright: ignore[reportReturnType]

    def decode(self, values: Tensor, decoder: Tensor, pairs: Pairs) -> Tensor:
        return _Decode.apply(values, decoder, pairs)  # pyright: ignore[reportReturnType]

    def _by_chunks(self, x: Tensor, encoder: Tensor, bias: Tensor, select: Callable[..., _Found]) -> Pairs:
        chunk = max(64, _SELECTION_BYTES // (2 * len(encoder)))
        found = [select(self._pre(x[at : at + chunk], encoder, bias)) for at in range(0, len(x), chunk)]
        counts = np.concatenate([np.diff(starts) for starts, _ in found])
        latents = found[0][1] if len(found) == 1 else np.concatenate([latents for _, latents in found])
        return Pairs(np.concatenate([[0], np.cumsum(counts)]), latents, len(encoder))

    @torch.no_grad()
    def _pre(self, x: Tensor, encoder: Tensor, bias: Tensor) -> NDArray[np.int16]:
        """`[N, F]`: pre-activations in bf16, as int16, in a buffer that the next call writes over."""
        if not self._bf16:
            return _bits(torch.addmm(bias, x, encoder.T).bfloat16())
        if self._buffer.numel() < len(x) * len(encoder):
            self._buffer = torch.empty(len(x) * len(encoder), dtype=torch.bfloat16)
        out = self._buffer[: len(x) * len(encoder)].view(len(x), len(encoder))
        # The bias as one more column of the product: PyTorch would write it to all of `out` first.
        one, with_bias = F.pad(x.bfloat16(), (0, 16)), F.pad(encoder.bfloat16(), (0, 16))
        one[:, x.shape[1]], with_bias[:, x.shape[1]] = 1, bias.bfloat16()
        torch.mm(one, with_bias.T, out=out)
        return _bits(out)


class DenseKernel:
    """Dense products and autograd, on any device."""

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Pairs:
        pre = torch.addmm(bias, x, encoder.T)
        kept = torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(k, dim=1).indices, True)
        return _dense(pre, kept & (pre > 0))

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Pairs:
        pre = torch.addmm(bias, x, encoder.T)
        floor = pre.flatten().topk(min(count, pre.numel())).values[-1]
        return _dense(pre, (pre >= floor) & (pre > 0))

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Pairs:
        pre = torch.addmm(bias, x, encoder.T)
        return _dense(pre, pre >= floors)

    def encode(self, x: Tensor, encoder: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
        assert pairs.dense is not None
        return pairs.dense[pairs.places]

    def decode(self, values: Tensor, decoder: Tensor, pairs: Pairs) -> Tensor:
        latents = values.new_zeros(len(pairs.starts) - 1, pairs.d_sae).index_put(pairs.places, values)
        return latents @ decoder


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, encoder: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(x, encoder)
        ctx.pairs = pairs
        return _dots(pairs, x, encoder, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, encoder), pairs = ctx.saved_tensors, ctx.pairs
        needs_x, needs_encoder, _, _ = ctx.needs_input_grad
        to_encoder, to_bias = _by_latent(pairs, gradient, x if needs_encoder else None)
        return _by_sample(pairs, gradient, encoder) if needs_x else None, to_encoder, to_bias, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, decoder: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(values, decoder)
        ctx.pairs = pairs
        return _by_sample(pairs, values, decoder)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (values, decoder), pairs = ctx.saved_tensors, ctx.pairs
        needs_values, needs_decoder, _ = ctx.needs_input_grad
        to_values = _dots(pairs, gradient, decoder, decoder.new_zeros(len(decoder))) if needs_values else None
        return to_values, _by_latent(pairs, values, gradient)[0] if needs_decoder else None, None


def _dots(pairs: Pairs, rows: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
    """`[P]`: products of a sample's row `[N, D]` and a latent's `[F, D]`, plus the latent's offset `[F]`."""
    arrays = (_array(rows), _array(latents), _array(offsets))
    return torch.from_numpy(kernels.dots(pairs.starts, pairs.latents, *arrays))


def _by_sample(pairs: Pairs, weights: Tensor, latents: Tensor) -> Tensor:
    """`[N, D]`: sums of `latents [F, D]`, weighted by `[P]`."""
    return torch.from_numpy(kernels.sums(pairs.starts, pairs.latents, _array(weights), _array(latents)))


def _by_latent(pairs: Pairs, weights: Tensor, rows: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """`[F, D]` and `[F]`: sums of `rows [N, D]`, weighted by `[P]`, and of the weights."""
    starts, samples, places = pairs.by_latent
    ordered = _array(weights)[places]
    summed = None if rows is None else torch.from_numpy(kernels.sums(starts, samples, ordered, _array(rows)))
    return summed, torch.from_numpy(kernels.totals(starts, ordered))


def _dense(pre: Tensor, kept: Tensor) -> Pairs:
    samples, latents = (each.cpu().numpy() for each in kept.nonzero(as_tuple=True))
    starts = np.concatenate([[0], np.cumsum(np.bincount(samples, minlength=len(pre)))])
    return Pairs(starts, latents.astype(np.int32), pre.shape[1], pre)


def _bits(values: Tensor) -> NDArray[np.int16]:
    return values.view(torch.int16).numpy()


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())
