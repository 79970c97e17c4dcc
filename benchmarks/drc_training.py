"""Environment steps per second of training a DRC(2, 2) of 16 channels by IMPALA on 10 x 10 Sokoban, beside the same
network written with plain `nn.Conv2d` modules and autograd.

Both train in one process and one thread, in the same environments and by the same learner, taking turns; only the
network differs. The limit is the processor's matrix product (float32): what it would take to do the convolutions'
multiplications, forwards twice (once to act) and backwards, and nothing else.
"""

import time
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Result, main
from rl_interp.agents.impala import IMPALAConfig, default_config
from rl_interp.agents.impala import actor as actor_module
from rl_interp.agents.impala import training as training_module
from rl_interp.agents.impala.training import Training
from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.envs import SokobanConfig

ROUNDS = 9


class PlainCell(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.inputs = nn.Conv2d(3 * channels, 4 * channels, 3, padding=1)
        self.hidden = nn.Conv2d(channels, 4 * channels, 3, padding=1, bias=False)
        self.fence = nn.Conv2d(1, 4 * channels, 3, bias=False)
        self.pool = nn.Parameter(torch.randn(2, channels) / 2)

    def forward(self, x: Tensor, below: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        pooled = (self.pool[0] * h.amax((2, 3)) + self.pool[1] * h.mean((2, 3)))[:, :, None, None].expand_as(h)
        fence = F.pad(x.new_zeros(len(x), 1, *x.shape[2:]), (1, 1, 1, 1), value=1.0)
        gates = self.inputs(torch.cat([x, below, pooled], 1)) + self.hidden(h) + self.fence(fence)
        i, j, f, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.tanh(i) * torch.sigmoid(j)
        return torch.tanh(c) * torch.tanh(o), c


class Plain(Agent):
    """The same network, as one would write it."""

    def __init__(self, config: IMPALAConfig):
        super().__init__()
        channels, (inputs, height, width) = config.channels[0], config.env.observation_shape
        self.shape, self.ticks = (channels, height, width), config.ticks
        self.conv1 = nn.Conv2d(inputs, channels, 4, padding="same")
        self.conv2 = nn.Conv2d(channels, channels, 4, padding="same")
        self.cells = nn.ModuleList(PlainCell(channels) for _ in range(config.layers))
        self.fc = nn.Linear(channels * height * width, config.hidden)
        self.policy, self.value = nn.Linear(config.hidden, 4), nn.Linear(config.hidden, 1)

    def initial_state(self, batch: int) -> State:
        return tuple(torch.zeros(batch, *self.shape) for _ in range(2 * len(self.cells)))

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        assert first is not None
        x = self.conv2(self.conv1(obs.flatten(0, 1).float() / 255)).unflatten(0, obs.shape[:2])
        hidden, cells = list(state[: len(self.cells)]), list(state[len(self.cells) :])
        outputs = []
        for t in range(len(x)):
            keep = (~first[t]).float()[:, None, None, None]
            hidden, cells = [each * keep for each in hidden], [each * keep for each in cells]
            for _ in range(self.ticks):
                below = hidden[-1]
                for d, cell in enumerate(self.cells):
                    hidden[d], cells[d] = cell(x[t], below, hidden[d], cells[d])
                    below = hidden[d]
            outputs.append(hidden[-1])
        flat = torch.relu(self.fc((torch.stack(outputs) + x).flatten(0, 1).flatten(1)))
        logits, value = self.policy(flat).unflatten(0, obs.shape[:2]), self.value(flat).view(obs.shape[:2])
        return PolicyOutput((*hidden, *cells), logits=logits, value=value)


def limit(config: IMPALAConfig) -> float:
    """Steps per second if the convolutions were one matrix product of the processor's best."""
    channels, cells = config.channels[0], 100
    ticks = config.layers * config.ticks * cells * 9 * 2 * channels * 4 * channels
    inputs = config.layers * cells * 9 * channels * 4 * channels
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 1024**3 / min(times) / (4 * (ticks + inputs))


def measure() -> Result:
    """Training a DRC on Sokoban, steps per second."""
    torch.set_num_threads(1)
    config = default_config(SokobanConfig(levels="unfiltered"), network="drc", layers=2, ticks=2, channels=(16,))
    trainings, rates = {"ours": Training(config, 0)}, {"ours": [], "plain modules and autograd": []}
    trainings["plain modules and autograd"] = _with_plain(config)
    for round_number in range(ROUNDS + 1):
        for name, training in trainings.items():
            start = time.perf_counter()
            training.advance()
            if round_number:  # the first compiles
                rates[name].append(config.unroll * config.num_envs / (time.perf_counter() - start))
    ours, plain = (median(each) for each in rates.values())
    details = {"network": "DRC(2, 2), 16 channels", "environments": config.num_envs, "steps per update": config.unroll}
    return Result("drc_training", "steps/s", ours, {"plain modules and autograd": plain}, limit(config), details)


def _with_plain(config: IMPALAConfig) -> Training:
    """The same training of the plain network."""
    made, actor_module.make_agent = actor_module.make_agent, Plain
    training_module.make_agent = Plain
    try:
        return Training(config, 0)
    finally:
        training_module.make_agent = actor_module.make_agent = made


if __name__ == "__main__":
    main(measure, ("numba",))
