"""Selection and sums over active pairs on a CPU, in compiled loops (`loops.py`).

The product of all samples with all latents was half of an update. It is computed in int8, in half the time of bf16,
and only to find candidates, an eighth more than K; their values are computed again in float32 and the K largest are
kept. On the Ms. Pac-Man agent's hidden layer (2,048 latents, K 32; one batch of 2,048 after three passes over 24,653
steps) this misses 0.04% of the K largest, where choosing by bf16 alone missed 0.5%. A sample or latent with a few
outlier values, which cost the other entries their precision, gets its products in bf16: its rounding error is known
beforehand. The candidates of a row are the entries that reach the K-th largest of the maxima of some groups of
latents, a bound that vector operations find in one pass and that little else exceeds.
"""

from collections.abc import Callable, Iterator
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from rl_interp.core.device import bf16_pays, int8_is_right, int8_pays, int8_product
from rl_interp.sae.training.kernels import loops
from rl_interp.sae.training.kernels.loops import Array
from rl_interp.sae.training.kernels.pairs import Active, DenseKernel, Kernel, Pairs, SparseKernel, from_floors

_CHUNK_BYTES = 1 << 22
"""Pre-activations at a time: what stays in the cores' caches from the product to the selection."""

_MOST_LOST = 0.04
"""Of a sample or latent to rounding in int8; of normal numbers a hundredth is lost."""

_LEAST = float(np.finfo(np.float32).tiny)
"""The least positive number."""


class CPUKernel(SparseKernel):
    """Candidates are found by products in int8, or bf16, where the processor has them, chunk by chunk of samples; their
    values are computed again in full precision, and the largest of these kept.

    Products in int8 take half the time of those in bf16 and lose about 1% of a pre-activation's standard deviation.
    With an eighth more candidates than are wanted, the last of them is several times that below the last one wanted.
    Samples and latents of which rounding takes more, since a few of their numbers are far larger than the others, get
    their products in bf16; where most do, all do.
    """

    def __init__(self) -> None:
        self._int8, self._bf16 = int8_pays(torch.device("cpu")), bf16_pays(torch.device("cpu"))

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Active:
        more = min(len(encoder), k + max(4, k // 8))
        pairs = _select(self._coarse(x, encoder, bias), lambda pre: loops.top_rows(pre, more), len(encoder))
        return self._largest(x, encoder, bias, pairs, pairs.starts, k)

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Active:
        # A few samples tell where the smallest is about.
        sample = x[:: max(1, len(x) // 128)]
        pre = np.concatenate([chunk.flatten() for chunk in self._coarse(sample, encoder, bias)])
        more = min(pre.size, int(1.3 * count * len(sample) / len(x)) + 64)
        estimate = np.partition(pre, -more)[-more]
        for share in (1.0, 0.8, 0.5, 0.0):
            floor = max(_LEAST, share * estimate)
            pairs = _above(self._coarse(x, encoder, bias), floor, len(encoder))
            if len(pairs.latents) >= count + count // 8 or floor == _LEAST:
                break
        return self._largest(x, encoder, bias, pairs, torch.tensor([0, len(pairs.latents)]), count)

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Active:
        shifted, low = from_floors(x, encoder, bias, floors)
        return self.encode(x, encoder, bias, _above(self._fine(x, encoder, shifted), low.item(), len(encoder)))

    def residuals(
        self, values: Tensor, decoder: Tensor, b_dec: Tensor, y: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        found = loops.residuals(*_arrays(pairs.starts, pairs.latents, values, decoder, b_dec, y))
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    def dots(self, pairs: Pairs, rows: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
        return torch.from_numpy(loops.dots(*_arrays(pairs.starts, pairs.latents, rows, latents, offsets)))

    def by_sample(self, pairs: Pairs, weights: Tensor, latents: Tensor) -> Tensor:
        return torch.from_numpy(loops.sums(*_arrays(pairs.starts, pairs.latents, weights, latents)))

    def by_latent(self, pairs: Pairs, weights: Tensor, rows: Tensor | None) -> tuple[Tensor | None, Tensor]:
        starts, samples, places, given = _arrays(*pairs.by_latent, weights)
        ordered = given[places]
        summed = None if rows is None else loops.sums(starts, samples, ordered, _arrays(rows)[0])
        return None if summed is None else torch.from_numpy(summed), torch.from_numpy(loops.totals(starts, ordered))

    def _largest(self, x: Tensor, encoder: Tensor, bias: Tensor, candidates: Pairs, starts: Tensor, k: int) -> Active:
        """The k largest of the candidates from each of `starts` to the next."""
        [values] = _arrays(self.dots(candidates, x, encoder, bias))
        kept = loops.largest(starts.numpy(), values.astype(np.float32, copy=False), k)
        all_starts, latents = _arrays(candidates.starts, candidates.latents)
        all_starts, latents, values = loops.where(kept, all_starts, latents, values)
        return self.encode(x, encoder, bias, _pairs(all_starts, latents, len(encoder)), torch.from_numpy(values))

    def _coarse(self, x: Tensor, encoder: Tensor, bias: Tensor) -> Iterator[Array]:
        """As `_fine`, by products in int8 where the processor has them."""
        width = x.shape[1]
        if not self._int8 or width == 1 or not int8_is_right(width):  # of a width of 1 oneDNN makes nothing
            yield from self._fine(x, encoder, bias)
            return
        rows, latents, offsets = _arrays(x.float(), encoder.float(), bias.float())
        (rows, row_scales, row_lost), (latents, scales, lost) = loops.quantised(rows), loops.quantised(latents)
        samples, uneven = (np.flatnonzero(each > _MOST_LOST) for each in (row_lost, lost))
        if 2 * len(samples) > len(rows) or 2 * len(uneven) > len(latents):
            yield from self._fine(x, encoder, bias)
            return
        of_samples = self._products(x[samples], encoder, bias)
        of_latents = self._products(x, encoder[uneven], bias[uneven])
        for chunk in _chunks(len(x), len(encoder)):
            product = int8_product(torch.from_numpy(rows[chunk]), torch.from_numpy(latents))
            pre = loops.rescaled(product.numpy(), row_scales[chunk], scales, offsets)
            pre[:, uneven] = of_latents[chunk]
            here = slice(*np.searchsorted(samples, (chunk.start, chunk.stop)))
            pre[samples[here] - chunk.start] = of_samples[here]
            yield pre

    @torch.no_grad()
    def _fine(self, x: Tensor, encoder: Tensor, bias: Tensor) -> Iterator[Array]:
        """Pre-activations `[n, F]`, fp32, of one chunk of samples after the other; by products in bf16 where the
        processor has them."""
        x, encoder, bias = self._lower(x, encoder, bias)
        for chunk in _chunks(len(x), len(encoder)):
            yield torch.addmm(bias, x[chunk], encoder.T).float().numpy()

    @torch.no_grad()
    def _products(self, x: Tensor, encoder: Tensor, bias: Tensor) -> Array:
        """As `_fine`, of all samples at once; as a rule there are none, or no latents."""
        if not len(x) or not len(encoder):
            return np.empty((len(x), len(encoder)), np.float32)
        x, encoder, bias = self._lower(x, encoder, bias)
        return torch.addmm(bias, x, encoder.T).float().numpy()

    def _lower(self, *tensors: Tensor) -> list[Tensor]:
        return [each.to(torch.bfloat16 if self._bf16 else torch.float32) for each in tensors]


@cache
def loops_are_right() -> bool:
    """Whether the compiled loops find the pairs, errors and gradients that plain products find; tried once."""
    with torch.inference_mode(False), torch.enable_grad():
        found = zip(_tried(CPUKernel()), _tried(DenseKernel()), strict=True)
        return all(torch.allclose(ours, plain, rtol=1e-4, atol=1e-4) for ours, plain in found)


def _tried(kernel: Kernel) -> list[Tensor]:
    """What a kernel makes of some known numbers."""
    x, encoder, decoder = (torch.arange(n * 40.0).view(n, 40).mul(step).sin() for n, step in ((9, 1), (70, 2), (70, 3)))
    parameters = [encoder.requires_grad_(), decoder.requires_grad_(), torch.zeros(70, requires_grad=True)]
    tried = []
    for select, argument in (("top_rows", 5), ("top_all", 45), ("above", torch.ones(70))):
        pairs, pre = getattr(kernel, select)(x, encoder, parameters[2], argument)
        kept = pre * (pre > 1)  # `above` may give some that lie below
        error, residual = kernel.error(kept, decoder, torch.ones(40), x, pairs)
        tried += [error, residual, *torch.autograd.grad(error, parameters)]
    return tried


def _chunks(samples: int, latents: int) -> Iterator[slice]:
    size = _CHUNK_BYTES // (4 * latents)
    size = size if size >= 512 else 128  # between which oneDNN's products in int8 are slow
    return (slice(at, min(at + size, samples)) for at in range(0, samples, size))


def _select(chunks: Iterator[Array], select: Callable[[Array], tuple[Array, Array]], d_sae: int) -> Pairs:
    counts, latents = (np.concatenate(each) for each in zip(*map(select, chunks), strict=True))
    return _pairs(loops.starts_of(counts), latents, d_sae)


def _above(chunks: Iterator[Array], floor: float, d_sae: int) -> Pairs:
    return _select(chunks, lambda pre: loops.above(pre, floor), d_sae)


class _Counted(Pairs):
    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """By counting, in a twentieth of the time that PyTorch's sort takes."""
        starts, latents = _arrays(self.starts, self.latents)
        found = loops.by_latent(starts, latents, self.d_sae)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1]), torch.from_numpy(found[2])


def _pairs(starts: Array, latents: Array, d_sae: int) -> Pairs:
    return _Counted(torch.from_numpy(starts), torch.from_numpy(latents), d_sae)


def _arrays(*tensors: Tensor) -> list[Array]:
    return [np.ascontiguousarray(tensor.detach().numpy()) for tensor in tensors]
