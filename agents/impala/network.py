"""What IMPALA has after its encoder: an LSTM whose gates can be hooked, and the heads."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.encoders import in_float32
from rl_interp.core.agent import HookPoint

LSTMState = tuple[Tensor, Tensor]
"""Hidden and cell state, `[B, D]` each."""


def policy_and_value(policy: nn.Linear, baseline: nn.Linear, features: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and values `[N, A]` and `[N, 1]` of features `[N, D]`, in float32."""
    return in_float32(policy, features), in_float32(baseline, features)


def watched(*layers: nn.Module) -> bool:
    """Whether a hook is on one of them or within, whose values must then exist as tensors of their own."""
    within = (module for layer in layers for module in layer.modules())
    return any(module._forward_hooks or module._forward_pre_hooks for module in within)


def once_each(see: Callable[[Tensor], Tensor], obs: Tensor) -> Tensor:
    """`see(obs)` for observations of whole numbers `[N, ...]`, computed once for those that are the same; so are their
    gradients, which add up."""
    rows = obs.flatten(1).long()
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=torch.Generator().manual_seed(0))
    # Sums of products that wrap around tell rows apart well enough to group by, and the rows decide.
    numbers, which = torch.unique((rows * factors.to(rows.device)).sum(1), return_inverse=True)
    example = torch.empty_like(numbers).scatter_(0, which, torch.arange(len(rows), device=rows.device))
    different = obs[example]
    # In float32 where they are in bf16, as the gradients of what came often would be lost in a sum of 8 binary digits.
    return see(different).float()[which] if torch.equal(different[which], obs) else see(obs)


class HookedLSTM(nn.Module):
    """One LSTM layer, stepped through time; the state is reset to zero where `first` is set.

    Hochreiter & Schmidhuber 1997, in the form and the weight layout of `torch.nn.LSTM`. Gates, cell and hidden state
    are modules, so that each can be read and changed at every step.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.width = width
        self.weight_ih = nn.Parameter(torch.empty(4 * width, inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, width))
        self.bias = nn.Parameter(torch.empty(4 * width))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
        self.input_gate, self.forget_gate = nn.Sigmoid(), nn.Sigmoid()
        self.cell_gate, self.output_gate = nn.Tanh(), nn.Sigmoid()
        self.cell, self.hidden = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor, state: LSTMState, first: Tensor | None) -> tuple[Tensor, LSTMState]:
        """`x [T, B, inputs]`, `first [T, B]` -> hidden states `[T, B, width]` and the last state; in float32, or in
        the weights' own type, whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            hidden, cell = state
            unwatched = not watched(*self.children())
            if unwatched and len(x) == 1 and not torch.is_grad_enabled():  # as an actor steps
                hidden, cell = hidden.to(self.bias.dtype), cell.to(self.bias.dtype)
                kept = (hidden, cell) if first is None else (hidden * ~first[0][:, None], cell * ~first[0][:, None])
                weights = self.weight_ih, self.weight_hh, self.bias, torch.zeros_like(self.bias)
                hidden, cell = torch.lstm_cell(x[0].to(self.bias.dtype), kept, *weights)
                return hidden[None], (hidden, cell)
            # The inputs' part of the gates does not wait for the state, so it is one product for all steps.
            projected = F.linear(x.to(self.bias.dtype), self.weight_ih, self.bias)
            keep = projected.new_ones(*x.shape[:2], 1) if first is None else (~first).to(projected.dtype)[..., None]
            if unwatched:  # three times as fast
                outputs, hidden, cell = _Sequence.apply(projected, hidden, cell, self.weight_hh, keep)
                return outputs, (hidden, cell)
            outputs = []
            for t in range(len(x)):
                hidden, cell = self._step(projected[t] + F.linear(hidden * keep[t], self.weight_hh), cell * keep[t])
                outputs.append(hidden)
            return torch.stack(outputs), (hidden, cell)

    def _step(self, gates: Tensor, cell: Tensor) -> LSTMState:
        i, f, g, o = gates.chunk(4, -1)
        cell = self.cell(self.forget_gate(f) * cell + self.input_gate(i) * self.cell_gate(g))
        return self.hidden(self.output_gate(o) * torch.tanh(cell)), cell


def lstm_hook_points(path: str, head: str | None) -> dict[str, HookPoint]:
    """`lstm.i`, `.f`, `.g`, `.o` (gates after their nonlinearity; `.pre` before it), `lstm.c` and `lstm.h`, which the
    linear layer `head` reads, where one does."""
    gates = {"i": "input_gate", "f": "forget_gate", "g": "cell_gate", "o": "output_gate"}
    points = {"lstm.c": HookPoint(f"{path}.cell", "T B D", "recurrent")}
    for letter, module in gates.items():
        points[f"lstm.{letter}.pre"] = HookPoint(f"{path}.{module}", "T B D", "recurrent", side="input")
        points[f"lstm.{letter}"] = HookPoint(f"{path}.{module}", "T B D", "recurrent")
    return points | {"lstm.h": HookPoint(f"{path}.hidden", "T B D", "recurrent", head=head)}


class _Sequence(torch.autograd.Function):
    """All steps of an LSTM as one operation of autograd: the same numbers as stepping, three times as fast.

    Backpropagation through time is written out: what depends on the forward pass alone is computed for all steps at
    once, and the recurrent weights' gradient is one product.
    """

    @staticmethod
    def forward(ctx, projected: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, keep: Tensor):
        time, batch, width = len(projected), len(hidden), hidden.shape[1]
        gates = torch.empty_like(projected)
        outputs, cells, tanhs, before_h, before_c = projected.new_empty(5, time, batch, width)
        for t in range(time):
            # An episode's first step starts from zero.
            torch.mul(hidden, keep[t], out=before_h[t])
            torch.mul(cell, keep[t], out=before_c[t])
            # All four gates in one product, their nonlinearities in place.
            torch.addmm(projected[t], before_h[t], weight.T, out=gates[t])
            i, f, g, o = gates[t].chunk(4, -1)
            gates[t, :, : 2 * width].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            # c = f · c + i · g and h = o · tanh(c), written straight to where the backward pass reads them.
            cell = torch.mul(f, before_c[t], out=cells[t]).addcmul_(i, g)
            hidden = torch.mul(o, torch.tanh(cell, out=tanhs[t]), out=outputs[t])
        ctx.save_for_backward(gates, tanhs, before_h, before_c, weight, keep)
        return outputs, hidden.clone(), cell.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_outputs: Tensor, d_hidden: Tensor, d_cell: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        gates, tanhs, before_h, before_c, weight, keep = ctx.saved_tensors
        i, f, g, o = gates.chunk(4, -1)
        # One factor of every gradient, for all steps at once: from the hidden state to the cell through tanh, and to
        # the gates' inputs, the first three by way of the cell and the last by way of the hidden state.
        cell_from_hidden = o * (1 - tanhs.square())
        by_cell = torch.cat([g * i * (1 - i), before_c * f * (1 - f), i * (1 - g.square())], -1)
        by_hidden = tanhs * o * (1 - o)
        d_gates = torch.empty_like(gates)
        for t in reversed(range(len(gates))):
            # The hidden state is an output and the next step's input; the cell passes through it and on to the next.
            d_hidden = d_hidden + d_outputs[t]
            d_cell = torch.addcmul(d_cell, d_hidden, cell_from_hidden[t])
            through_cell = d_gates[t, :, : by_cell.shape[-1]].unflatten(-1, (3, -1))
            torch.mul(d_cell[:, None], by_cell[t].unflatten(-1, (3, -1)), out=through_cell)
            torch.mul(d_hidden, by_hidden[t], out=d_gates[t, :, by_cell.shape[-1] :])
            # To the step before, unless an episode began here.
            d_hidden = (d_gates[t] @ weight) * keep[t]
            d_cell = d_cell * f[t] * keep[t]
        d_weight = d_gates.flatten(0, 1).T @ before_h.flatten(0, 1)
        return d_gates, d_hidden, d_cell, d_weight, None
