import copy
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch

from rl_interp import check_agent
from rl_interp.agents.dqn import DQN, DQNConfig, Learner
from rl_interp.agents.dqn.learner import bootstrap, rescale, unscale
from rl_interp.agents.dqn.replay import Batch
from rl_interp.agents.loop import DivergedError, check_finite
from rl_interp.core.device import bf16_pays
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache

CPU = torch.device("cpu")


@pytest.fixture
def frames():
    return torch.randint(0, 256, (6, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batch(frames):
    rng = np.random.default_rng(0)
    return Batch(
        frames.numpy(),
        rng.integers(9, size=6),
        rng.normal(size=6).astype(np.float32),
        np.array([0.97, 0.97, 0, 0.97, 0, 0.95], np.float32),
        frames.flip(0).numpy().copy(),
    )


def network(seed: int = 0) -> DQN:
    torch.manual_seed(seed)
    return DQN(9)


def test_the_network_has_the_published_size_and_keeps_the_contract(frames):
    agent = network()
    assert sum(p.numel() for p in agent.parameters()) == 867_465
    check_agent(agent, frames)


def test_every_hook_point_is_where_it_says(frames):
    agent = network()
    out, cache = run_with_cache(agent, frames, names=list(agent.hook_points))
    shapes = {name: tuple(cache[name].shape[1:]) for name in cache}
    assert shapes == {
        "conv1.pre": (32, 20, 20), "conv1.post": (32, 20, 20), "conv2.pre": (64, 9, 9), "conv2.post": (64, 9, 9),
        "conv3.pre": (32, 7, 7), "conv3.post": (32, 7, 7), "fc.pre": (512,), "fc.post": (512,), "q": (9,),
    }  # fmt: skip
    for layer in ("conv1", "conv2", "conv3", "fc"):
        assert torch.equal(cache[f"{layer}.pre"].relu(), cache[f"{layer}.post"])
    assert torch.equal(cache["q"], out.q_values)


def test_float_observations_give_what_uint8_ones_give(frames):
    agent = network()
    torch.testing.assert_close(agent.step(frames.float()).q_values, agent.step(frames).q_values)


def test_the_bootstrap_follows_both_papers(batch):
    online, target = network(0), network(1)
    returns, discounts, next_obs = (torch.from_numpy(a) for a in (batch.returns, batch.discounts, batch.next_obs))
    with torch.no_grad():
        q_online, q_target = online.step(next_obs).q_values, target.step(next_obs).q_values
    for double in (False, True):
        got = bootstrap(online, target, returns, discounts, next_obs, double)
        for i in range(6):
            action = (q_online if double else q_target)[i].argmax()
            assert got[i].item() == pytest.approx(float(returns[i] + discounts[i] * q_target[i, action]), abs=1e-5)


@pytest.mark.parametrize("value", [-37.0, -1.0, -1e-4, 0.0, 0.3, 1.0, 12.5, 300.0])
def test_values_are_rescaled_as_published_and_back(value):
    x = torch.tensor([value])
    h = np.sign(value) * (np.sqrt(abs(value) + 1) - 1) + 0.01 * value
    assert rescale(x).item() == pytest.approx(h, rel=1e-5, abs=1e-8)
    found = scipy.optimize.brentq(lambda r: rescale(torch.tensor(r, dtype=torch.float64)).item() - h, -1e4, 1e4)
    assert unscale(torch.tensor([h])).item() == pytest.approx(found, rel=1e-4, abs=1e-6)
    assert found == pytest.approx(value, abs=1e-6)


def test_a_rescaled_bootstrap_adds_rewards_to_returns_and_not_to_their_roots(batch):
    target = network(1)
    returns, discounts, next_obs = (torch.from_numpy(a) for a in (batch.returns, batch.discounts, batch.next_obs))
    got = bootstrap(target, target, returns, discounts, next_obs, False, rescaled=True)
    with torch.no_grad():
        best = target.step(next_obs).q_values.amax(1)
    torch.testing.assert_close(unscale(got), returns + discounts * unscale(best), rtol=1e-4, atol=1e-5)
    ended = discounts == 0
    torch.testing.assert_close(got[ended], rescale(returns[ended]))


def test_dueling_learns_as_a_layer_of_a_value_and_advantages_does(batch):
    """Beside the two layers of Wang et al. (2016), made by hand and differentiated by PyTorch."""
    config = DQNConfig(dueling=True, precision="fp32")
    learner = Learner(network(), config, CPU)

    class TwoLayers(torch.nn.Module):
        def __init__(self, q: torch.nn.Linear):
            super().__init__()
            self.value, self.advantage = torch.nn.Linear(512, 1), torch.nn.Linear(512, 9)
            with torch.no_grad():
                self.value.weight.copy_(q.weight.mean(0, keepdim=True))
                self.value.bias.copy_(q.bias.mean(0, keepdim=True))
                self.advantage.weight.copy_(q.weight - self.value.weight)
                self.advantage.bias.copy_(q.bias - self.value.bias)

        @property
        def weight(self):
            return self.value.weight

        def forward(self, x):
            advantages = self.advantage(x)
            return self.value(x) + advantages - advantages.mean(1, keepdim=True)

    theirs = network()
    theirs.q = TwoLayers(theirs.q)  # pyright: ignore[reportAttributeAccessIssue]
    reference = Learner(theirs, DQNConfig(precision="fp32"), CPU)
    obs = torch.from_numpy(batch.obs)
    before = learner.agent.step(obs).q_values.detach()
    torch.testing.assert_close(theirs.step(obs).q_values, before)
    for number in range(4):
        torch.testing.assert_close(learner.update(batch), reference.update(batch))
        if number == 1:  # as a resumed run does
            state, agent = copy.deepcopy(learner.state()), copy.deepcopy(learner.agent)
            learner = Learner(agent, config, CPU)
            learner.restore(state)
    after = learner.agent.step(obs).q_values
    torch.testing.assert_close(after, theirs.step(obs).q_values, rtol=1e-4, atol=1e-5)
    assert (after - before).abs().max() > 1e-3
    assert sum(p.numel() for p in learner.agent.parameters()) == 867_465
    plain = Learner(network(), DQNConfig(precision="fp32"), CPU)
    for _ in range(4):
        plain.update(batch)
    assert (plain.agent.step(obs).q_values - after).abs().max() > 1e-3, "dueling must matter here"


def test_transitions_that_were_drawn_more_often_weigh_less(batch):
    weights = np.array([1, 0.5, 0.25, 1, 0.1, 0.7], np.float32)
    config = DQNConfig(precision="fp32")
    got = Learner(network(), config, CPU).update(replace(batch, weights=weights))
    alone = []
    for i in range(6):
        one = Batch(
            *(getattr(batch, name)[i : i + 1] for name in ("obs", "actions", "returns", "discounts", "next_obs"))
        )
        learner = Learner(network(), config, CPU)
        alone.append(learner.update(one).item())
        q = network().step(torch.from_numpy(one.obs)).q_values[0, one.actions[0]].item()
        target = bootstrap(
            network(), network(), *(torch.from_numpy(a) for a in (one.returns, one.discounts, one.next_obs)), False
        )
        assert learner.errors.tolist() == pytest.approx([q - target.item()], abs=1e-5)
    assert got.item() == pytest.approx(float((weights * alone).mean()), rel=1e-5)


def test_an_update_is_one_adam_step_on_the_huber_loss(batch):
    config = DQNConfig(double=True, max_grad_norm=0.01, precision="fp32")
    learner = Learner(network(), config, CPU)
    reference = copy.deepcopy(learner.agent)
    target = bootstrap(
        reference,
        learner.target,
        *(torch.from_numpy(a) for a in (batch.returns, batch.discounts, batch.next_obs)),
        True,
    )
    q = reference.step(torch.from_numpy(batch.obs)).q_values[torch.arange(6), torch.from_numpy(batch.actions)]
    error = (q - target).abs()
    loss = torch.where(error < 1, 0.5 * error**2, error - 0.5).mean()
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    norm = torch.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > 0.01, "the clip must matter here"
    got = learner.update(batch)
    torch.testing.assert_close(got, loss.detach())
    for new, old, gradient in zip(learner.agent.parameters(), reference.parameters(), gradients, strict=True):
        g = gradient * 0.01 / norm
        step = config.learning_rate * g / (g.abs() + config.adam_eps)  # Adam's first step, bias-corrected
        torch.testing.assert_close(new, old - step, rtol=1e-4, atol=2e-7)


@pytest.mark.parametrize(("final", "share"), [(None, 1.0), (0.0, 0.25), (5e-5, 0.5)])
def test_steps_shrink_in_a_line_to_the_final_one(batch, final, share):
    config = DQNConfig(learning_rate=1.5e-4, final_learning_rate=final, precision="fp32")
    start = network().q.weight.detach()
    moved = []
    for progress in (0.0, 0.75):
        learner = Learner(network(), config, CPU)
        learner.update(batch, progress)
        moved.append((learner.agent.q.weight.detach() - start).norm().item())
    assert moved[1] == pytest.approx(share * moved[0], rel=1e-3)


def test_a_final_step_size_above_the_first_is_refused():
    with pytest.raises(UserError, match=r"final_learning_rate=0\.01 given with learning_rate=0\.00015; step sizes"):
        DQNConfig(final_learning_rate=0.01)


def test_the_target_is_copied_on_schedule(batch):
    learner = Learner(network(), DQNConfig(target_every=2), CPU)
    start = copy.deepcopy(learner.target.q.weight)
    learner.update(batch)
    assert torch.equal(learner.target.q.weight, start)
    learner.update(batch)
    assert torch.equal(learner.target.q.weight, learner.agent.q.weight)


def test_auto_precision_uses_bf16_only_where_the_processor_multiplies_in_it():
    assert Learner(network(), DQNConfig(), CPU).bf16 == bf16_pays(CPU)
    assert Learner(network(), DQNConfig(precision="bf16"), CPU).bf16


def test_values_are_in_float32_beside_bf16(frames):
    agent = network()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        q = agent.step(frames).q_values
        features = agent.relu4(agent.fc(agent.flatten(agent.conv3(agent.conv2(agent.conv1(agent.scale(frames)))))))
    assert q.dtype == torch.float32
    assert features.dtype == torch.bfloat16
    assert not torch.equal(q, q.bfloat16().float()), "values must have more digits than bf16 has"


def test_bf16_updates_stay_close_to_fp32(batch):
    losses = [Learner(network(), DQNConfig(precision=p), CPU).update(batch).item() for p in ("fp32", "bf16")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_loss_that_is_not_finite_is_one_sentence():
    with pytest.raises(DivergedError, match="the loss became nan at step 7; the last checkpoint is kept"):
        check_finite(float("nan"), 7)
