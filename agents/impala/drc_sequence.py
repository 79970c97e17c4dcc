"""All times and ticks of a DRC as one operation of autograd, for float32 on a CPU.

The same numbers as stepping the modules of `drc.py`, several times as fast, because

- boards have channels last, in which PyTorch's convolutions come close to the processor's best;
- what the input adds to the gates is one convolution a time instead of one a tick, and pooled values, fence and bias,
  which are the same all over the board but for its edge, are a small product for nine kinds of cells;
- gates, cell, hidden state, its maximum and its mean are one compiled pass over memory, and so are their gradients;
- backpropagation through time is written out, and keeps no more than the gates, the cells and the convolutions' inputs.

Shape letters: T time, N ticks, B batch, D layers, P cells of the board (H · W), C channels. Arrays have channels last.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rl_interp.agents.impala.drc_kernels import KINDS, pool, tick, tick_backward

_TOGETHER = 32
"""Boards that go through all times together: what they need at once fits the processor's caches."""


class Parameters(NamedTuple):
    """Of one layer, as `drc.Cell` has them."""

    inputs: Tensor
    """`[4C, 3C, 3, 3]`: of the input, the hidden state below and the pooled values."""
    bias: Tensor
    """`[4C]`"""
    hidden: Tensor
    """`[4C, C, 3, 3]`"""
    fence: Tensor
    """`[4C, 1, 3, 3]`"""
    pool: Tensor
    """`[2, C]`: of the maximum and of the mean."""


def fits(x: Tensor) -> bool:
    """Whether the compiled loops are for such values."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and min(x.shape[-2:]) >= 2 and x.numel() > 0


def sweep(
    x: Tensor, h: Tensor, c: Tensor, keep: Tensor, layers: list[Parameters], ticks: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the layers `ticks` times at each time.

    Args:
        x: encoded observations, `[T, B, C, H, W]`.
        h: hidden states, `[B, D, C, H, W]`, as `c`, the cells'.
        keep: `[T, B]`, 0 where a state is forgotten before the time, else 1.

    Returns:
        The last layer's hidden state after each time, `[T, B, C, H, W]`, and the last states, as `h` and `c`.
    """
    parameters = [parameter for layer in layers for parameter in layer]
    parts = [
        _Sweep.apply(*(each.contiguous() for each in part), ticks, *parameters)
        for part in zip(
            *(each.movedim(-3, -1).split(_TOGETHER, axis) for each, axis in ((x, 1), (h, 0), (c, 0))),
            keep.split(_TOGETHER, 1),
            strict=True,
        )
    ]
    out, h, c = (torch.cat(column, axis) for column, axis in zip(zip(*parts, strict=True), (1, 0, 0), strict=True))
    return out.movedim(-1, -3), h.movedim(-1, -3), c.movedim(-1, -3)


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, h: Tensor, c: Tensor, keep: Tensor, ticks: int, *parameters: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        layers = _layers(parameters, x.shape[2:4])
        learns = any(ctx.needs_input_grad)
        ctx.memory = memory = _Memory(x, layers, ticks, everything=learns)
        out = _forward(memory, layers, x, h, c, keep)
        if learns:
            ctx.save_for_backward(x, keep, *parameters)
            ctx.ticks = ticks
        return out, memory.hidden(), memory.cells()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_out: Tensor, d_h: Tensor, d_c: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, keep, *parameters = ctx.saved_tensors
        layers = _layers(parameters, x.shape[2:4])
        sums = [_Gradients.zeros_like(layer) for layer in layers]
        d_x, d_h, d_c = _backward(ctx.memory, layers, sums, x, keep, d_out.contiguous(), d_h, d_c)
        each = [g for layer, of_layer in zip(layers, sums, strict=True) for g in of_layer.of_parameters(layer)]
        return d_x, d_h, d_c, None, None, *each


# -- a layer's weights, in the form that is computed with ------------------------------------------


@dataclass(frozen=True)
class _Layer:
    of_x: Tensor
    """`[4C, C, 3, 3]`: a convolution's weights."""
    of_h: Tensor
    """`[4C, 2C, 3, 3]`: of the hidden state below and its own."""
    of_pooled: Tensor
    """`[C, 9 · 4C]`: what a pooled value adds to the gates of each kind of cell."""
    fixed: Tensor
    """`[9 · 4C]`: bias and fence."""
    pool: Tensor
    kinds: NDArray[np.int64]
    """`[P]`: each cell's kind."""
    inside: Tensor
    """`[9, 3, 3]`: whether a kind's neighbour is on the board."""


def _layers(parameters: Any, size: torch.Size) -> list[_Layer]:
    each = [Parameters(*parameters[i : i + 5]) for i in range(0, len(parameters), 5)]
    return [_layer(*(value.detach() for value in layer), *_board(tuple(size))) for layer in each]  # pyright: ignore[reportCallIssue]


def _layer(
    inputs: Tensor, bias: Tensor, hidden: Tensor, fence: Tensor, pool: Tensor, kinds: NDArray[np.int64], inside: Tensor
) -> _Layer:
    x, below, pooled = inputs.chunk(3, 1)
    of_kinds = torch.einsum("gchw,khw->ckg", pooled, inside)
    fixed = bias + torch.einsum("ghw,khw->kg", fence[:, 0], 1 - inside)
    return _Layer(
        x.contiguous(memory_format=torch.channels_last),
        torch.cat([below, hidden], 1).contiguous(memory_format=torch.channels_last),
        of_kinds.flatten(1),
        fixed.flatten(),
        pool,
        kinds,
        inside,
    )


@cache
def _board(size: tuple[int, ...]) -> tuple[NDArray[np.int64], Tensor]:
    """Each cell's kind, and of each kind which of the nine cells around are on the board."""
    places = [np.r_[0, np.ones(side - 2, np.int64), 2] for side in size]
    kinds = (3 * places[0][:, None] + places[1]).ravel()
    along = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 0]], np.float32)
    return kinds, torch.from_numpy(np.einsum("ah,bw->abhw", along, along).reshape(KINDS, 3, 3))


@dataclass
class _Gradients:
    """Of a `_Layer`'s weights, summed over times and ticks."""

    of_x: Tensor
    of_h: Tensor
    of_pooled: Tensor
    fixed: Tensor
    pool: Tensor

    @staticmethod
    def zeros_like(layer: _Layer) -> "_Gradients":
        return _Gradients(*map(torch.zeros_like, (layer.of_x, layer.of_h, layer.of_pooled, layer.fixed, layer.pool)))

    def of_parameters(self, layer: _Layer) -> tuple[Tensor, ...]:
        """In the order of `Parameters`."""
        channels = self.pool.shape[1]
        pooled = torch.einsum("ckg,khw->gchw", self.of_pooled.unflatten(1, (KINDS, -1)), layer.inside)
        below, hidden = self.of_h.split(channels, 1)
        fixed = self.fixed.unflatten(0, (KINDS, -1))
        fence = torch.einsum("kg,khw->ghw", fixed, 1 - layer.inside)[:, None]
        return torch.cat([self.of_x, below, pooled], 1), fixed.sum(0), hidden, fence, self.pool


# -- through time ----------------------------------------------------------------------------------


class _Memory:
    """What was computed at each tick: all of it where gradients are wanted, else the newest.

    Entry k of `both`, `cell`, `peak`, `place` and `mean` is what tick k starts from, entry k of `gates` what it gives.
    """

    def __init__(self, x: Tensor, layers: list[_Layer], ticks: int, everything: bool):
        time, batch, height, width, channels = x.shape
        self.size, self.ticks, self.steps = (height, width), ticks, time * ticks
        self.kept = self.steps + 1 if everything else 2
        depth, places = len(layers), height * width
        self.both = np.empty((depth, self.kept, batch, places, 2 * channels), np.float32)
        """The hidden state below, and the layer's own."""
        self.cell = np.empty((depth, self.kept, batch, places, channels), np.float32)
        self.gates = np.empty((depth, self.kept - 1, batch, places, 4 * channels), np.float32)
        self.peak, self.mean = np.empty((2, depth, self.kept, batch, channels), np.float32)
        self.place = np.empty((depth, self.kept, batch, channels), np.int32)

    def at(self, k: int) -> int:
        """The entry of tick k."""
        return k % self.kept

    def given(self, d: int, k: int) -> Tensor:
        """What the convolution of layer d is given at tick k, `[B, H, W, 2C]`."""
        return self.boards(self.both[d, self.at(k)])

    def boards(self, flat: NDArray[np.float32]) -> Tensor:
        """`[B, P, C]` as `[B, H, W, C]`."""
        return torch.from_numpy(flat).unflatten(1, self.size)

    def pooled(self, layer: _Layer, d: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted sum of maximum and mean `[B, C]` of layer d at tick k, and the two."""
        peak, mean = (torch.from_numpy(each[d, self.at(k)]) for each in (self.peak, self.mean))
        return layer.pool[0] * peak + layer.pool[1] * mean, peak, mean

    def hidden(self) -> Tensor:
        """`[B, D, H, W, C]`"""
        channels = self.cell.shape[-1]
        return self._states(self.both[:, self.at(self.steps), ..., channels:])

    def cells(self) -> Tensor:
        return self._states(self.cell[:, self.at(self.steps)])

    def _states(self, values: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(values).transpose(0, 1).unflatten(2, self.size).contiguous()


def _convolved(boards: Tensor, weight: Tensor) -> NDArray[np.float32]:
    """`[B, H, W, I]` -> `[B, P, O]`, with zeros around the boards."""
    return _flat(F.conv2d(boards.movedim(-1, 1), weight, padding=1))


def _gradients(d_out: Tensor, boards: Tensor, weight: Tensor, d_weight: Tensor) -> NDArray[np.float32]:
    """From the gradient `[B, H, W, O]` of a convolution's output that of its input, `[B, P, I]`; that of its weights is
    added to `d_weight`."""
    d_in, d_of, _ = torch.ops.aten.convolution_backward(
        d_out.movedim(-1, 1), boards.movedim(-1, 1), weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
        [True, True, False],
    )  # fmt: skip
    d_weight += d_of
    return _flat(d_in)


def _flat(boards: Tensor) -> NDArray[np.float32]:
    """`[B, C, H, W]` as `[B, P, C]`."""
    return boards.movedim(1, -1).flatten(1, 2).contiguous().numpy()


def _forward(memory: _Memory, layers: list[_Layer], x: Tensor, h: Tensor, c: Tensor, keep: Tensor) -> Tensor:
    time, ticks, last = len(x), memory.ticks, len(layers) - 1
    channels = x.shape[-1]
    keeps = torch.cat([keep, torch.ones_like(keep[:1])]).numpy()
    ones = np.ones_like(keeps[0])
    out = torch.empty_like(x)
    # What the first tick starts from.
    kept = (h * keep[0, :, None, None, None, None]).flatten(2, 3).transpose(0, 1).numpy()
    memory.both[:, 0, ..., channels:], memory.both[0, 0, ..., :channels] = kept, kept[-1]
    memory.cell[:, 0] = c.flatten(2, 3).transpose(0, 1).numpy()
    for d in range(last + 1):
        pool(memory.both[d, 0], memory.peak[d, 0], memory.place[d, 0], memory.mean[d, 0])
    for t in range(time):
        from_x = [_convolved(x[t], layer.of_x) for layer in layers]
        for n in range(ticks):
            k = t * ticks + n
            now, after = memory.at(k), memory.at(k + 1)
            before, next_keep = keeps[t] if n == 0 else ones, keeps[t + 1] if n == ticks - 1 else ones
            for d, layer in enumerate(layers):
                from_h = _convolved(memory.given(d, k), layer.of_h)
                pooled, _, _ = memory.pooled(layer, d, k)
                from_kinds = torch.addmm(layer.fixed, pooled, layer.of_pooled).unflatten(1, (KINDS, -1))
                # The last layer's hidden state is below the first's at the next tick.
                above = memory.both[0, after] if d == last else memory.both[d + 1, now]
                tick(
                    from_h, from_x[d], from_kinds.numpy(), layer.kinds, before, next_keep, d == last,
                    memory.cell[d, now], memory.gates[d, k % (memory.kept - 1)], memory.cell[d, after],
                    memory.both[d, after], above, out[t].flatten(1, 2).numpy(),
                    memory.peak[d, after], memory.place[d, after], memory.mean[d, after],
                )  # fmt: skip
    return out


def _backward(
    memory: _Memory,
    layers: list[_Layer],
    all_sums: list[_Gradients],
    x: Tensor,
    keep: Tensor,
    d_out: Tensor,
    d_h: Tensor,
    d_c: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    time, batch, height, width, channels = x.shape
    ticks, last, places = memory.ticks, len(layers) - 1, height * width
    keeps = torch.cat([keep, torch.ones_like(keep[:1])]).numpy()
    ones = np.ones_like(keeps[0])
    d_x = torch.zeros_like(x)
    # Of what the next tick starts from: hidden states below and own, cells, maxima and means. After the last tick, the
    # gradients of the states that were returned.
    d_both = [np.zeros((batch, places, 2 * channels), np.float32) for _ in layers]
    d_cell = d_c.flatten(2, 3).transpose(0, 1).contiguous().numpy().copy()
    d_peak, d_mean = np.zeros((2, last + 1, batch, channels), np.float32)
    for d in range(last + 1):
        d_both[d][..., channels:] = d_h[:, d].flatten(1, 2).numpy()
    d_gates = np.empty((batch, places, 4 * channels), np.float32)
    d_kinds = np.empty((batch, KINDS, 4 * channels), np.float32)
    for t in reversed(range(time)):
        d_from_x = np.zeros((last + 1, batch, places, 4 * channels), np.float32)
        for n in reversed(range(ticks)):
            k = t * ticks + n
            before, next_keep = keeps[t] if n == 0 else ones, keeps[t + 1] if n == ticks - 1 else ones
            for d in range(last, -1, -1):
                layer, sums = layers[d], all_sums[d]
                tick_backward(
                    memory.gates[d, k], memory.cell[d, k], memory.cell[d, k + 1], before, next_keep, d == last,
                    d_both[d], d_both[0] if d == last else d_both[d + 1], d_out[t].flatten(1, 2).numpy(),
                    d == last and n == ticks - 1, d_peak[d], memory.place[d, k + 1], d_mean[d], layer.kinds,
                    d_cell[d], d_gates, d_from_x[d], d_kinds,
                )  # fmt: skip
                d_both[d] = _gradients(memory.boards(d_gates), memory.given(d, k), layer.of_h, sums.of_h)
                pooled, peak, mean = memory.pooled(layer, d, k)
                kinds = torch.from_numpy(d_kinds).flatten(1)
                sums.of_pooled.addmm_(pooled.T, kinds)
                sums.fixed += kinds.sum(0)
                d_pooled = kinds @ layer.of_pooled.T
                sums.pool += torch.stack([(d_pooled * peak).sum(0), (d_pooled * mean).sum(0)])
                d_peak[d], d_mean[d] = (d_pooled * layer.pool[0]).numpy(), (d_pooled * layer.pool[1] / places).numpy()
        for d, layer in enumerate(layers):
            d_given = _gradients(memory.boards(d_from_x[d]), x[t], layer.of_x, all_sums[d].of_x)
            d_x[t] += memory.boards(d_given)
    # To the states that were given.
    d_before = np.stack([each[..., channels:] for each in d_both])
    d_before[last] += d_both[0][..., :channels]
    d_before += d_mean[:, :, None]
    for d in range(last + 1):
        for c in range(channels):
            d_before[d, np.arange(batch), memory.place[d, 0, :, c], c] += d_peak[d, :, c]
    d_before = torch.from_numpy(d_before * keeps[0][:, None, None]).transpose(0, 1).unflatten(2, memory.size)
    return d_x, d_before, torch.from_numpy(d_cell).transpose(0, 1).unflatten(2, memory.size)
