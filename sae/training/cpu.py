"""Selection and sums over active pairs on a CPU, in compiled loops (`kernels.py`)."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rl_interp.core.device import bf16_pays
from sae.training import kernels
from sae.training.pairs import Pairs, SparseKernel, from_floors

_SELECTION_BYTES = 1 << 26
"""Pre-activations that selection holds at a time, where it may go by chunks of samples."""

_Found = tuple[NDArray[np.int64], NDArray[np.int32]]


class CPUKernel(SparseKernel):
    """Pairs are selected by products in bf16, where the processor has it, and their values computed again in full
    precision."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.bfloat16)
        self._bf16 = bf16_pays(torch.device("cpu"))

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Pairs:
        return self._by_chunks(x, encoder, bias, lambda pre: kernels.top_rows(pre, k))

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Pairs:
        return _pairs(*kernels.top_all(self._pre(x, encoder, bias), count), len(encoder))

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Pairs:
        shifted, low = from_floors(x, encoder, bias, floors)
        floor = int(_bits(low.reshape(1).bfloat16())[0])
        return self._by_chunks(x, encoder, shifted, lambda pre: kernels.above(pre, floor))

    def dots(self, pairs: Pairs, rows: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
        return torch.from_numpy(kernels.dots(*_arrays(pairs.starts, pairs.latents, rows, latents, offsets)))

    def by_sample(self, pairs: Pairs, weights: Tensor, latents: Tensor) -> Tensor:
        return torch.from_numpy(kernels.sums(*_arrays(pairs.starts, pairs.latents, weights, latents)))

    def by_latent(self, pairs: Pairs, weights: Tensor, rows: Tensor | None) -> tuple[Tensor | None, Tensor]:
        starts, samples, places, given = _arrays(*pairs.by_latent, weights)
        ordered = given[places]
        summed = None if rows is None else kernels.sums(starts, samples, ordered, _arrays(rows)[0])
        return None if summed is None else torch.from_numpy(summed), torch.from_numpy(kernels.totals(starts, ordered))

    def _by_chunks(self, x: Tensor, encoder: Tensor, bias: Tensor, select: Callable[..., _Found]) -> Pairs:
        chunk = max(64, _SELECTION_BYTES // (2 * len(encoder)))
        found = [select(self._pre(x[at : at + chunk], encoder, bias)) for at in range(0, len(x), chunk)]
        counts = np.concatenate([np.diff(starts) for starts, _ in found])
        latents = found[0][1] if len(found) == 1 else np.concatenate([latents for _, latents in found])
        return _pairs(np.concatenate([[0], np.cumsum(counts)]), latents, len(encoder))

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


class _Counted(Pairs):
    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """By counting, in a twentieth of the time that PyTorch's sort takes."""
        starts, latents = _arrays(self.starts, self.latents)
        found = kernels.by_latent(starts, latents, self.d_sae)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1]), torch.from_numpy(found[2])


def _pairs(starts: NDArray[np.int64], latents: NDArray[np.int32], d_sae: int) -> Pairs:
    return _Counted(torch.from_numpy(starts), torch.from_numpy(latents), d_sae)


def _bits(values: Tensor) -> NDArray[np.int16]:
    return values.view(torch.int16).numpy()


def _arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(tensor.detach().numpy()) for tensor in tensors]
