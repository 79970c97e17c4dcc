"""An LSTM whose gates, cell and hidden state are modules, so that every one can be read and changed at every step.

Hochreiter & Schmidhuber 1997, in the form and the weight layout of `torch.nn.LSTM`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.core.agent import HookPoint

LSTMState = tuple[Tensor, Tensor]
"""Hidden and cell state, `[B, D]` each."""


def lstm_hook_points(path: str) -> dict[str, HookPoint]:
    """`lstm.i`, `.f`, `.g`, `.o` (gates after their nonlinearity; `.pre` before it), `lstm.c` and `lstm.h`."""
    gates = {"i": "input_gate", "f": "forget_gate", "g": "cell_gate", "o": "output_gate"}
    points = {"lstm.c": HookPoint(f"{path}.cell", "T B D", "recurrent")}
    for letter, module in gates.items():
        points[f"lstm.{letter}.pre"] = HookPoint(f"{path}.{module}", "T B D", "recurrent", side="input")
        points[f"lstm.{letter}"] = HookPoint(f"{path}.{module}", "T B D", "recurrent")
    return points | {"lstm.h": HookPoint(f"{path}.hidden", "T B D", "recurrent")}


class HookedLSTM(nn.Module):
    """One layer, stepped through time; the state is reset to zero where `first` is set."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.width = width
        self.weight_ih = nn.Parameter(torch.empty(4 * width, inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, width))
        self.bias = nn.Parameter(torch.empty(4 * width))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
        self.input_gate, self.forget_gate, self.output_gate = nn.Sigmoid(), nn.Sigmoid(), nn.Sigmoid()
        self.cell_gate, self.cell, self.hidden = nn.Tanh(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor, state: LSTMState, first: Tensor | None) -> tuple[Tensor, LSTMState]:
        """`x [T, B, inputs]`, `first [T, B]` -> hidden states `[T, B, width]` and the last state."""
        hidden, cell = state
        projected = F.linear(x, self.weight_ih, self.bias)  # of all steps at once
        keep = None if first is None else (~first).to(projected.dtype)[..., None]
        outputs = []
        for t in range(len(x)):
            if keep is not None:
                hidden, cell = hidden * keep[t], cell * keep[t]
            hidden, cell = self._step(projected[t] + F.linear(hidden, self.weight_hh), cell)
            outputs.append(hidden)
        return torch.stack(outputs), (hidden, cell)

    def _step(self, gates: Tensor, cell: Tensor) -> LSTMState:
        i, f, g, o = gates.chunk(4, -1)
        cell = self.cell(self.forget_gate(f) * cell + self.input_gate(i) * self.cell_gate(g))
        return self.hidden(self.output_gate(o) * torch.tanh(cell)), cell
