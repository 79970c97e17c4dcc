"""Hook points on modules that give tuples, dicts and sequences, or that are called several times in a step."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from rl_interp import HookPoint, run_with_cache, run_with_hooks, wrap
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import assert_unhooked
from rl_interp.core.interventions import Zero
from rl_interp.core.partial_forward import PartialForward


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


class Giving(nn.Module):
    """Gives twice and three times its input, in some container."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return self.how(2 * x, 3 * x)


class Sum(nn.Module):
    """The sum of all that a module gives."""

    def __init__(self, how):
        super().__init__()
        self.inner = Giving(how)

    def forward(self, obs):
        given = self.inner(obs)
        values = given.values() if isinstance(given, dict) else given
        return sum(value if isinstance(value, torch.Tensor) else sum(value) for value in values)


@pytest.mark.parametrize(
    ("how", "element"),
    [
        (lambda a, b: (a, b), 1),
        (lambda a, b: [a, b], -1),
        (lambda a, b: {"a": a, "b": b}, "b"),
        (lambda a, b: (a, (b,)), (1, 0)),
        (Pair, 1),
        (lambda a, b: torch.stack([a, b]), 1),
    ],
    ids=["tuple", "list", "dict", "nested", "namedtuple", "along a first axis"],
)
def test_an_element_is_read_and_changed_and_the_others_are_left(how, element):
    agent, obs = wrap(Sum(how), {"x": HookPoint("inner", "B D", element=element)}), torch.randn(4, 3)
    out, cache = run_with_cache(agent, obs, names=["x"])
    torch.testing.assert_close(cache["x"], 3 * obs)
    torch.testing.assert_close(out.logits, 5 * obs)
    torch.testing.assert_close(run_with_hooks(agent, obs, hooks={"x": Zero("x")}).logits, 2 * obs)


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (None, r"'x' is a tuple of 2; a hook point must be a tensor: name .* element=0\)"),
        (2, r"'x' is element 2 of a tuple of 2, which has none"),
        ("b", r"'x' is element 'b' of a tuple of 2, which has none"),
        ((0, 7), r"element 7 of a tensor \(4, 3\)"),
    ],
)
def test_an_element_that_is_not_there_is_a_sentence(element, message):
    agent = wrap(Sum(lambda a, b: (a, b)), {"x": HookPoint("inner", "B D", element=element)})
    with pytest.raises(HookError, match=message):
        run_with_cache(agent, torch.randn(4, 3), names=["x"])
    assert_unhooked(agent)


def test_there_is_no_running_again_from_an_element():
    agent = wrap(Sum(lambda a, b: (a, b)), {"x": HookPoint("inner", "B D", element=0)})
    with pytest.raises(HookError, match="can't be run again from"):
        PartialForward(agent, torch.randn(4, 3), "x")


class Twice(nn.Module):
    """One layer, called three times."""

    def __init__(self):
        super().__init__()
        self.layer, self.relu = nn.Linear(3, 3), nn.ReLU()

    def forward(self, obs):
        return self.layer(self.relu(self.layer(self.relu(self.layer(obs)))))


def test_one_call_of_a_module_is_read_and_changed_in_every_step():
    net, obs = Twice(), torch.randn(4, 3)
    agent = wrap(net, {f"call{i}": HookPoint("layer", "B D", call=i) for i in range(3)})
    with torch.no_grad():
        for _ in range(2):  # counting begins anew in every step
            _, cache = run_with_cache(agent, obs, names=["call0", "call2"])
            torch.testing.assert_close(cache["call0"], net.layer(obs))
            torch.testing.assert_close(cache["call2"], net(obs))
        _, cache = run_with_cache(agent, torch.stack([obs, 2 * obs]), names=["call1"], unroll=True)
        assert cache["call1"].shape == (8, 3)
        zeroed = run_with_hooks(agent, obs, hooks={"call1": Zero("call1")}).logits
        torch.testing.assert_close(zeroed, net.layer(torch.zeros(4, 3)))
    assert not {"step", "unroll"} & vars(agent).keys()


def test_a_call_that_there_is_not_is_a_sentence():
    agent = wrap(Twice(), {"x": HookPoint("relu", "B D", call=2)})
    with pytest.raises(HookError, match="'module.relu' is called 2 times in a step, so it has no call 2"):
        run_with_cache(agent, torch.randn(4, 3), names=["x"])


class Sequences(nn.Module):
    """An LSTM over a sequence that ends at what is seen now."""

    def __init__(self, batch_first):
        super().__init__()
        self.first = batch_first
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=batch_first), nn.Linear(4, 2)

    def forward(self, obs):  # [B, T, 3]
        output, _ = self.lstm(obs if self.first else obs.transpose(0, 1))
        return self.head(output[:, -1] if self.first else output[-1])


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_sequence_passes_the_hooks_time_by_time(batch_first):
    net, obs = Sequences(batch_first), torch.randn(5, 6, 3)
    axes = "B T D" if batch_first else "T B D"
    agent = wrap(net, {"output": HookPoint("lstm", axes, "recurrent", element=0)})
    seen = []
    _, cache = run_with_cache(agent, obs, names=["output"], hooks={"output": lambda v, site: seen.append(site.time)})
    assert seen == [0, 1, 2, 3, 4, 5]
    whole, _ = net.lstm(obs if batch_first else obs.transpose(0, 1))
    torch.testing.assert_close(cache["output"], whole.transpose(0, 1) if batch_first else whole)
    last = {"output": lambda value, site: torch.zeros_like(value) if site.time == 5 else None}
    torch.testing.assert_close(run_with_hooks(agent, obs, hooks=last).logits, net.head.bias.expand(5, 2))


def test_gradients_reach_the_element_that_was_seen():
    net, obs, seen = Sequences(True), torch.randn(2, 3, 3), []
    agent = wrap(net, {"output": HookPoint("lstm", "B T D", "recurrent", element=0)})
    out = run_with_hooks(agent, obs, hooks={"output": lambda value, site: seen.append(value)})
    first, _, last = torch.autograd.grad(out.logits[:, 0].sum(), seen)
    torch.testing.assert_close(last, net.head.weight[0].expand(2, 4))
    assert not first.any()
