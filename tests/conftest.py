"""Shared fixtures: small agents, and one thread, so that results are the same everywhere."""

import os
import signal
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported, and for the processes that tests start

import pytest
import torch
from processes import Programs, end, forked
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.locks import writing

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and Python and all of its children would then ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class TinyConv(Agent):
    """A convolution and a head on `[B, 2, 8, 8]` observations."""

    preference_kind = "q_values"

    hook_points = {
        "conv.pre": HookPoint("conv", "B C H W", "spatial"),
        "conv.post": HookPoint("relu", "B C H W", "spatial"),
        "q.in": HookPoint("q", "B D", side="input"),
        "q": HookPoint("q", "B D"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.relu = nn.ReLU()
        self.q = nn.Linear(3 * 36, 4)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(q_values=self.q(self.relu(self.conv(obs.to(self.q.weight.dtype))).flatten(1)))


class TinyRecurrent(Agent):
    """A GRU cell that is reset where `first` is set, and a head, on `[B, 5]` observations."""

    hook_points = {
        "gru": HookPoint("cell", "T B D", "recurrent"),
        "pi": HookPoint("pi", "B D"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 6)
        self.pi = nn.Linear(6, 3)
        self.v = nn.Linear(6, 1)

    def initial_state(self, batch: int) -> State:
        return (torch.zeros(batch, 6),)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        (hidden,) = state
        if first is not None:
            hidden = torch.where(first[:, None], torch.zeros_like(hidden), hidden)
        hidden = self.cell(obs, hidden)
        return PolicyOutput((hidden,), logits=self.pi(hidden), value=self.v(hidden)[:, 0])


@pytest.fixture(scope="session", autouse=True)
def trusted_code(tmp_path_factory):
    """A list of trusted code that is none of the user's, for commands that tests start too."""
    os.environ["RL_INTERP_TRUST"] = str(tmp_path_factory.mktemp("config") / "trusted")


@pytest.fixture
def conv_agent() -> TinyConv:
    torch.manual_seed(0)
    return TinyConv()


@pytest.fixture
def recurrent_agent() -> TinyRecurrent:
    torch.manual_seed(0)
    return TinyRecurrent()


@pytest.fixture
def conv_obs() -> Tensor:
    return torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """`program(code)`: how a program ends, and what it prints, that a process begins with after `import torch`."""
    programs = Programs(tmp_path_factory.mktemp("programs"))
    yield programs.run
    programs.end()


@pytest.fixture
def holder():
    """`holder(path, then)`: the id of another process that holds a lock and has done `then`."""
    started = []

    def start(path, then=lambda: None):
        def hold():
            with writing(path):
                then()
                os.write(ready, b"!")
                time.sleep(60)

        held, ready = os.pipe()
        started.append(forked(hold))
        assert os.read(held, 1)
        return started[-1]

    yield start
    for process in started:
        end(process)
