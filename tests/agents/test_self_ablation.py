"""Self-ablation: its masks and gradients beside brute force, the ablated stream, and trainings with and without it."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rl_interp.agents.impala import IMPALA, IMPALAConfig, Training, make_agent
from rl_interp.agents.impala.learner import losses
from rl_interp.agents.impala.self_ablation import (
    ABLATED_COST,
    SOFTNESS,
    ablated,
    both_streams,
    soft_winners,
    straight_through,
    winners,
)
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs import MiniGridConfig
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import as_hooks
from rl_interp.core.run import Run

SMALL = IMPALAConfig(
    env=MiniGridConfig("MiniGrid-Empty-5x5-v0"), agent_steps=640, num_envs=4, unroll=10, hidden=16, lstm=16,
    eval_episodes=2, checkpoint_every=0, log_every=80, precision="fp32",
)  # fmt: skip
PIXELS = dict(channels=(4, 12), hidden=16)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_winners_are_the_set_of_k_with_the_largest_sum(k):
    torch.manual_seed(0)
    for scores in torch.randn(5, 7):
        best = max(itertools.combinations(range(7), k), key=lambda units: sum(scores[i] for i in units))
        assert winners(scores, k).nonzero().flatten().tolist() == list(best)


def test_of_equal_scores_exactly_k_win_and_gradients_stay_finite():
    scores = torch.zeros(2, 5, requires_grad=True)
    mask = straight_through(scores, 2)
    assert mask.sum(-1).tolist() == [2.0, 2.0]
    mask[:, 0].sum().backward()
    assert scores.grad.isfinite().all()


def written_out(scores: list[float], k: int) -> list[float]:
    """The weights as the paper gives them, number by number."""
    ordered = sorted(scores, reverse=True)
    middle, temperature = (ordered[k - 1] + ordered[k]) / 2, SOFTNESS * (ordered[k - 1] - ordered[k])
    weights = [1 / (1 + 2.718281828459045 ** (-(x - middle) / temperature)) for x in scores]
    return [k * weight / sum(weights) for weight in weights]


def test_gradients_are_the_finite_differences_of_the_soft_weights_and_values_are_hard():
    torch.manual_seed(0)
    scores, factors = torch.randn(6, dtype=torch.float64) * 0.1, torch.randn(6, dtype=torch.float64)
    scores.requires_grad_()
    mask = straight_through(scores, 3)
    assert torch.equal(mask, winners(scores, 3))
    (factors @ mask).backward()
    for i in range(6):
        sides = []
        for step in (1e-6, -1e-6):
            moved = scores.tolist()
            moved[i] += step
            sides.append(float(factors @ torch.tensor(written_out(moved, 3), dtype=torch.float64)))
        assert scores.grad[i].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-5)


def test_soft_weights_sum_to_k_and_are_within_a_hundredth_of_the_hard_ones_at_both_sides_of_the_threshold():
    torch.manual_seed(0)
    scores = torch.randn(50, 20)
    soft, hard = soft_winners(scores, 4), winners(scores, 4)
    torch.testing.assert_close(soft.sum(-1), torch.full((50,), 4.0))
    assert (soft >= 0).all()
    # At distance of half the gap, 5 temperatures, a sigmoid is 0.0067 from 0 or 1; normalising adds as much.
    assert (soft.clamp(max=1) - hard)[hard == 1].abs().max() < 0.03
    assert soft[hard == 0].max() < 0.0068


def observations(*shape: int, high: int = 256) -> torch.Tensor:
    return torch.randint(high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("agent", "obs", "layers"),
    [
        (dict(shape=(3, 7, 7), categories=(11, 6, 4), hidden=16, lstm=12), (3, 7, 7), ["conv1", "conv2", "fc"]),
        (dict(shape=(3, 16, 16), lstm=0, **PIXELS), (3, 16, 16), ["block2.res1", "block2.res2", "fc"]),
        (dict(shape=(6,), hidden=16, lstm=0), (6,), ["mlp1", "fc"]),
    ],
    ids=["symbols", "pixels", "vector"],
)
def test_every_layer_of_more_than_k_units_keeps_the_k_that_its_head_scores_highest(agent, obs, layers):
    torch.manual_seed(0)
    network = IMPALA(5, **agent, self_ablation=8)
    assert network.self_ablation.names == layers
    seen = observations(3, *obs, high=4)
    seen = seen.float() if len(obs) == 1 else seen
    check_agent(network, seen)
    names = [f"{layer}.{what}" for layer in layers for what in ("scores", "post")]
    _, plain = run_with_cache(network, seen, names=names)
    _, cut = run_with_cache(network, seen, names=names, hooks=as_hooks(ablated(network)))
    first = layers[0]  # the one whose input the others' ablation does not change
    torch.testing.assert_close(cut[f"{first}.scores"], plain[f"{first}.scores"])
    for name in layers:
        kept = cut[f"{name}.post"].flatten(2).any(-1) if cut[f"{name}.post"].dim() > 2 else cut[f"{name}.post"] != 0
        assert not (kept & (winners(cut[f"{name}.scores"], 8) == 0)).any(), name
    mask = winners(plain[f"{first}.scores"], 8).reshape(3, -1, *[1] * (plain[f"{first}.post"].dim() - 2))
    torch.testing.assert_close(cut[f"{first}.post"], plain[f"{first}.post"] * mask)


def test_scores_are_linear_in_what_the_layer_reads():
    torch.manual_seed(0)
    agent = IMPALA(5, (3, 16, 16), lstm=0, **PIXELS, self_ablation=8)
    obs = observations(3, 3, 16, 16)
    _, cache = run_with_cache(agent, obs, names=["block2.pool", "block2.res1.scores", "torso.post", "fc.scores"])
    block, _, fc = agent.self_ablation.heads
    means = cache["block2.pool"].relu().mean((2, 3))
    torch.testing.assert_close(cache["block2.res1.scores"], means @ block.weight.T + block.bias)
    torch.testing.assert_close(cache["fc.scores"], F.linear(cache["torso.post"].flatten(1), fc.weight, fc.bias))


def test_the_agent_itself_starts_as_one_without_self_ablation_and_does_not_depend_on_its_heads():
    agents = []
    for k in (0, 8):
        torch.manual_seed(0)
        agents.append(IMPALA(5, (3, 16, 16), lstm=12, **PIXELS, self_ablation=k))
    without, trained = agents
    obs = observations(2, 3, 16, 16)
    for name, weight in without.state_dict().items():
        assert torch.equal(weight, trained.state_dict()[name]), name
    for parameter in trained.self_ablation.parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(without.step(obs).logits, trained.step(obs).logits)


def test_the_loss_is_the_clean_one_and_a_tenth_of_the_ablated_one_and_of_the_distance():
    config = replace(SMALL, self_ablation=8)
    training = Training(config, 0)
    _, unroll = training.actors.next()
    batch = {name: torch.from_numpy(array.copy()) for name, array in unroll.items()}
    agent, state = training.agent, (batch["state0"], batch["state1"])
    args = dict(unroll=True, first=batch["first"])
    clean, plain = run_with_cache(agent, batch["obs"], state, names=["lstm.h"], **args)
    cut = as_hooks(ablated(agent))
    second, changed = run_with_cache(agent, batch["obs"], state, names=["lstm.h"], hooks=cut, **args)
    cosine = F.cosine_similarity(plain["lstm.h"], changed["lstm.h"], dim=-1)
    total = losses(config, clean, batch).total + ABLATED_COST * losses(config, second, batch).total
    got = training.learner.update({**unroll}, 0.0)
    torch.testing.assert_close(got.total, total + 0.1 * (2 - 2 * cosine).mean(), rtol=1e-4, atol=1e-6)
    assert got.distance > 0


def test_the_ablated_stream_trains_its_heads_and_the_agents_layers():
    torch.manual_seed(0)
    agent = make_agent(replace(SMALL, self_ablation=8))
    obs = observations(3, 2, 3, 7, 7, high=4)
    _, second, _ = both_streams(agent, agent.torso, agent.policy, obs, (), None)
    second.logits.square().sum().backward()
    for name, parameter in agent.named_parameters():
        assert name.startswith("baseline") or parameter.grad.abs().sum() > 0, name
    plain = run_with_hooks(agent, obs, hooks=as_hooks(ablated(agent)), unroll=True)
    torch.testing.assert_close(plain.logits, second.logits)


@pytest.mark.parametrize(("k", "times"), [(8, 2), (12, 1)], ids=["torso and fc ablated", "fc ablated"])
def test_a_torso_without_ablated_layers_is_computed_once_with_the_gradients_of_both_streams(k, times):
    torch.manual_seed(0)
    agent = IMPALA(5, (3, 16, 16), lstm=0, **PIXELS, self_ablation=k)
    obs, calls = observations(3, 2, 3, 16, 16), []
    agent.get_submodule(agent.hook_points["block1.conv"].path).register_forward_hook(lambda *_: calls.append(1))
    gradients = []
    for plainly in (False, True):
        if plainly:
            clean = agent.unroll(obs)
            second = run_with_hooks(agent, obs, hooks=as_hooks(ablated(agent)), unroll=True)
        else:
            clean, second, _ = both_streams(agent, agent.torso, agent.policy, obs, (), None)
            assert len(calls) == times
        loss = sum(out.logits.square().sum() + out.value.square().sum() for out in (clean, second))
        gradients.append([loss.detach(), *torch.autograd.grad(loss, list(agent.parameters()))])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_a_resumed_training_with_self_ablation_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
    config = replace(SMALL, self_ablation=8)
    whole = Training(config, 3)
    while whole.agent_steps < 240:
        if whole.agent_steps == 120:
            run = Run.create(tmp_path / "run", "impala", config, 3)
            run.save_checkpoint(120, whole.agent.state_dict(), whole.state())
        whole.advance()
    resumed = Training(config, 3)
    resumed.restore(run.load_weights(), run.load_state(), run.path)
    while resumed.agent_steps < 240:
        resumed.advance()
    for name, weight in whole.agent.state_dict().items():
        assert torch.equal(weight, resumed.agent.state_dict()[name]), name
    assert {"ablated_loss", "distance"} <= whole.metrics().keys()


def test_what_can_not_be_ablated_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="self_ablation=16 given with hidden=16"):
        replace(SMALL, self_ablation=16)
    with pytest.raises(UserError, match="self_ablation and explorer given"):
        replace(SMALL, self_ablation=8, explorer="x")
    with pytest.raises(UserError, match="trained without self-ablation"):
        ablated(make_agent(SMALL))
