"""DRC: the compiled sweeps beside the modules, its hook points by tick, its sizes."""

import pytest
import torch

from rl_interp.agents.impala import default_config, make_agent, published_drc
from rl_interp.agents.impala.drc import DRC
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs import MiniGridConfig, SokobanConfig
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import During, Zero, as_hooks

T, B = 4, 3


def agent(layers=2, ticks=2, channels=4, size=(6, 5), hidden=8):
    torch.manual_seed(0)
    return DRC(4, (3, *size), None, layers, ticks, channels, hidden)


def segment(of, batch=B):
    """Observations, a state and resets."""
    obs = torch.randint(0, 256, (T, batch, 3, *of.size), dtype=torch.uint8)
    state = tuple(0.5 * torch.randn_like(leaf) for leaf in of.initial_state(batch))
    return obs, state, torch.rand(T, batch) < 0.3


@pytest.mark.parametrize(("layers", "parameters"), [(3, 1_285_125), (1, 987_525)])
def test_it_has_as_many_parameters_as_the_published(layers, parameters):
    drc = DRC(4, (3, 10, 10), layers=layers, ticks=layers)
    assert sum(each.numel() for each in drc.parameters()) == parameters


@pytest.mark.parametrize(
    ("layers", "ticks", "size", "batch"), [(2, 3, (6, 5), B), (1, 2, (3, 7), B), (3, 1, (5, 5), 40)]
)
def test_the_compiled_sweeps_are_the_modules_forwards_and_backwards(layers, ticks, size, batch):
    drc = agent(layers, ticks, size=size)
    obs, state, first = segment(drc, batch)
    wanted: list[torch.Tensor] = []
    for watch in (True, False):
        handle = drc.layers[0].c.register_forward_hook(lambda module, args, out: None) if watch else None
        given = [leaf.clone().requires_grad_() for leaf in state]
        out = drc.unroll(obs, tuple(given), first)
        loss = sum((leaf * torch.linspace(-1, 1, leaf.numel()).view(leaf.shape)).sum() for leaf in
                   (out.logits, out.value, *out.state))  # fmt: skip
        gradients = torch.autograd.grad(loss, [*drc.parameters(), *given])
        found = [out.logits, out.value, *out.state, *gradients]
        if handle:
            handle.remove()
            wanted = found
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * max(1.0, float(theirs.detach().abs().max())))


def test_it_keeps_the_agents_contract_and_steps_as_it_unrolls():
    drc = agent()
    obs, state, first = segment(drc)
    check_agent(drc, obs[0])
    out, logits = drc.unroll(obs, state, first), []
    for t in range(T):
        step = drc.step(obs[t], state, first[t])
        logits.append(step.logits)
        state = step.state
    torch.testing.assert_close(out.logits, torch.stack(logits))
    torch.testing.assert_close(out.state, state)


def test_every_value_is_cached_by_time_and_tick():
    drc = agent(layers=2, ticks=3)
    obs, state, first = segment(drc)
    names = [name for name in drc.hook_points if name.startswith("layer")]
    assert len(names) == 2 * (4 * 2 + 3)
    out, cache = run_with_cache(drc, obs, state, names=names, first=first, unroll=True)
    for name in names:
        assert cache[name].shape == ((T, 3, B, 4) if name.endswith("pooled") else (T, 3, B, 4, 6, 5)), name
    last_h = drc.hook_points["layer2.h"].newest(cache["layer2.h"])
    torch.testing.assert_close(last_h, out.state[0][:, 1])
    # The equations, at the second tick.
    last, now = (lambda name: cache[name][1, 0]), (lambda name: cache[name][1, 1])
    c = now("layer1.f") * last("layer1.c") + now("layer1.i") * now("layer1.j")
    torch.testing.assert_close(now("layer1.c"), c)
    torch.testing.assert_close(now("layer1.h"), c.tanh() * now("layer1.o"))
    torch.testing.assert_close(now("layer1.i"), now("layer1.i.pre").tanh())
    torch.testing.assert_close(now("layer1.j"), now("layer1.j.pre").sigmoid())
    h, pool = last("layer1.h"), drc.layers[0].pool
    torch.testing.assert_close(now("layer1.pooled"), pool[0] * h.amax((2, 3)) + pool[1] * h.mean((2, 3)))


def test_an_intervention_at_one_tick_changes_that_tick_and_what_follows():
    drc = agent(layers=2, ticks=3)
    obs, state, _ = segment(drc)
    plain = run_with_cache(drc, obs, state, names=["layer1.h"], unroll=True)[1]["layer1.h"]
    held = During(Zero("layer1.h"), times=[1], ticks=[1])
    _, cache = run_with_cache(drc, obs, state, names=["layer1.h"], hooks=as_hooks([held]), unroll=True)
    changed = (cache["layer1.h"] != plain).flatten(2).any(-1).flatten().tolist()
    assert changed == [False] * 4 + [True] * (3 * T - 4)
    assert not cache["layer1.h"][1, 1].any()
    every = run_with_hooks(drc, obs, state, hooks=as_hooks([During(Zero("layer1.h"), ticks=[0, 1, 2])]), unroll=True)
    whole = run_with_hooks(drc, obs, state, hooks=as_hooks([Zero("layer1.h")]), unroll=True)
    torch.testing.assert_close(every.logits, whole.logits)


def test_a_board_that_the_head_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"observations of 7 x 5 given to an agent whose head is for 6 x 5"):
        drc = agent()
        drc.step(torch.zeros(1, 3, 7, 5, dtype=torch.uint8), drc.initial_state(1))


def test_the_preset_has_the_published_settings():
    config = published_drc(SokobanConfig())
    assert sum(each.numel() for each in make_agent(config).parameters()) == 1_285_125
    assert (config.num_envs, config.unroll, config.gamma, config.vtrace_lambda) == (256, 20, 0.97, 0.5)
    assert (config.adam_eps, config.max_grad_norm, config.entropy_cost) == (1.5625e-7, 2.5e-4, 0.01)
    assert (config.env.min_steps, config.env.max_steps) == (30, 120)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(channels=(16, 32, 32)), r"channels=\(16, 32, 32\) given for a DRC; .* give one number"),
        (dict(lstm=8), "lstm=8 given for a DRC"),
        (dict(cells=True, env=MiniGridConfig(observation="pixels")), "cells given for a DRC"),
        (dict(ticks=0), "ticks=0 given"),
        (dict(env="CartPole-v1"), "a DRC is for boards of 3 cells or more a side: give network='impala'"),
    ],
)
def test_what_a_drc_can_not_be_is_said(settings, message):
    settings = dict(network="drc") | settings
    with pytest.raises(UserError, match=message):
        default_config(settings.pop("env", SokobanConfig()), **settings)
