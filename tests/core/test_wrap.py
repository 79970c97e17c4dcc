"""Other people's modules as agents: feed-forward, recurrent and of continuous actions, with points found by trying."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rl_interp import HookPoint, PolicyOutput, check_agent, run_with_cache, run_with_hooks, wrap
from rl_interp.core.auto_points import auto_hook_points
from rl_interp.core.check_agent import ContractError
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.interventions import Zero
from rl_interp.core.partial_forward import PartialForward

POINTS = {"body": ("body", "B D")}


class Net(nn.Module):
    """A body and what a function makes of it."""

    def __init__(self, give=lambda net, x: net.head(x)):
        super().__init__()
        self.body, self.head, self.give = nn.Linear(3, 4), nn.Linear(4, 2), give

    def forward(self, obs):
        return self.give(self, self.body(obs).relu())


class Memory(nn.Module):
    """An actor-critic with PyTorch's own LSTM or GRU, which is given its state and gives the next."""

    def __init__(self, kind=nn.LSTM, layers=1, batch_first=False):
        super().__init__()
        self.encoder, self.time = nn.Linear(3, 5), int(batch_first)
        self.memory = kind(5, 4, layers, batch_first=batch_first)
        self.policy, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, obs, state):
        output, state = self.memory(self.encoder(obs).relu().unsqueeze(self.time), state)
        output = output.squeeze(self.time)
        return PolicyOutput(logits=self.policy(output), value=self.critic(output)[:, 0]), state


def lstm_state(batch, layers=1):
    return torch.zeros(layers, batch, 4), torch.zeros(layers, batch, 4)


def obs(batch=6):
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(0))


def test_a_recurrent_module_of_pytorchs_becomes_an_agent_that_keeps_the_contract():
    net = Memory()
    agent = wrap(net, {"cell": HookPoint("memory", "T B D", "recurrent", element=(1, 1, 0))},
                 initial_state=lstm_state)  # fmt: skip
    check_agent(agent, obs())
    segment, first = torch.randn(3, 6, 3), torch.zeros(3, 6, dtype=torch.bool)
    first[2, :2] = True
    out, cache = run_with_cache(agent, segment, names=["cell"], first=first, unroll=True)
    whole, (_, cell) = net.memory(net.encoder(segment).relu(), lstm_state(6))
    torch.testing.assert_close(out.logits[:2], net.policy(whole)[:2])
    torch.testing.assert_close(out.logits[2, 2:], net.policy(whole)[2, 2:])
    torch.testing.assert_close(cache["cell"][2, 2:], cell[0, 2:])
    alone, _ = net(segment[2, :2], lstm_state(2))
    torch.testing.assert_close(out.logits[2, :2], alone.logits)
    assert [leaf.shape for leaf in out.state] == [(6, 1, 4), (6, 1, 4)]


@pytest.mark.parametrize(
    ("initial_state", "forward", "message"),
    [
        (lambda n: (torch.zeros(1, 4),), None, "one axis of each tensor must count the episodes"),
        (lambda n: (), None, "gave no tensors; a feed-forward module is wrapped without it"),
        (lstm_state, lambda net, obs, state: net(obs, state)[0], "it must return its output and the next state"),
    ],
)
def test_a_state_that_does_not_fit_is_a_sentence(initial_state, forward, message):
    points = {"policy": ("policy", "B D")}
    with pytest.raises(ContractError, match=message):
        wrap(Memory(), points, forward, initial_state=initial_state, obs=obs())


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (Net(), {"output": "logit"}, "unknown kind of output 'logit'.*Did you mean 'logits'"),
        (Net(), {"observation": "floats"}, "unknown kind of observation 'floats'; known: pixels, symbols, vector"),
        (Net(lambda net, x: (net.head(x), x[:, :1])), {}, r"returned a tuple of \(6, 2\), \(6, 1\); say .*=out\[0\]"),
        (Net(lambda net, x: {"pi": net.head(x)}), {}, r"returned a dict with the keys 'pi'; .*\(logits=out\['pi'\]"),
        (Net(lambda net, x: torch.distributions.Categorical(logits=net.head(x))), {}, r"logits=out.logits\)"),
        (Net(lambda net, x: torch.distributions.Normal(net.head(x), 1)), {}, r"mean=out.mean, std=out.stddev\)"),
        (Net(lambda net, x: torch.bernoulli(net.head(x).sigmoid())), {}, "other preferences the second time.*a sample"),
        (Net(lambda net, x: F.dropout(net.head(x))), {}, "other preferences the second time.*training=self.training"),
        (Net(lambda net, x: net.head(x)[:, :1].squeeze(1)), {}, r"preferences \(6,\) for 6 .*; want \[B, A\]"),
        (Net(lambda net, x: net.head(x).argmax(-1)), {}, r"preferences \(6,\)"),
        (Net(lambda net, x: net.head(net.head(x))), {}, r"can't take .* float32 \[6, 3\] \(RuntimeError: mat"),
        (Net(), {"output": "q_values", "forward": lambda net, obs: PolicyOutput(logits=net(obs))},
         "step returned logits, and the agent's preference_kind is 'q_values'"),
        (Net(), {"output": "mean", "forward": lambda net, obs: PolicyOutput(mean=net(obs), std=-net(obs).exp())},
         "it must have the shape of the mean and be at least 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_sentence_before_it_is_used(module, settings, message):
    with pytest.raises(UserError, match=message):
        wrap(module, POINTS, obs=obs(), **settings)


def test_a_dict_of_observations_is_a_sentence():
    with pytest.raises(ContractError, match="given a dict of observations; environments here give one tensor"):
        check_agent(wrap(Net(), POINTS), {"x": obs()})


def test_dropout_of_a_module_is_off_though_it_is_in_training_mode():
    net = Net(lambda net, x: F.dropout(net.head(x), training=net.training)).train()
    wrap(net, POINTS, obs=obs())
    assert net.training


def test_points_must_be_named_or_found():
    with pytest.raises(UserError, match='"auto" given without observations'):
        wrap(Net(), "auto")
    with pytest.raises(UserError, match=r"hook_points=\['body'\] given; give a dict"):
        wrap(Net(), ["body"])
    with pytest.raises(UserError, match=r"hook_points=\{'body': 'B D'\} given; give a dict"):
        wrap(Net(), {"body": "B D"})
    with pytest.raises(UserError, match="wrap was given a function"):
        wrap(lambda obs: obs, POINTS)


class Torso(nn.Module):
    """Somebody's network: sections in a list, an in-place ReLU that is used three times, a head of two parts."""

    def __init__(self):
        super().__init__()
        self.sections = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)])
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout()
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(4 * 25, 6))
        self.policy, self.value = nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, obs):
        x = obs.float() / 255
        for section in self.sections:
            x = self.relu(section(x))
        x = self.relu(self.fc(self.dropout(x)))
        return PolicyOutput(logits=self.policy(x), value=self.value(x)[:, 0])


def test_points_are_found_by_trying_and_named_by_their_paths():
    pictures = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)
    net = Torso()
    agent = wrap(net, "auto", obs=pictures)
    found = {name: (point.axes, point.kind, point.head, point.call) for name, point in agent.hook_points.items()}
    assert found == {
        "sections.0": ("B C H W", "spatial", None, None),
        "relu.call0": ("B C H W", "spatial", None, 0),
        "sections.1": ("B C H W", "spatial", None, None),
        "relu.call1": ("B C H W", "spatial", None, 1),
        "fc.0": ("B D", "vector", None, None),
        "fc.1": ("B D", "vector", None, None),
        "relu.call2": ("B D", "vector", "module.policy", 2),
        "policy": ("B D", "vector", None, None),
        "value": ("B D", "vector", None, None),
    }
    with torch.no_grad():
        _, cache = run_with_cache(agent, pictures, names=["sections.1", "relu.call1"])
        torch.testing.assert_close(cache["relu.call1"], cache["sections.1"].relu())
        zeroed = run_with_hooks(agent, pictures, hooks={"relu.call2": Zero("relu.call2")})
    torch.testing.assert_close(zeroed.logits, net.policy.bias.expand(2, 3))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("kind", "layers"), [(nn.LSTM, 1), (nn.LSTM, 2), (nn.GRU, 1)])
def test_points_of_a_memory_are_its_output_and_each_part_of_its_state(kind, layers, batch_first):
    def initial_state(batch):
        return lstm_state(batch, layers) if kind is nn.LSTM else lstm_state(batch, layers)[0]

    agent = wrap(Memory(kind, layers, batch_first), "auto", initial_state=initial_state, obs=obs())
    state = ["h", "c"] if kind is nn.LSTM else ["h"]
    parts = state if layers == 1 else [f"{name}{layer}" for name in state for layer in range(layers)]
    memory = [f"memory.{part}" for part in ("output", *parts)]
    assert list(agent.hook_points) == ["encoder", *memory, "policy", "critic"]
    assert agent.hook_points["memory.output"].axes == ("B T D" if batch_first else "T B D")
    assert {agent.hook_points[name].axes for name in memory[1:]} == {"T B D"}
    _, cache = run_with_cache(agent, torch.randn(3, 6, 3), names=memory, unroll=True)
    assert {value.shape for value in cache.values()} == {(3, 6, 4)}
    torch.testing.assert_close(cache["memory.output"], cache["memory.h" if layers == 1 else "memory.h1"])


@pytest.mark.parametrize("batch_first", [False, True])
def test_points_of_a_memory_that_reads_a_window_have_its_times_first_in_a_cache(batch_first):
    class Window(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.policy = nn.GRU(3, 4, batch_first=batch_first), nn.Linear(4, 2)

        def forward(self, obs):
            output, _ = self.gru(obs if batch_first else obs.transpose(0, 1))
            return self.policy(output[:, -1] if batch_first else output[-1])

    agent, seen = wrap(Window(), "auto", obs=torch.randn(6, 7, 3)), torch.randn(5, 7, 3)
    out, cache = run_with_cache(agent, seen, names=["gru.output", "gru.h"])
    assert (cache["gru.output"].shape, cache["gru.h"].shape) == ((7, 5, 4), (1, 5, 4))
    newest = agent.hook_points["gru.output"].newest(cache["gru.output"])
    torch.testing.assert_close(newest, cache["gru.h"][0])
    torch.testing.assert_close(agent.module.policy(newest), out.logits)


def test_points_of_attention_are_its_output_and_its_weights():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

        def forward(self, tokens):
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))

    agent = wrap(Attentive(), "auto", obs=torch.randn(2, 7, 4))
    found = {name: (point.axes, point.element) for name, point in agent.hook_points.items()}
    assert found == {
        "attention.output": ("B S D", (0,)), "attention.weights": ("B S K", (1,)), "head": ("B D", None),
    }  # fmt: skip
    _, cache = run_with_cache(agent, torch.randn(5, 7, 4), names=["attention.weights"])
    torch.testing.assert_close(cache["attention.weights"].sum(-1), torch.ones(5, 7))


def test_channels_come_first_after_a_convolution_of_one_axis():
    net = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    agent = wrap(net, "auto", obs=torch.randn(2, 2, 7))
    assert [point.axes for point in agent.hook_points.values()] == ["B C S", "B C S", "B D", "B D"]


def test_a_subclass_of_agent_can_have_its_points_found_too(recurrent_agent):
    found = auto_hook_points(recurrent_agent, torch.randn(4, 5))
    assert {name: point.axes for name, point in found.items()} == {"cell": "T B D", "pi": "B D", "v": "B D"}
    assert found["cell"].head == "pi"


def test_nothing_to_find_is_a_sentence():
    agent = wrap(Net(), {})
    agent._forward = lambda net, obs: net.body(obs.mean(0))[None].expand(len(obs), -1)
    with pytest.raises(ContractError, match="no submodule of WrappedAgent gives floats with a row for each"):
        auto_hook_points(agent, obs())


@pytest.mark.parametrize(
    "write",
    [
        lambda q: q.mul_(8),
        lambda q: q.sub_(q.mean(1, keepdim=True)),
        lambda q: q.clamp_(-0.01, 0.01),
        lambda q: q[:, 0].fill_(-1e9),
    ],
    ids=["scaled", "centred", "clamped", "ruled out"],
)
def test_a_layer_whose_output_is_written_into_is_no_head(write):
    def forward(net, x):
        logits = net(x)
        write(logits)
        return logits

    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert wrap(net, "auto", obs=obs()).hook_points["0"].head == "module.1"
    assert wrap(net, "auto", forward, obs=obs()).hook_points["0"].head is None


@pytest.mark.parametrize(
    ("head", "message"), [("2", "which makes other preferences of its value than"), ("q", "which is no submodule of")]
)
def test_a_head_must_make_the_preferences_of_the_value(head, message):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    wrap(net, {"hidden": HookPoint("1", "B D", head="2")}, obs=obs())
    with pytest.raises(ContractError, match=f"'hidden' names the head 'module.{head}', {message}"):
        wrap(net, {"hidden": HookPoint("0", "B D", head=head)}, obs=obs())


def test_a_head_called_by_keyword_can_be_tried():
    assert list(wrap(Net(lambda net, x: net.head(input=x)), "auto", obs=obs()).hook_points) == ["body", "head"]


class Inferring(nn.Module):
    """A module that computes in inference mode, and an activation that writes into its input."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))

    @torch.inference_mode()
    def forward(self, obs):
        return self.layers(obs)


def test_a_module_in_inference_mode_has_its_points_found_but_no_head():
    agent = wrap(Inferring(), "auto", obs=obs())
    assert {name: point.head for name, point in agent.hook_points.items()} == dict.fromkeys(
        ["layers.0", "layers.1", "layers.2"]
    )
    with torch.inference_mode():
        assert list(wrap(Net(), "auto", obs=obs()).hook_points) == ["body", "head"]
    with pytest.raises(HookError, match=r"'layers.1' can't be run again from: .* use torch.no_grad\(\) there"):
        PartialForward(agent, obs(), "layers.1")


@pytest.mark.parametrize("points", ["auto", {"0": ("0", "B D")}])
@pytest.mark.parametrize(
    "compiled", [torch.jit.script, lambda net: torch.jit.trace(net, obs())], ids=["script", "trace"]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_a_sentence(compiled, points):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(ContractError, match="the module is TorchScript, in .*; give the module that was scripted or"):
        wrap(compiled(net), points, obs=obs())
    with pytest.raises(ContractError, match="submodule '0' is TorchScript"):
        wrap(nn.Sequential(compiled(net)), points, obs=obs())


class Shared(nn.Module):
    """A layer of two names, which is called once or twice."""

    def __init__(self, calls):
        super().__init__()
        self.first = self.second = nn.Linear(3, 3)
        self.calls = calls

    def forward(self, obs):
        return self.second(self.first(obs)) if self.calls == 2 else self.first(obs)


def test_a_module_of_two_names_is_hooked_by_either():
    agent = wrap(Shared(1), {"a": ("first", "B D"), "b": ("second", "B D")}, obs=obs())
    _, cache = run_with_cache(agent, obs(), names=["a", "b"])
    assert torch.equal(cache["a"], cache["b"])
    zeroed = run_with_hooks(agent, obs(), hooks={"b": Zero("b")}).logits
    assert (zeroed == 0).all()
    assert list(wrap(Shared(1), "auto", obs=obs()).hook_points) == ["first"]
    assert list(wrap(Shared(2), "auto", obs=obs()).hook_points) == ["first.call0", "first.call1"]
    again = wrap(Shared(2), {"b": HookPoint("second", "B D", call=1)})
    _, cache = run_with_cache(again, obs(), names=["b"])
    torch.testing.assert_close(cache["b"], again.step(obs()).logits)
    with pytest.raises(UserError, match="'c' has path 'third', which is no submodule of Shared; .* first, second"):
        wrap(Shared(1), {"c": ("third", "B D")})
