"""Running again from a hook point equals running all of it under a hook, and computes less."""

import pytest
import torch
from torch import nn

from rl_interp.agents.impala import IMPALA
from rl_interp.agents.impala.drc import DRC
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.wrap import wrap


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
        rerun = PartialForward(agent, obs, at)
        torch.manual_seed(1)
        values = rerun.values[rows] + torch.randn(5, *rerun.values.shape[1:])
        with torch.no_grad():
            wanted = run_with_hooks(agent, obs[rows], hooks={at: lambda value, site, new=values: new})
        torch.testing.assert_close(rerun(values, rows).logits, wanted.logits)
        torch.testing.assert_close(rerun(values, rows).value, wanted.value)
        assert point.side == "output"
        assert not any("forward" in vars(module) for module in agent.modules())


def test_what_comes_before_the_point_is_not_computed_again(agent, obs, monkeypatch):
    rerun, convolve, sizes = PartialForward(agent, obs, "block2.res1.sum"), nn.functional.conv2d, []

    def counted(x, *args):
        sizes.append(tuple(x.shape))
        return convolve(x, *args)

    monkeypatch.setattr(nn.functional, "conv2d", counted)
    rerun(rerun.values)
    assert sizes == [(3, 6, 4, 4)] * 2  # of the second residual block alone


def test_every_point_of_an_agent_with_a_memory_can_be_run_again_from_where_it_had_come_to():
    torch.manual_seed(0)
    agent = IMPALA(5, (3, 16, 16), channels=(4,), hidden=16, lstm=8).eval()
    obs = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    state = (torch.randn(3, 8), torch.randn(3, 8))
    rows = torch.tensor([2, 0, 0])
    assert {"lstm.i.pre", "lstm.f", "lstm.c", "lstm.h"} < agent.hook_points.keys()
    for at in agent.hook_points:
        rerun = PartialForward(agent, obs, at, state)
        new = rerun.values[rows] + torch.randn(3, *rerun.values.shape[1:])
        remembered = tuple(part[rows] for part in state)
        with torch.no_grad():
            wanted = run_with_hooks(agent, obs[rows], remembered, hooks={at: lambda value, site, new=new: new})
        torch.testing.assert_close(rerun(new, rows).logits, wanted.logits, msg=at)
        torch.testing.assert_close(rerun(new, rows).state, wanted.state, msg=at)


def test_what_is_the_same_for_all_observations_is_kept_as_it_is():
    """A DRC convolves the wall around the board once, for all."""
    torch.manual_seed(0)
    agent = DRC(4, (3, 6, 5), None, layers=2, ticks=2, channels=4, hidden=8).eval()
    obs = torch.randint(256, (3, 3, 6, 5), dtype=torch.uint8)
    rows = torch.tensor([2, 0, 0, 1])
    rerun = PartialForward(agent, obs, "fc.post")
    new = rerun.values[rows] + torch.randn(4, *rerun.values.shape[1:])
    with torch.no_grad():
        wanted = run_with_hooks(agent, obs[rows], hooks={"fc.post": lambda value, site: new})
    torch.testing.assert_close(rerun(new, rows).logits, wanted.logits)


def test_what_does_not_begin_with_the_observations_is_refused():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.other, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, obs):
            later = self.other(obs[None])
            return self.head(self.first(obs) * later[0])

    agent = wrap(TimeFirst(), {"first": HookPoint("first", "B D"), "other": HookPoint("other", "B D")})
    with pytest.raises(HookError, match="'first' can't be run again from"):
        PartialForward(agent, torch.randn(3, 4), "first")


def test_a_sequence_of_times_can_not_be_run_again_from():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, obs):
            return self.head(self.lstm(obs[:, None])[0][:, -1])

    agent = wrap(Sequence(), {"lstm": HookPoint("lstm", "B T D", "recurrent", element=0)})
    with pytest.raises(HookError, match="can't be run again from: it must be all that a module gives once"):
        PartialForward(agent, torch.randn(2, 4), "lstm")


def test_gradients_reach_the_values_where_they_require_some(agent, obs):
    rerun = PartialForward(agent, obs, "block1.res1.sum")
    assert not rerun(rerun.values).logits.requires_grad
    values = rerun.values.clone().requires_grad_()
    (found,) = torch.autograd.grad(rerun(values).logits.sum(), values)
    out, cache = run_with_cache(agent, obs, names=["block1.res1.sum"])
    (wanted,) = torch.autograd.grad(out.logits.sum(), cache["block1.res1.sum"])
    torch.testing.assert_close(found, wanted)


def test_a_module_that_is_called_twice_is_refused():
    class Twice(Agent):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
            self.hook_points = {"layer": HookPoint("layer", "B D")}

        def step(self, obs, state=(), first=None):
            return PolicyOutput(logits=self.head(self.layer(self.layer(obs))))

    with pytest.raises(HookError, match="'layer' is computed 2 times in a step"):
        PartialForward(Twice(), torch.zeros(1, 4), "layer")


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
    rerun = PartialForward(agent, obs, at)
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
        PartialForward(wrap(Counting(), {"layer": ("layer", "B D")}), torch.zeros(2, 4), "layer")


def test_an_agent_that_writes_into_its_observations_is_refused_and_they_are_left_as_they_were():
    class Scaling(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, obs):
            return self.head(self.layer(obs.div_(255)))

    obs = torch.randn(5, 4)
    given = obs.clone()
    with pytest.raises(HookError, match="'layer' can't be run again from: the agent writes into its observations"):
        PartialForward(wrap(Scaling(), {"layer": ("layer", "B D")}), obs, "layer")
    assert torch.equal(obs, given)


def test_an_agent_may_be_shown_what_is_not_a_number_if_it_knows_what_to_do_with_it():
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    agent = wrap(module, {"layer": ("0", "B D")}, forward=lambda module, obs: module(obs.nan_to_num()))
    obs = torch.zeros(3, 4)
    obs[1, 2] = torch.nan
    rerun = PartialForward(agent, obs, "layer")
    torch.testing.assert_close(rerun(rerun.values).logits, agent.step(obs).logits)


class Looking(nn.Module):
    """Looks a vector up by a choice, through which no derivative passes, and may rule an action out."""

    def __init__(self, seed: int, ruled_out: bool = False):
        super().__init__()
        torch.manual_seed(seed)
        self.key, self.table, self.layer = nn.Linear(4, 3), nn.Embedding(3, 6), nn.Linear(4, 6)
        self.head, self.ruled_out = nn.Linear(6, 3), ruled_out

    def forward(self, obs):
        key = self.key(obs)
        out = self.head(self.layer(obs).relu() + self.table(key.argmax(-1)))
        return out.masked_fill(torch.tensor([False, True, False]), -torch.inf) if self.ruled_out else out


@pytest.mark.parametrize("ruled_out", [False, True])
def test_what_only_a_choice_reads_is_kept(ruled_out):
    for seed in range(10):
        agent, obs = wrap(Looking(seed, ruled_out), {"layer": ("layer", "B D")}), torch.randn(8, 4)
        rerun = PartialForward(agent, obs, "layer")
        del [torch.randn(8, 3) for _ in range(100)][:]  # what memory that is not filled would hold
        found = [rerun(2 * rerun.values).logits for _ in range(3)]
        with torch.no_grad():
            wanted = run_with_hooks(agent, obs, hooks={"layer": lambda value, site: 2 * value})
        torch.testing.assert_close(found, [wanted.logits] * 3)


class Apart(nn.Module):
    """A policy and a value with networks of their own, each of which reads the observations."""

    def __init__(self):
        super().__init__()
        self.policy, self.logits = nn.Linear(4, 8), nn.Linear(8, 3)
        self.worth, self.value = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, obs):
        logits = self.logits(self.policy(obs).relu())
        return PolicyOutput(logits=logits, value=self.value(self.worth(obs).relu())[:, 0])


@pytest.mark.parametrize("at", ["policy", "worth"])
def test_what_looks_at_the_observations_anew_sees_each_ones_own(at):
    agent = wrap(Apart(), {at: (at, "B D")})
    given, rows = torch.randn(5, 4), torch.tensor([3, 0, 0])
    partial = PartialForward(agent, given, at)
    out = partial(partial.values[rows] + 1, rows)
    with torch.no_grad():
        want = run_with_hooks(agent, given[rows], hooks={at: lambda value, site: value + 1})
    torch.testing.assert_close(out.preferences, want.preferences)
    torch.testing.assert_close(out.value, want.value)


class Odd(nn.Module):
    """Adds something of another observation to each, and rules an action out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, obs):
        out = self.layer(obs) + obs.roll(1, 0)[:, :1]
        return torch.cat([out, torch.full_like(out[:, :1], -torch.inf)], 1)


def test_every_observation_is_run_again_before_it_is_relied_on_also_where_an_action_is_ruled_out():
    obs = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [1.0, 0, 0, 0]])
    with pytest.raises(HookError, match="the preferences differ by 1"):
        PartialForward(wrap(Odd(), {"layer": ("layer", "B D")}), obs, "layer")


def test_what_is_not_kept_shows_where_another_value_has_it_read():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.layer = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, obs):
            read, out = self.before(obs).detach(), self.layer(obs)
            return torch.where(out > 100, read, out)

    rerun = PartialForward(wrap(Sometimes(), {"layer": ("layer", "B D")}), torch.randn(2, 4), "layer")
    assert rerun(rerun.values).logits.isfinite().all()
    assert rerun(rerun.values + 1000).logits.isnan().all()
