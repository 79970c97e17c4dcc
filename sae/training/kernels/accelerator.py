"""Selection and sums over active pairs on an accelerator: PyTorch's operations select, Triton's loops sum
(`triton_loops.py`).

Shape letters as in `pairs.py`; n samples of a chunk, k latents selected of each.

Selection goes by chunks of samples, so that 262,144 latents fit, and gradients are summed after a stable sort by
latent, so that nothing depends on atomic additions. Untested on a GPU: tests cover selection on the CPU, the loops in
Triton's interpreter (equal to the dense kernel), and fits on a simulated device, on which mixing devices raises.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from math import gcd

import torch
from torch import Tensor

from rl_interp.core.device import bf16_pays
from rl_interp.core.errors import UserError
from rl_interp.sae.training.kernels.pairs import Active, Pairs, SparseKernel, from_floors

_SELECTION_BYTES = 1 << 28
"""Pre-activations that selection holds at a time: 512 samples of 262,144 latents."""


class AcceleratorKernel(SparseKernel):
    """Pairs are selected chunk by chunk of samples, by products in bf16 where the device has it, and their values
    computed again in full precision. Every sum has one order, so results are the same each time."""

    def top_rows(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> Active:
        found = [largest_of_rows(pre, k) for _, pre in _chunks(x, encoder, bias)]
        values, latents = (torch.cat(each) for each in zip(*found, strict=True))
        latents, order = latents.sort(1)
        kept = values.gather(1, order) > 0
        pairs = Pairs.of((kept.nonzero()[:, 0], latents[kept]), len(x), len(encoder))
        return self.encode(x, encoder, bias, pairs)

    def top_all(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Active:
        values, places = _working(x.new_zeros(0)), torch.zeros(0, dtype=torch.int64, device=x.device)
        for at, pre in _chunks(x, encoder, bias):
            largest = pre.flatten().topk(min(count, pre.numel()), sorted=False)
            values = torch.cat([values, largest.values])
            places = torch.cat([places, largest.indices + at * len(encoder)])
            if len(values) > count:
                values, best = values.topk(count, sorted=False)
                places = places[best]
        places = places[values > 0].sort().values
        pairs = Pairs.of((places // len(encoder), places % len(encoder)), len(x), len(encoder))
        return self.encode(x, encoder, bias, pairs)

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, floors: Tensor) -> Active:
        shifted, low = from_floors(x, encoder, bias, floors)
        found = []
        for at, pre in _chunks(x, encoder, shifted):
            samples, latents = (pre > low).nonzero(as_tuple=True)
            found.append((samples + at, latents))
        samples, latents = (torch.cat(each) for each in zip(*found, strict=True))
        return self.encode(x, encoder, bias, Pairs.of((samples, latents), len(x), len(encoder)))

    def dots(self, pairs: Pairs, rows: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
        return _loops().dots(pairs.samples, pairs.latents, rows, latents, offsets)

    def by_sample(self, pairs: Pairs, weights: Tensor, latents: Tensor) -> Tensor:
        return _loops().sums(pairs.starts, pairs.latents, weights, latents)

    def by_latent(self, pairs: Pairs, weights: Tensor, rows: Tensor | None) -> tuple[Tensor | None, Tensor]:
        starts, samples, places = pairs.by_latent
        ordered = weights[places]
        summed = None if rows is None else _loops().sums(starts, samples, ordered, rows)
        return summed, _loops().sums(starts, samples, ordered, ordered.new_ones(len(pairs), 1))[:, 0]


def check_triton() -> None:
    """Raise a `UserError` where Triton is missing, which comes with PyTorch's builds for accelerators."""
    if find_spec("triton") is None:
        raise UserError(
            "kernel='sparse' given on an accelerator, which needs triton; install it, or give --kernel dense or "
            "--device cpu."
        )


def largest_of_rows(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row of `pre [n, F]` and where they are, both `[n, k]`, in no order.

    They lie in the k groups of neighbours whose maxima are largest: were one elsewhere, each of these groups would hold
    one at least as large. So PyTorch's selection, which reads its input many times, is given the groups' maxima and
    then those groups, not the whole row.
    """
    width = gcd(pre.shape[1], 1 << round((pre.shape[1] / k) ** 0.5).bit_length())
    groups = pre.unflatten(1, (-1, width))
    if width == 1 or groups.shape[1] <= k:
        return pre.topk(k, dim=1, sorted=False)
    best = groups.amax(2).topk(k, dim=1, sorted=False).indices
    candidates = groups.gather(1, best[:, :, None].expand(-1, -1, width)).flatten(1)
    values, places = candidates.topk(k, dim=1, sorted=False)
    return values, best.gather(1, places // width) * width + places % width


@torch.no_grad()
def _chunks(x: Tensor, encoder: Tensor, bias: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Pre-activations `[n, F]` of the samples from the given one on."""
    x, encoder, bias = (_working(each) for each in (x, encoder, bias))
    size = max(64, _SELECTION_BYTES // (encoder.element_size() * len(encoder)))
    for at in range(0, len(x), size):
        yield at, torch.addmm(bias, x[at : at + size], encoder.T)


def _working(values: Tensor) -> Tensor:
    """In the precision that selection works in."""
    return values.bfloat16() if bf16_pays(values.device) else values


def _loops():
    from rl_interp.sae.training.kernels import triton_loops

    return triton_loops
