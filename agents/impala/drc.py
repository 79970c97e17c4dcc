"""DRC, the Deep Repeated ConvLSTM: an agent that sweeps its layers several times over the board before each step.

Guez et al. 2019, "An investigation of model-free planning" (arXiv 1901.03559), in the form of Taufeeque et al. 2024
(arXiv 2407.15421): DRC(3, 3) with 32 channels has 1,285,125 parameters on 10 × 10 pixels and four actions, and theirs
can be imported.

Shape letters: T time, N ticks, B batch, D layers, C channels, H W board.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.encoders import Encoder, OneHot, Scale, observation_kind
from rl_interp.agents.impala.drc_sequence import Parameters, fits, sweep
from rl_interp.agents.impala.network import policy_and_value
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import tick

GATES = "ijfo"
"""In the order of the published weights: what is written, whether it is, whether the cell is kept, the output."""


class DRC(Agent):
    """Logits `[T, B, A]` and values `[T, B]` from observations uint8 `[T, B, channels, H, W]`.

    The state is `(h, c)`, each `[B, D, C, H, W]`. The layers work on boards of any size; the head is for one.

    Args:
        shape: of an observation, `(channels, H, W)`.
        categories: how many each channel has, where bytes are categories; None where they are intensities.
        layers: ConvLSTM cells, D.
        ticks: sweeps over them at each step, N.
        channels: of the encoding and of each cell, C.
        hidden: width of the fully connected layer.
    """

    def __init__(
        self,
        num_actions: int,
        shape: tuple[int, ...],
        categories: tuple[int, ...] | None = None,
        layers: int = 3,
        ticks: int = 3,
        channels: int = 32,
        hidden: int = 256,
    ):
        super().__init__()
        self.observation = observation_kind(shape, categories)
        self.size, self.ticks, self.channels = tuple(shape[1:]), ticks, channels
        self.encoder = _encoder(shape, categories, channels)
        self.layers = nn.ModuleList(Cell(channels) for _ in range(layers))
        self.fc, self.relu = nn.Linear(self.encoder.width, hidden), nn.ReLU()
        self.policy, self.baseline = nn.Linear(hidden, num_actions), nn.Linear(hidden, 1)
        for linear in (self.fc, self.policy, self.baseline):
            _lecun_(linear.weight) if linear is self.fc else nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.hook_points = {
            **self.encoder.points("encoder."),
            **{name: point for d in range(layers) for name, point in _layer_points(d).items()},
            "fc.pre": HookPoint("fc", "B D"),
            "fc.post": HookPoint("relu", "B D", head="policy"),
            "policy": HookPoint("policy", "B D"),
            "value": HookPoint("baseline", "B D"),
        }

    def initial_state(self, batch: int) -> State:
        zeros = torch.zeros(batch, len(self.layers), self.channels, *self.size, device=self.device)
        return (zeros, zeros.clone())

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        if tuple(obs.shape[-2:]) != self.size:
            raise UserError(
                f"observations of {_by(obs.shape[-2:])} given to an agent whose head is for {_by(self.size)}; give "
                "levels of that size, or train an agent on this one."
            )
        time, batch = obs.shape[:2]
        out, encoded, state = self.swept(obs, state, first)
        flat = self.relu(self.fc((out + encoded).flatten(0, 1).flatten(1)))
        logits, values = policy_and_value(self.policy, self.baseline, flat)
        return PolicyOutput(state, logits=logits.unflatten(0, (time, batch)), value=values.view(time, batch))

    def swept(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> tuple[Tensor, Tensor, State]:
        """All but the head, on boards of any size: the last layer's hidden state after each time and the encoding,
        `[T, B, C, H, W]`, and the next state."""
        time, batch = obs.shape[:2]
        h, c = state or self.initial_state(batch)
        encoded = self.encoder(obs.flatten(0, 1)).float().unflatten(0, (time, batch))
        keep = encoded.new_ones(time, batch) if first is None else (~first).to(encoded.dtype)
        with torch.autocast(obs.device.type, enabled=False):
            if fits(encoded) and not self._watched():
                out, h, c = sweep(encoded, h, c, keep, [layer.parameters_of() for layer in self._cells()], self.ticks)
            else:
                out, h, c = self._stepped(encoded, h, c, keep)
        return out, encoded, (h, c)

    def _stepped(self, encoded: Tensor, h: Tensor, c: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tick by tick, with every value a tensor of its own."""
        hidden, cells = list(h.unbind(1)), list(c.unbind(1))
        outputs = []
        for x, kept in zip(encoded, keep[..., None, None, None], strict=True):
            hidden, cells = [each * kept for each in hidden], [each * kept for each in cells]
            from_x = [layer.of_input(x) for layer in self._cells()]
            for n in range(self.ticks):
                with tick(n):
                    below = hidden[-1]
                    for d, layer in enumerate(self._cells()):
                        below, cells[d] = layer(from_x[d], below, hidden[d], cells[d])
                        hidden[d] = below
            outputs.append(hidden[-1])
        return torch.stack(outputs), torch.stack(hidden, 1), torch.stack(cells, 1)

    def _cells(self) -> "list[Cell]":
        return list(self.layers)  # pyright: ignore[reportReturnType]

    def _watched(self) -> bool:
        """Whether a hook is on anything that happens tick by tick."""
        return any(each._forward_hooks or each._forward_pre_hooks for each in self.layers.modules())


class Cell(nn.Module):
    """A ConvLSTM cell: `c = σ(f) c + tanh(i) σ(j)` and `h = tanh(c) tanh(o)`, with the gates
    `conv([input, h below, pooled]) + conv(h) + conv(fence)`.

    `pooled` are the maximum and the mean of `h` over the board, weighted by channel, at every place. The fence is 1
    just outside of the board and 0 on it.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.inputs = nn.Conv2d(3 * channels, 4 * channels, 3, padding=1)
        self.hidden = nn.Conv2d(channels, 4 * channels, 3, padding=1, bias=False)
        self.fence = nn.Conv2d(1, 4 * channels, 3, bias=False)
        self.pool = nn.Parameter(torch.empty(2, channels))
        for conv in (self.inputs, self.hidden, self.fence):
            _lecun_(conv.weight)
        assert self.inputs.bias is not None
        nn.init.zeros_(self.inputs.bias)
        nn.init.trunc_normal_(self.pool, std=2**-0.5)
        self.gate_i, self.gate_j, self.gate_f, self.gate_o = nn.Tanh(), nn.Sigmoid(), nn.Sigmoid(), nn.Tanh()
        self.pooled, self.c, self.h = nn.Identity(), nn.Identity(), nn.Identity()

    def of_input(self, x: Tensor) -> Tensor:
        """What is the same at each tick, `[B, 4C, H, W]`: what the input, the fence and the bias add to the gates."""
        fence = F.pad(x.new_zeros(1, 1, *x.shape[-2:]), (1, 1, 1, 1), value=1.0)
        return F.conv2d(x, self.inputs.weight[:, : self.channels], self.inputs.bias, padding=1) + self.fence(fence)

    def forward(self, from_x: Tensor, below: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One tick; all are `[B, C, H, W]` but `from_x [B, 4C, H, W]`. Returns the new `h` and `c`."""
        pooled = self.pooled(self.pool[0] * h.amax((2, 3)) + self.pool[1] * h.mean((2, 3)))
        given = torch.cat([below, pooled[..., None, None].expand_as(h), h], 1)
        weight = torch.cat([self.inputs.weight[:, self.channels :], self.hidden.weight], 1)
        i, j, f, o = (from_x + F.conv2d(given, weight, padding=1)).chunk(4, 1)
        c = self.c(self.gate_f(f) * c + self.gate_i(i) * self.gate_j(j))
        return self.h(torch.tanh(c) * self.gate_o(o)), c

    def parameters_of(self) -> Parameters:
        assert self.inputs.bias is not None
        return Parameters(self.inputs.weight, self.inputs.bias, self.hidden.weight, self.fence.weight, self.pool)


def _encoder(shape: tuple[int, ...], categories: tuple[int, ...] | None, channels: int) -> Encoder:
    """Two convolutions without a nonlinearity, of the observation's own size."""
    first = {"scale": Scale()} if categories is None else {"one_hot": OneHot(categories)}
    inputs = shape[0] if categories is None else sum(categories)
    conv1, conv2 = nn.Conv2d(inputs, channels, 4), nn.Conv2d(channels, channels, 4)
    for conv in (conv1, conv2):
        _lecun_(conv.weight)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
    pads = [nn.ZeroPad2d((1, 2, 1, 2)) for _ in range(2)]  # the same size, with the odd cell after, as JAX has it
    layers = {**first, "pad1": pads[0], "conv1": conv1, "pad2": pads[1], "conv2": conv2}
    return Encoder(layers, {name: (name, "B C H W") for name in ("conv1", "conv2")}, (channels, *shape[1:]))


def _layer_points(d: int) -> dict[str, HookPoint]:
    """`layer1.i`, `.j`, `.f`, `.o` (gates after their nonlinearity; `.pre` before it), `layer1.c`, `layer1.h` and
    `layer1.pooled`."""
    path, name, axes = f"layers.{d}.", f"layer{d + 1}.", "T N B C H W"
    points = {}
    for gate in GATES:
        points[f"{name}{gate}.pre"] = HookPoint(f"{path}gate_{gate}", axes, "recurrent", side="input")
        points[f"{name}{gate}"] = HookPoint(f"{path}gate_{gate}", axes, "recurrent")
    points[f"{name}pooled"] = HookPoint(f"{path}pooled", "T N B D", "recurrent")
    return points | {name + value: HookPoint(path + value, axes, "recurrent") for value in ("c", "h")}


def _lecun_(weight: Tensor) -> None:
    """Truncated normal of variance 1 / fan-in, as in the published network."""
    fan_in = weight[0].numel()
    std = fan_in**-0.5 / 0.8796256610342398  # of a normal cut off at two standard deviations
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def _by(sides: tuple[int, ...] | torch.Size) -> str:
    return " x ".join(map(str, sides))
