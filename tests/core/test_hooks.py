import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rl_interp import PolicyOutput, check_agent, wrap
from rl_interp.core.agent import Agent, HookPoint
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import assert_unhooked, hooked, last_layer, phase, run_with_cache, run_with_hooks, tick


def test_cache_holds_what_the_module_computed(conv_agent, conv_obs):
    out, cache = run_with_cache(conv_agent, conv_obs, names=["conv.pre", "conv.post", "q.in", "q"])
    torch.testing.assert_close(cache["conv.pre"], conv_agent.conv(conv_obs))
    torch.testing.assert_close(cache["conv.post"], conv_agent.conv(conv_obs).relu())
    torch.testing.assert_close(cache["q.in"], cache["conv.post"].flatten(1))
    torch.testing.assert_close(cache["q"], out.q_values)


def test_a_hook_on_the_output_or_input_changes_what_follows(conv_agent, conv_obs):
    zero = {"q.in": lambda value, site: torch.zeros_like(value)}
    out = run_with_hooks(conv_agent, conv_obs, hooks=zero)
    torch.testing.assert_close(out.q_values, conv_agent.q.bias.expand(5, 4))


def test_hooks_at_one_point_compose_in_order_and_the_cache_comes_last(conv_agent, conv_obs):
    chain = {"conv.pre": [lambda v, s: v * 0 + 2, lambda v, s: v * 3]}
    _, cache = run_with_cache(conv_agent, conv_obs, names=["conv.pre"], hooks=chain)
    assert torch.equal(cache["conv.pre"], torch.full((5, 3, 6, 6), 6.0))


def test_recurrent_points_carry_a_time_index_and_lose_no_call(recurrent_agent):
    obs, sites = torch.randn(4, 2, 5), []
    state = recurrent_agent.initial_state(2)
    watch = {"gru": lambda value, site: sites.append((site.name, site.time, site.phase))}
    out, cache = run_with_cache(recurrent_agent, obs, names=["gru", "pi"], hooks=watch, unroll=True)
    assert sites == [("gru", t, "act") for t in range(4)]
    assert cache["gru"].shape == (4, 2, 6)
    torch.testing.assert_close(cache["gru"][-1], out.state[0])
    torch.testing.assert_close(cache["gru"][0], recurrent_agent.cell(obs[0], state[0]))
    torch.testing.assert_close(cache["pi"], out.logits)


def test_a_recurrent_point_keeps_its_time_axis_for_a_single_step(recurrent_agent):
    _, cache = run_with_cache(recurrent_agent, torch.randn(2, 5), names=["gru"])
    assert cache["gru"].shape == (1, 2, 6)


def test_repetitions_within_a_time_are_told_apart_by_tick(recurrent_agent):
    once = recurrent_agent.cell.forward

    def twice(x, h):
        for n in range(2):
            with tick(n):
                h = recurrent_agent.inner(once(x, h))
        return h

    recurrent_agent.inner, recurrent_agent.cell.forward = nn.Identity(), twice
    point = HookPoint("inner", "T N B D", "recurrent")
    recurrent_agent.hook_points = {**recurrent_agent.hook_points, "inner": point}
    sites = []
    watch = {"inner": lambda value, site: sites.append((site.time, site.tick))}
    _, cache = run_with_cache(recurrent_agent, torch.randn(3, 2, 5), names=["gru", "inner"], hooks=watch, unroll=True)
    assert sites == [(t, n) for t in range(3) for n in range(2)]
    assert cache["inner"].shape == (3, 2, 2, 6)
    assert cache["gru"].shape == (3, 2, 6)
    torch.testing.assert_close(cache["inner"][:, -1], cache["gru"])


def test_phases_are_told_apart(recurrent_agent):
    step = recurrent_agent.step

    def two_phases(obs, state=(), first=None):
        with phase("observe"):
            out = step(obs, state, first)
        with phase("imagine"):
            step(obs, out.state)
            return step(obs, out.state)

    recurrent_agent.step = two_phases
    _, cache = run_with_cache(recurrent_agent, torch.randn(2, 5), names=["pi"])
    assert cache["pi", "observe"].shape == (2, 3)
    assert cache["pi", "imagine"].shape == (2, 2, 3)
    with pytest.raises(HookError, match="fired in the phases"):
        cache["pi"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda v, s: v[:1], "must keep shape, dtype and device"),
        (lambda v, s: v.double(), "must keep shape, dtype and device"),
    ],
)
def test_a_hook_must_keep_shape_and_dtype(conv_agent, conv_obs, bad, message):
    with pytest.raises(HookError, match=message):
        run_with_hooks(conv_agent, conv_obs, hooks={"conv.pre": bad})
    assert_unhooked(conv_agent)


def test_an_unknown_name_is_refused_with_a_suggestion(conv_agent, conv_obs):
    with pytest.raises(HookError, match=r"unknown hook point 'conv.pst'. Did you mean 'conv.post'.*\? Known: "):
        run_with_cache(conv_agent, conv_obs, names=["conv.pst"])


def test_names_are_required(conv_agent, conv_obs):
    for names in ([], "conv.pre"):
        with pytest.raises(HookError, match="name the points to keep as a list"):
            run_with_cache(conv_agent, conv_obs, names=names)


def test_a_hook_that_never_fires_raises(conv_agent):
    with pytest.raises(HookError, match=r"\['q'\] never fired"), hooked(conv_agent, {"q": lambda v, s: None}):
        pass
    assert_unhooked(conv_agent)


def test_hooks_are_gone_after_an_exception_inside(conv_agent):
    with pytest.raises(ZeroDivisionError), hooked(conv_agent, {"q": lambda v, s: None}):
        _ = 1 / 0
    assert_unhooked(conv_agent)


def test_a_hook_left_behind_is_found(conv_agent):
    left = hooked(conv_agent, {"q": lambda v, s: None})
    left.__enter__()
    with pytest.raises(HookError, match="'q' is still on 'q'"):
        assert_unhooked(conv_agent)


def test_gradients_flow_through_a_hook(conv_agent, conv_obs):
    scale = torch.ones((), requires_grad=True)
    out = run_with_hooks(conv_agent, conv_obs, hooks={"conv.post": lambda v, s: v * scale})
    out.q_values.sum().backward()
    assert scale.grad is not None
    assert scale.grad.abs() > 0


class Overwriting(nn.Module):
    """Four layers; the first three's values are written into after they were computed, each in another way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.by_module, self.by_function = nn.Linear(4, 6), nn.Linear(6, 6)
        self.by_addition, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, obs):
        x = F.relu_(self.by_function(self.relu(self.by_module(obs))))
        y = self.by_addition(x)
        x.mul_(2)  # after it was given to the layer above
        y += x
        return self.head(y)

    def written_out(self, obs):
        """The values that were computed."""
        first = self.by_module(obs)
        second = self.by_function(first.relu())
        third = self.by_addition(second.relu())
        values = {"by_module": first, "by_function": second, "by_addition": third, "input": second.relu()}
        return values, self.head(third + 2 * second.relu())


@pytest.fixture
def overwriting():
    points = {name: (name, "B D") for name in ("by_module", "by_function", "by_addition")}
    return wrap(Overwriting(), {**points, "input": HookPoint("by_addition", "B D", side="input")})


@pytest.mark.parametrize("gradients", [False, True])
def test_what_hooks_keep_is_not_overwritten_by_operations_in_place(overwriting, gradients):
    obs, kept = torch.randn(5, 4), {}
    with torch.set_grad_enabled(gradients):
        wanted, logits = overwriting.module.written_out(obs)
        out, cache = run_with_cache(overwriting, obs, names=list(wanted))
        watching = {name: lambda value, site: kept.update({site.name: value}) for name in wanted}
        run_with_hooks(overwriting, obs, hooks=watching)
    torch.testing.assert_close(out.logits, logits)
    for name, value in wanted.items():
        torch.testing.assert_close(cache[name], value)
        torch.testing.assert_close(kept[name], value)
    check_agent(overwriting, obs)


def test_what_a_hook_returns_is_not_overwritten_either(overwriting):
    obs, given = torch.randn(5, 4), torch.randn(5, 6)
    before = given.clone()
    for name in overwriting.hook_points:
        run_with_hooks(overwriting, obs, hooks={name: lambda value, site: given})
    assert torch.equal(given, before)


def test_a_hook_may_write_into_the_value_it_is_given(conv_agent, conv_obs):
    def zero(value, site):
        value.zero_()

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = run_with_hooks(conv_agent, conv_obs, hooks={"q.in": zero})
            torch.testing.assert_close(out.q_values, conv_agent.q.bias.expand(5, 4))


def test_a_value_in_memory_that_the_agent_uses_again_is_kept_as_it_was():
    class Reusing(Agent):
        hook_points = {"memory": HookPoint("memory", "B D")}

        def __init__(self):
            super().__init__()
            self.memory, self.buffer = nn.Identity(), torch.zeros(2, 3)

        def step(self, obs, state=(), first=None):
            self.buffer.copy_(obs)
            return PolicyOutput(logits=self.memory(self.buffer).clone())

    agent, obs = Reusing(), torch.randn(2, 3)
    _, cache = run_with_cache(agent, obs, names=["memory"])
    agent.step(torch.zeros(2, 3))
    assert torch.equal(cache["memory"], obs)


def test_gradients_with_respect_to_cached_values_are_those_of_an_intervention_there():
    net, obs = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)), torch.randn(5, 4)
    agent = wrap(net, {"pre": ("0", "B D"), "in": HookPoint("2", "B D", side="input")})
    out, cache = run_with_cache(agent, obs, names=["pre", "in"])
    found = torch.autograd.grad(out.logits[:, 0].sum(), [cache["pre"], cache["in"]])
    for name, gradient in zip(("pre", "in"), found, strict=True):
        nudge = torch.zeros(5, 6, requires_grad=True)
        moved = run_with_hooks(agent, obs, hooks={name: lambda value, site, by=nudge: value + by})
        torch.testing.assert_close(gradient, torch.autograd.grad(moved.logits[:, 0].sum(), nudge)[0])


def test_reading_leaves_an_agent_alone_that_works_on_one_memory_under_two_names():
    class Aliased(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, obs):
            x = obs * 1
            y = self.relu(x)
            y += 1
            return x + y

    agent, obs = wrap(Aliased(), {"relu": ("relu", "B D")}), torch.randn(2, 3)
    with torch.no_grad():
        out, cache = run_with_cache(agent, obs, names=["relu"])
    torch.testing.assert_close(out.logits, 2 * (obs.relu() + 1))
    torch.testing.assert_close(cache["relu"], obs.relu())


def test_a_module_used_with_several_widths_is_refused_by_name():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.a, self.b = nn.ReLU(), nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, obs):
            return self.relu(self.b(self.relu(self.a(obs))))

    agent = wrap(Twice(), {"post": ("relu", "B D")})
    with torch.no_grad():
        _, cache = run_with_cache(agent, torch.zeros(2, 4), names=["post"])
    with pytest.raises(HookError, match=r"'post' was computed 2 times with other shapes \(\(2, 3\), \(2, 6\)\)"):
        cache["post"]


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 3), nn.Bilinear(3, 3, 2)

    def forward(self, obs):
        x = self.layer(input=obs)
        return self.head(input2=x, input1=2 * x)


def test_the_input_of_a_module_that_is_called_with_keywords_is_its_first_parameter():
    agent, obs = wrap(Keywords(), {"in": HookPoint("head", "B D", side="input")}), torch.randn(2, 4)
    out, cache = run_with_cache(agent, obs, names=["in"], hooks={"in": lambda value, site: value + 1})
    x = agent.module.layer(obs)
    torch.testing.assert_close(cache["in"], 2 * x + 1)
    torch.testing.assert_close(out.logits, agent.module.head(2 * x + 1, x))


def test_a_module_that_is_called_without_input_is_refused_by_name():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.emit = nn.Module()
            self.emit.forward = lambda *, size=2: torch.zeros(size, 3)

        def forward(self, obs):
            return self.emit()

    agent = wrap(Blind(), {"in": HookPoint("emit", "B D", side="input")})
    with pytest.raises(HookError, match="'in' is the input of 'module.emit', which was called without one"):
        run_with_cache(agent, torch.zeros(2, 3), names=["in"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compiled", ["module", "step"])
def test_silent_hooks_of_a_compiled_agent_name_torch_compile(compiled):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    torch._dynamo.reset()
    if compiled == "module":
        agent = wrap(torch.compile(net, backend="eager"), {"hidden": ("_orig_mod.1", "B D")})
    else:
        agent = wrap(net, {"hidden": ("1", "B D")})
        agent.step = torch.compile(agent.step, backend="eager")
    obs = torch.zeros(2, 4)
    with torch.no_grad():
        agent.step(obs)
        with pytest.raises(HookError, match=r"never fired: torch.compile made the code .* open the original module"):
            run_with_cache(agent, obs, names=["hidden"])


def test_observations_that_are_no_tensor_are_refused(conv_agent, conv_obs):
    with pytest.raises(HookError, match=r"obs is a ndarray; give a tensor, such as torch.from_numpy\(obs\)"):
        run_with_cache(conv_agent, conv_obs.numpy(), names=["q"])


def test_the_layer_to_begin_with_feeds_the_preferences():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    assert last_layer(wrap(net, "auto", obs=torch.randn(4, 4), observation="vector")) == "1"
    assert last_layer(wrap(net, {"early": ("0", "B D"), "fc.post": ("1", "B D")})) == "fc.post"
    with pytest.raises(HookError, match="unknown hook point 'fc.post'; known: early"):
        last_layer(wrap(net, {"early": ("0", "B D")}))
