import pytest
import torch

from rl_interp.core.errors import HookError
from rl_interp.core.hooks import assert_unhooked, hooked, phase, run_with_cache, run_with_hooks


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
    with pytest.raises(HookError, match=r"unknown hook point 'conv.pst'; known: .* Did you mean 'conv.post'"):
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
