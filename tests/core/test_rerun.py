"""Running again from a hook point equals running all of it under a hook, and computes less."""

import pytest
import torch
from torch import nn

from agents.impala import IMPALA
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, wrap
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.rerun import Rerun


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    return IMPALA(5, (3, 16, 16), channels=(4, 6), hidden=16, lstm=0).eval()


@pytest.fixture(scope="module")
def obs() -> torch.Tensor:
    return torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_every_point_gives_what_a_hook_gives(agent, obs):
    rows = torch.tensor([2, 0, 0, 1, 2])
    for at, point in agent.hook_points.items():
        rerun = Rerun(agent, obs, at)
        torch.manual_seed(1)
        values = rerun.values[rows] + torch.randn(5, *rerun.values.shape[1:])
        with torch.no_grad():
            wanted = run_with_hooks(agent, obs[rows], hooks={at: lambda value, site, new=values: new})
        torch.testing.assert_close(rerun(values, rows).logits, wanted.logits)
        torch.testing.assert_close(rerun(values, rows).value, wanted.value)
        assert point.side == "output"
        assert not any("forward" in vars(module) for module in agent.modules())


def test_what_comes_before_the_point_is_not_computed_again(agent, obs, monkeypatch):
    rerun, convolve, sizes = Rerun(agent, obs, "block2.res1.sum"), nn.functional.conv2d, []

    def counted(x, *args):
        sizes.append(tuple(x.shape))
        return convolve(x, *args)

    monkeypatch.setattr(nn.functional, "conv2d", counted)
    rerun(rerun.values)
    assert sizes == [(3, 6, 4, 4)] * 2  # of the second residual block alone


def test_an_agent_with_a_memory_can_be_run_again_from_before_it():
    torch.manual_seed(0)
    agent = IMPALA(5, (3, 16, 16), channels=(4,), hidden=16, lstm=8).eval()
    obs = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    rerun = Rerun(agent, obs, "block1.res2.sum")
    with torch.no_grad():
        wanted = run_with_hooks(agent, obs, hooks={"block1.res2.sum": lambda value, site: 2 * value})
    torch.testing.assert_close(rerun(2 * rerun.values).logits, wanted.logits)
    with pytest.raises(HookError, match="can't be run again from: it must be what a module gives once"):
        Rerun(agent, obs, "lstm.h")


def test_a_module_that_is_called_twice_is_refused():
    class Twice(Agent):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
            self.hook_points = {"layer": HookPoint("layer", "B D")}

        def step(self, obs, state=(), first=None):
            return PolicyOutput(logits=self.head(self.layer(self.layer(obs))))

    with pytest.raises(HookError, match="'layer' is computed 2 times in a step"):
        Rerun(Twice(), torch.zeros(1, 4), "layer")


class Overwriting(nn.Module):
    """Layers with operations in place between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, obs):
        x = self.relu(self.a(obs))
        y = self.b(x).relu_()
        y += x
        return self.head(self.c(y).relu_())


@pytest.mark.parametrize("at", ["a", "relu", "b", "c"])
def test_operations_in_place_neither_break_it_nor_reach_what_it_is_given(at):
    agent, obs = wrap(Overwriting(), {at: (at, "B D")}), torch.randn(3, 4)
    rerun = Rerun(agent, obs, at)
    given = rerun.values + 1
    before = given.clone()
    with torch.no_grad():
        wanted = run_with_hooks(agent, obs, hooks={at: lambda value, site: before})
    torch.testing.assert_close(rerun(given).logits, wanted.logits)
    assert torch.equal(given, before)


def test_an_agent_that_decides_otherwise_when_it_is_run_again_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(4, 3), 0

        def forward(self, obs):
            self.calls += 1
            return self.layer(obs) + self.calls

    with pytest.raises(HookError, match="'layer' can't be run again from: with its own value there the preferences"):
        Rerun(wrap(Counting(), {"layer": ("layer", "B D")}), torch.zeros(2, 4), "layer")
