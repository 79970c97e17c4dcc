"""The IMPALA network: its LSTM beside PyTorch's, its hook points, its shapes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rl_interp.agents.impala import default_config, make_agent
from rl_interp.agents.impala.actor import Actor, flat_weights, unroll_layout
from rl_interp.agents.impala.agent import IMPALA
from rl_interp.agents.impala.network import HookedLSTM
from rl_interp.agents.max_pool import MaxPool2d
from rl_interp.core.check_agent import check_agent
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import Add, Clamp, Splice, Zero, as_hooks

T, B = 6, 3


def beside(lstm: HookedLSTM) -> nn.LSTM:
    """PyTorch's LSTM with the same weights."""
    theirs = nn.LSTM(lstm.weight_ih.shape[1], lstm.width)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(lstm.weight_ih)
        theirs.weight_hh_l0.copy_(lstm.weight_hh)
        theirs.bias_ih_l0.copy_(lstm.bias)
        theirs.bias_hh_l0.zero_()
    return theirs


def test_the_lstm_is_pytorchs_forwards_and_backwards():
    torch.manual_seed(0)
    lstm = HookedLSTM(5, 7).double()
    theirs = beside(lstm).double()
    x, h, c = torch.randn(T, B, 5).double(), torch.randn(B, 7).double(), torch.randn(B, 7).double()
    ours, (h_last, c_last) = lstm(x, (h, c), torch.zeros(T, B, dtype=torch.bool))
    wanted, (h_n, c_n) = theirs(x, (h[None], c[None]))
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close((h_last, c_last), (h_n[0], c_n[0]))
    ours.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(lstm.weight_hh.grad, theirs.weight_hh_l0.grad)
    torch.testing.assert_close(lstm.weight_ih.grad, theirs.weight_ih_l0.grad)
    torch.testing.assert_close(lstm.bias.grad, theirs.bias_ih_l0.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_step_without_gradients_is_the_same_step(dtype):
    torch.manual_seed(0)
    lstm, x, state = HookedLSTM(5, 7).to(dtype), torch.randn(T, B, 5), (torch.randn(B, 7), torch.randn(B, 7))
    first = torch.rand(T, B) < 0.3
    assert first.any()
    wanted, last = lstm(x, state, first)
    with torch.no_grad():
        for t in range(T):
            h, state = lstm(x[t : t + 1], state, first[t : t + 1])
            torch.testing.assert_close(h[0], wanted[t])
        torch.testing.assert_close(state, last)
        torch.testing.assert_close(lstm(x[:1], state, None), lstm(x[:1], state, torch.zeros(1, B, dtype=torch.bool)))


@pytest.mark.parametrize("watched", [False, True])
def test_gradients_are_those_of_finite_differences_over_resets(watched):
    torch.manual_seed(0)
    lstm, first = HookedLSTM(3, 4).double(), torch.rand(T, B) < 0.3
    if watched:
        lstm.cell.register_forward_hook(lambda module, args, out: None)
    inputs = [torch.randn(T, B, 3), torch.randn(B, 4), torch.randn(B, 4)]

    def run(x, h, c, weight_ih, weight_hh, bias):
        lstm.weight_ih.data, lstm.weight_hh.data, lstm.bias.data = weight_ih.data, weight_hh.data, bias.data
        parameters = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias}
        out, (h, c) = torch.func.functional_call(lstm, parameters, (x, (h, c), first))
        return out, h, c

    given = [each.double().requires_grad_() for each in inputs] + [p.detach().clone() for p in lstm.parameters()]
    assert torch.autograd.gradcheck(run, [each.requires_grad_() for each in given])


def test_watching_the_lstm_changes_nothing():
    """Unhooked, all steps are one operation; hooked, each gate is a value of its own."""
    torch.manual_seed(0)
    lstm, first = HookedLSTM(5, 7), torch.rand(T, B) < 0.3
    x, state = torch.randn(T, B, 5), (torch.randn(B, 7), torch.randn(B, 7))
    plain, last = lstm(x, state, first)
    handle = lstm.output_gate.register_forward_hook(lambda module, args, out: None)
    watched, watched_last = lstm(x, state, first)
    handle.remove()
    torch.testing.assert_close(plain, watched)
    torch.testing.assert_close(last, watched_last)


def test_an_episodes_first_step_forgets_the_one_before():
    torch.manual_seed(0)
    lstm = HookedLSTM(5, 7)
    x, state = torch.randn(T, B, 5), (torch.randn(B, 7), torch.randn(B, 7))
    first = torch.zeros(T, B, dtype=torch.bool)
    first[3, 1] = True
    ours, _ = lstm(x, state, first)
    fresh, _ = lstm(x[3:, 1:2], (torch.zeros(1, 7), torch.zeros(1, 7)), None)
    unbroken, _ = lstm(x, state, None)
    torch.testing.assert_close(ours[3:, 1], fresh[:, 0])
    torch.testing.assert_close(ours[:, 0], unbroken[:, 0])
    assert not torch.allclose(ours[3:, 1], unbroken[3:, 1])


def agents():
    torch.manual_seed(0)
    symbols = IMPALA(7, (3, 7, 7), (11, 6, 4), hidden=16, lstm=12)
    pixels = IMPALA(5, (3, 16, 16), channels=(4, 8), hidden=16, lstm=12)
    forgetful = IMPALA(5, (3, 16, 16), channels=(4, 8), hidden=16, lstm=0)
    return {"symbols": symbols, "pixels": pixels, "no memory": forgetful}


@pytest.fixture(params=["symbols", "pixels"])
def agent(request):
    return agents()[request.param]


@pytest.fixture
def obs_of_pixels():
    return torch.randint(256, (B, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def obs(agent):
    high, shape = (4, (3, 7, 7)) if agent.observation == "symbols" else (256, (3, 16, 16))
    return torch.randint(high, (T, B, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_network_keeps_the_agent_contract(agent, obs):
    check_agent(agent, obs[0])


def test_a_network_of_cells_keeps_the_contract_where_there_are_pictures_of_cells(obs_of_pixels):
    torch.manual_seed(0)
    check_agent(IMPALA(5, (3, 16, 16), channels=(4, 8), hidden=16, lstm=12, cell=(5, 1)), obs_of_pixels)
    config = default_config("CrafterReward-v1")
    assert make_agent(config).torso(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, *config.channels, 9, 9)
    assert not default_config("CrafterReward-v1", network="drc").cells
    for env in ("ALE/MsPacman-v5", "MiniGrid-Unlock-v0"):
        with pytest.raises(UserError, match=f"cells given for {env}, which shows no picture of a grid"):
            default_config(env, cells=True)


def test_without_an_lstm_it_keeps_the_contract_and_its_head_reads_the_layer_below(obs_of_pixels):
    forgetful = agents()["no memory"]
    check_agent(forgetful, obs_of_pixels)
    assert forgetful.initial_state(3) == ()
    assert forgetful.hook_points["fc.post"].head == "policy"
    assert not any(name.startswith("lstm") for name in forgetful.hook_points)


def test_stepping_and_unrolling_agree_over_time_and_resets(agent, obs):
    first = torch.zeros(T, B, dtype=torch.bool)
    first[2, 0] = first[4, 2] = True
    unrolled = agent.unroll(obs, (), first)
    state = agent.initial_state(B)
    for t in range(T):
        out = agent.step(obs[t], state, first[t])
        torch.testing.assert_close(out.logits, unrolled.logits[t])
        torch.testing.assert_close(out.value, unrolled.value[t])
        state = out.state
    torch.testing.assert_close(state, unrolled.state)


def test_gates_and_states_can_be_read_at_every_step(agent, obs):
    names = ["lstm.i", "lstm.f.pre", "lstm.f", "lstm.g", "lstm.o", "lstm.c", "lstm.h"]
    out, cache = run_with_cache(agent, obs, names=names, unroll=True)
    assert {cache[name].shape for name in names} == {(T, B, 12)}
    torch.testing.assert_close(cache["lstm.f"], cache["lstm.f.pre"].sigmoid())
    torch.testing.assert_close(cache["lstm.h"], cache["lstm.o"] * cache["lstm.c"].tanh())
    before = torch.cat([torch.zeros(1, B, 12), cache["lstm.c"][:-1]])
    torch.testing.assert_close(cache["lstm.c"], cache["lstm.f"] * before + cache["lstm.i"] * cache["lstm.g"])
    torch.testing.assert_close(agent.policy(cache["lstm.h"]), out.logits)


def test_a_state_can_be_changed_at_one_step_and_the_past_stays(agent, obs):
    def poke(value, site):
        return torch.ones_like(value) if site.time == 3 else None

    plain = agent.unroll(obs)
    poked = run_with_hooks(agent, obs, hooks={"lstm.c": poke}, unroll=True)
    torch.testing.assert_close(poked.logits[:3], plain.logits[:3])
    assert all(not torch.allclose(poked.logits[t], plain.logits[t]) for t in range(3, T))


def test_interventions_work_on_recurrent_points(agent, obs):
    changes = [
        Zero("lstm.h"), Clamp("lstm.c", units=[2], value=1.0), Add("lstm.h", direction=torch.randn(12)),
        Splice("lstm.h", reconstruct=lambda x: 0.5 * x),
    ]  # fmt: skip
    plain = agent.unroll(obs)
    for change in changes:
        out = run_with_hooks(agent, obs, hooks=as_hooks([change]), unroll=True)
        assert not torch.allclose(out.logits, plain.logits), change.name


def test_the_residual_sum_is_the_stream_plus_its_branch():
    agent = agents()["pixels"]
    obs = torch.randint(256, (1, B, 3, 16, 16), dtype=torch.uint8)
    names = ["block1.pool", "block1.res1.sum", "block1.res1.post", "block2.res2.sum", "torso.post"]
    _, cache = run_with_cache(agent, obs[0], names=names)
    branch = agent.torso.sections[0].res1.conv2(cache["block1.res1.post"])
    torch.testing.assert_close(cache["block1.res1.sum"], cache["block1.pool"] + branch)
    torch.testing.assert_close(cache["torso.post"], cache["block2.res2.sum"].relu())


def test_categories_are_told_apart_and_never_scaled():
    """A cell of object 2 is no more like one of object 3 than like one of object 8."""
    torso = agents()["symbols"].torso
    obs = torch.zeros(3, 3, 7, 7, dtype=torch.uint8)
    obs[0, 0], obs[1, 0], obs[2, 0] = 2, 3, 8
    embedded = {}

    def keep(module, args):
        embedded["x"] = args[0]

    handle = torso.embed.register_forward_pre_hook(keep)
    torso(obs)
    handle.remove()
    distances = [(embedded["x"][0] - embedded["x"][i]).square().sum() for i in (1, 2)]
    assert distances[0] == distances[1] > 0


def bf16_pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    """With ties and infinities."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(4).round().div(4).add(0.0).bfloat16()
    x[:, :, 0, 0], x[:, :, -1, -1] = torch.inf, -torch.inf
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(3, 16, 8, 8), (2, 5, 7, 9), (1, 32, 1, 6), (4, 1, 2, 1)])
def test_pooling_in_bf16_takes_the_maxima_that_pytorch_takes(shape):
    x = bf16_pictures(*shape)
    expected = nn.MaxPool2d(3, 2, 1)(x)
    with torch.no_grad():
        assert torch.equal(MaxPool2d()(x), expected)
    pooled = MaxPool2d()(x.requires_grad_())
    assert torch.equal(pooled, expected)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    (ours,) = torch.autograd.grad(pooled, x, gradient)
    exact = x.detach().float().requires_grad_()
    (theirs,) = torch.autograd.grad(nn.MaxPool2d(3, 2, 1)(exact), exact, gradient.float())
    assert torch.equal(ours, theirs.bfloat16())


def test_pooling_elsewhere_is_pytorchs_own():
    x = bf16_pictures(2, 3, 6, 6)
    for other in (x.float(), x.contiguous(), x[:0]):
        assert torch.equal(MaxPool2d()(other), nn.MaxPool2d(3, 2, 1)(other))
    nan = torch.full((1, 1, 3, 3), torch.nan, dtype=torch.bfloat16)
    assert MaxPool2d()(nan.contiguous(memory_format=torch.channels_last)).isnan().all()


@pytest.mark.parametrize("seed", range(3))
def test_observations_that_come_again_are_seen_once_with_the_same_results(seed):
    """Outputs and gradients of a learning agent beside those of one that sees each, on a tenth as many observations as
    there are places."""
    env = default_config("MiniGrid-DoorKey-5x5-v0").env
    torch.manual_seed(seed)
    agent = IMPALA(7, env.observation_shape, env.categories, hidden=16, lstm=8)
    kinds = torch.stack([torch.randint(0, n, (5, 7, 7)) for n in env.categories], 1).to(torch.uint8)
    obs = kinds[torch.randint(0, 5, (10, 5))]
    seen = []
    count = agent.torso.embed.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    first = torch.rand(10, 5) < 0.2

    def run():
        agent.zero_grad()
        out = agent.unroll(obs, first=first)
        (out.logits.square().sum() + out.value.sin().sum()).backward()
        return [out.logits.detach(), out.value.detach(), *(p.grad.clone() for p in agent.parameters())]

    watched = run()
    count.remove()
    embed = agent.torso.embed.forward
    agent.torso.embed.forward = lambda given: seen.append(len(given)) or embed(given)
    again = run()
    evaluated = agent.eval().unroll(obs, first=first)
    assert seen == [50, 5, 50], "hooks, and an agent that does not learn, see every observation"
    torch.testing.assert_close(again, watched, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evaluated.logits, again[0])


def test_gradients_of_what_comes_often_are_not_lost_in_bf16():
    """An observation in nine of ten places, beside float32."""
    env = default_config("MiniGrid-DoorKey-5x5-v0").env
    torch.manual_seed(0)
    agent = IMPALA(7, env.observation_shape, env.categories)
    kinds = torch.stack([torch.randint(0, n, (64, 7, 7)) for n in env.categories], 1).to(torch.uint8)
    obs = kinds[torch.where(torch.rand(20, 32) < 0.9, 0, torch.randint(1, 64, (20, 32)))]

    def gradient(bf16: bool):
        agent.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = agent.unroll(obs)
        (out.value.mean() + out.logits.log_softmax(-1)[..., 0].mean()).backward()
        return agent.fc.weight.grad.clone()

    exact = gradient(False)
    assert (gradient(True) - exact).norm() < 0.1 * exact.norm()


def test_what_an_actor_remembers_of_observations_is_forgotten_with_new_weights():
    config = replace(default_config("MiniGrid-DoorKey-5x5-v0"), num_envs=4, unroll=12)
    actor, agent = Actor(config, 0, 0), make_agent(config).eval()
    layout = unroll_layout(config, agent)
    for seed in (1, 2):
        torch.manual_seed(seed)
        agent.load_state_dict(make_agent(config).state_dict())
        out = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.items()}
        actor.play(flat_weights(agent), out)
        with torch.no_grad():
            wanted = agent.unroll(
                torch.from_numpy(out["obs"]), tuple(torch.from_numpy(out[f"state{i}"]) for i in range(2)),
                torch.from_numpy(out["first"]),
            ).logits.log_softmax(-1)[:-1]  # fmt: skip
        taken = wanted.gather(-1, torch.from_numpy(out["actions"])[..., None])[..., 0]
        torch.testing.assert_close(torch.from_numpy(out["log_probs"]), taken, rtol=1e-4, atol=1e-5)
        assert len(actor._seen._places) < 0.8 * 12 * 4, "some must have come again"
    actor.close()
