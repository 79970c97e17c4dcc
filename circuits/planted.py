"""Agents made by hand whose circuit is known, to test methods of discovery on.

Each decides by one path. Beside it are units that are as active but hardly reach the decision, units that would reach
it but are never active, and small random weights everywhere else, so that no edge is exactly without effect.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Edge, Mask
from rl_interp.circuits.states import States
from rl_interp.circuits.trace import trace
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.stats import auroc
from rl_interp.core.wrap import wrap

_NOISE = 0.02
"""Standard deviation of weights that have no part."""
_NEVER = -20.0
"""A bias with which a unit is never active."""


@dataclass(frozen=True)
class Planted:
    """An agent, states for it, and the edges by which it decides."""

    agent: Agent
    graph: Graph
    states: States
    truth: tuple[Edge, ...]

    def auroc(self, scores: Tensor) -> float:
        """The chance that scores `[edges]` put an edge of the circuit above one that is not of it."""
        is_true = Mask.of_edges(self.graph, self.truth).vector.numpy()
        return float(auroc(is_true, scores.detach().double().numpy(), np.ones((1, len(is_true))))[0])


def two_layers(seed: int = 0, states: int = 256) -> Planted:
    """Six inputs, layers of 12 and 8, three actions: the first where input 0 is above 0, else the second; input 1 adds
    to the first."""
    generator = torch.Generator().manual_seed(seed)
    first, second, head = (_linear(*sizes, generator) for sizes in ((6, 12), (12, 8), (8, 3)))
    path = [
        (first, "obs -> first", [(0, 0, 2.0), (1, 0, -2.0), (2, 1, 1.0)]),
        (second, "first -> second", [(0, 0, 1.0), (1, 1, 1.0), (0, 2, 0.5)]),
        (head, "second -> logits", [(0, 0, 3.0), (1, 1, 3.0)]),
    ]
    with torch.no_grad():
        for unit in range(3, 8):  # active, and heard by units that nobody hears
            first.weight[unit, 2 + unit % 4] = 2.0
            second.weight[2 + unit % 4, unit] = 1.0
        first.bias[8:], second.bias[6:] = _NEVER, _NEVER
        second.weight[:6, 8:], head.weight[:, 6:] = 2.0, 2.0
    truth = _plant(path)
    module = _Layers(first, second, head)
    points = {"first": HookPoint("act1", "B D"), "second": HookPoint("act2", "B D"), "logits": HookPoint("head", "B D")}
    obs = torch.randn(states, 6, generator=generator)
    return _planted(wrap(module, points, observation="vector"), States(obs), truth)


def channels(seed: int = 0, states: int = 128) -> Planted:
    """Pictures of three channels, two convolutions of 6 channels, two actions: the first where the middle channel is
    bright."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (_convolution(*sizes, generator) for sizes in ((3, 6), (6, 6)))
    head = _linear(6 * 9, 2, generator)
    with torch.no_grad():
        for unit in (0, 1, 3, 5):
            first.weight[unit, 2 * (unit % 2)] = 0.3
            second.weight[(unit + 1) % 4, unit] = 0.2
        first.weight[2, 1], second.weight[4, 2] = 0.3, 0.2
        head.weight[0, 4 * 9 : 5 * 9], head.weight[1, 4 * 9 : 5 * 9] = 0.2, -0.2
        for layer, unit in ((first, 4), (second, 5)):
            nn.init.constant_(layer.bias[unit : unit + 1], _NEVER)  # pyright: ignore[reportOptionalSubscript]
        second.weight[:5, 4], head.weight[:, 5 * 9 :] = 2.0, 2.0
    truth = [
        ("obs -> conv1", 2, 1), ("conv1 -> conv2", 4, 2), ("conv2 -> logits", 0, 4), ("conv2 -> logits", 1, 4),
    ]  # fmt: skip
    module = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), head)
    points = {"conv1": HookPoint("1", "B C H W"), "conv2": HookPoint("3", "B C H W"), "logits": HookPoint("5", "B D")}
    brightness = torch.randn(states, 3, 1, 1, generator=generator)
    obs = brightness + 0.3 * torch.randn(states, 3, 12, 12, generator=generator)
    return _planted(wrap(module, points, observation="vector"), States(obs), truth)


def memory(seed: int = 0, states: int = 256) -> Planted:
    """An LSTM of 4 units, one of which holds what was seen long ago, by which alone it chooses between two actions."""
    generator = torch.Generator().manual_seed(seed)
    agent = _Remembering(generator)
    with torch.no_grad():
        gates = {name: getattr(agent, name) for name in "ifgo"}
        for unit in range(1, 4):  # what is seen now, which nobody hears
            gates["g"].weight[unit, unit - 1] = 2.0
        gates["i"].bias[0], gates["f"].bias[0], gates["o"].bias[0] = -8.0, 8.0, 4.0
        agent.head.weight[0, 0], agent.head.weight[1, 0] = 3.0, -3.0
    truth = [("c[-1] -> c", 0, 0), ("c -> h", 0, 0), ("h -> logits", 0, 0), ("h -> logits", 1, 0)]
    obs, h, c = (torch.randn(states, size, generator=generator) for size in (3, 4, 4))
    return _planted(agent, States(obs, (h.tanh(), c)), truth)


PLANTED: dict[str, Callable[..., Planted]] = {"two_layers": two_layers, "channels": channels, "memory": memory}
"""All of them, by name."""


class _Layers(nn.Module):
    def __init__(self, first: nn.Linear, second: nn.Linear, head: nn.Linear):
        super().__init__()
        self.first, self.act1 = first, nn.ReLU()
        self.second, self.act2 = second, nn.ReLU()
        self.head = head

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.act2(self.second(self.act1(self.first(obs)))))


class _Remembering(Agent):
    """An LSTM written out, with its gates as modules."""

    observation = "vector"

    def __init__(self, generator: torch.Generator):
        super().__init__()
        for gate in "ifgo":
            self.add_module(gate, _linear(3 + 4, 4, generator))
            self.add_module(f"{gate}_act", nn.Tanh() if gate == "g" else nn.Sigmoid())
        self.c, self.h, self.head = nn.Identity(), nn.Identity(), _linear(4, 2, generator)
        self.hook_points = {
            **{gate: HookPoint(f"{gate}_act", "B D") for gate in "ifgo"},
            **{name: HookPoint(name, "B D") for name in "ch"},
            "logits": HookPoint("head", "B D"),
        }

    def initial_state(self, batch: int) -> State:
        return torch.zeros(batch, 4), torch.zeros(batch, 4)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        h, c = state
        if first is not None:
            h, c = (torch.where(first[:, None], torch.zeros_like(leaf), leaf) for leaf in (h, c))
        seen = torch.cat([obs, h], -1)
        i, f, g, o = (self.get_submodule(f"{gate}_act")(self.get_submodule(gate)(seen)) for gate in "ifgo")
        c = self.c(f * c + i * g)
        h = self.h(o * c.tanh())
        return PolicyOutput((h, c), logits=self.head(h))


def _planted(agent: Agent, states: States, truth: Sequence[Edge]) -> Planted:
    agent.eval().requires_grad_(False)
    return Planted(agent, trace(agent, states.obs, states.memory), states, tuple(truth))


def _plant(path: Sequence[tuple[nn.Linear, str, Sequence[tuple[int, int, float]]]]) -> list[Edge]:
    """Writes weights (to, from, value) into layers, and says which edges they are."""
    truth: list[Edge] = []
    for layer, link, weights in path:
        for to, source, value in weights:
            layer.weight.data[to, source] = value
            truth.append((link, to, source))
    return truth


def _linear(size: int, out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(size, out)
    nn.init.normal_(layer.weight, std=_NOISE, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _convolution(size: int, out: int, generator: torch.Generator) -> nn.Conv2d:
    layer = nn.Conv2d(size, out, 3, stride=2, padding=1)
    nn.init.normal_(layer.weight, std=_NOISE / 3, generator=generator)
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return layer
