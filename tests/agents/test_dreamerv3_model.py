"""DreamerV3's distributions, networks and latents, against definitions and against one another.

Equality with the published package is in tests/oracles/test_published_dreamerv3.py.
"""

from unittest import mock

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from rl_interp.agents.dreamerv3 import Latent, default_config, distributions, make_agent
from rl_interp.agents.dreamerv3.behaviour import lambda_returns
from rl_interp.agents.dreamerv3.config import SIZES, DreamerV3Config
from rl_interp.agents.dreamerv3.networks import picture_shape, stages
from rl_interp.agents.dreamerv3.norm import LayerNorm
from rl_interp.core.check_agent import check_agent
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hooked, run_with_cache, run_with_hooks
from rl_interp.core.interventions import Clamp, During, Zero, as_hooks

SYMBOLS = default_config("MiniGrid-Empty-5x5-v0", size="debug", precision="fp32")
PIXELS = default_config("CrafterReward-v1", size="debug", precision="fp32")


@pytest.fixture(params=[SYMBOLS, PIXELS], ids=["symbols", "pixels"])
def config(request):
    return request.param


def agent_of(config, seed=0):
    """With noise on its weights: new ones predict no reward and no value."""
    torch.manual_seed(seed)
    agent = make_agent(config).eval()
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return agent


def episode(config, time=6, batch=3, seed=0):
    """Random observations, actions, and episodes that begin in between."""
    rng = np.random.default_rng(seed)
    high = 256 if config.env.categories is None else min(config.env.categories)
    obs = torch.from_numpy(rng.integers(high, size=(time, batch, *config.env.observation_shape), dtype=np.uint8))
    actions = torch.from_numpy(rng.integers(len(config.env.action_names), size=(time, batch)))
    first = torch.from_numpy(rng.random((time, batch)) < 0.2)
    first[0] = True
    return obs, actions, first


def test_symexp_inverts_symlog():
    x = torch.tensor([-1e4, -2.5, -1e-3, 0.0, 1e-3, 2.5, 1e4], dtype=torch.float64)
    torch.testing.assert_close(distributions.symexp(distributions.symlog(x)), x)
    torch.testing.assert_close(distributions.symlog(torch.tensor(np.e - 1)), torch.tensor(1.0))


def test_a_two_hot_prediction_is_the_value_that_its_loss_is_least_for():
    """The loss of the target's own two-hot distribution is its entropy, and that distribution stands for the target."""
    bins = np.linspace(-20, 20, 255)
    for target in (-300.0, -0.04, 0.0, 1.0, 77.7):
        place = np.sign(target) * np.log1p(abs(target))
        above = int(np.searchsorted(bins, place, side="right"))
        share = (place - bins[above - 1]) / (bins[above] - bins[above - 1])
        probs = np.full(255, 1e-30)
        probs[above - 1], probs[above] = 1 - share, max(share, 1e-30)
        logits = torch.tensor(np.log(probs), dtype=torch.float32)
        entropy = -sum(p * np.log(p) for p in (1 - share, share) if p > 0)
        torch.testing.assert_close(
            distributions.two_hot_loss(logits, torch.tensor(target)).item(), entropy, atol=1e-4, rtol=1e-3
        )
        torch.testing.assert_close(distributions.two_hot_mean(logits).item(), target, atol=1e-4, rtol=1e-3)


def test_losses_of_several_targets_are_summed():
    logits, one, other = torch.randn(5, 255), torch.randn(5), 50 * torch.randn(5)
    both = distributions.two_hot_loss(logits, one, other)
    torch.testing.assert_close(
        both, distributions.two_hot_loss(logits, one) + distributions.two_hot_loss(logits, other)
    )
    assert distributions.two_hot_loss(logits, torch.full((5,), 1e30)).isfinite().all()


def test_divergence_and_entropy_are_those_of_categoricals():
    p, q = (distributions.unimix(torch.randn(4, 3, 6), 0.01) for _ in range(2))
    torch.testing.assert_close(
        distributions.kl_divergence(p, q), kl_divergence(Categorical(logits=p), Categorical(logits=q)).sum(-1)
    )
    torch.testing.assert_close(distributions.entropy(p), Categorical(logits=p).entropy())
    assert p.exp().min() >= 0.01 / 6 - 1e-7


def test_samples_have_the_probabilities_and_pass_gradients_to_them():
    torch.manual_seed(0)
    probs = torch.tensor([0.5, 0.0, 0.3, 0.2])
    drawn = distributions.sample(probs.clamp(min=1e-30).log().expand(20000, 4))
    assert (drawn.sum(-1) == 1).all()
    np.testing.assert_allclose(drawn.mean(0), probs, atol=4 * 0.5 / 20000**0.5)
    log_probs = torch.randn(2, 5).log_softmax(-1).requires_grad_()
    for draw in (distributions.sample, distributions.mode):
        weights = torch.randn(2, 5)
        (gradient,) = torch.autograd.grad((draw(log_probs) * weights).sum(), log_probs)
        torch.testing.assert_close(gradient, weights * log_probs.exp())


def test_lambda_returns_are_the_mixture_of_n_step_returns():
    rng = np.random.default_rng(0)
    rewards, discounts, values = rng.random(5), 0.9 * (rng.random(5) > 0.2), rng.random(6)
    lambda_ = 0.7

    def n_step(t, n):
        total, weight = 0.0, 1.0
        for k in range(t, t + n):
            total, weight = total + weight * rewards[k], weight * discounts[k]
        return total + weight * values[t + n]

    want = []
    for t in range(5):
        ahead = 5 - t
        mixed = sum((1 - lambda_) * lambda_ ** (n - 1) * n_step(t, n) for n in range(1, ahead))
        want.append(mixed + lambda_ ** (ahead - 1) * n_step(t, ahead))
    got = lambda_returns(*(torch.from_numpy(each)[:, None] for each in (rewards, discounts, values)), lambda_)
    torch.testing.assert_close(got[:, 0], torch.tensor(want))


def test_it_keeps_the_contract(config):
    obs, _, _ = episode(config)
    check_agent(agent_of(config), obs[0])


@torch.no_grad()
def test_an_unroll_is_the_steps_one_after_another(config):
    agent, (obs, actions, first) = agent_of(config), episode(config)
    whole = agent.unroll(obs, (), first, actions)
    state = agent.initial_state(obs.shape[1])
    for t in range(len(obs)):
        out = agent.step(obs[t], state, first[t])
        torch.testing.assert_close(out.logits, whole.logits[t])
        torch.testing.assert_close(out.value, whole.value[t])
        state = agent.after_action(out.state, actions[t])
    assert not torch.allclose(whole.logits[0], whole.logits[1])
    with pytest.raises(UserError, match="without the actions between them"):
        agent.unroll(obs, (), first)


@torch.no_grad()
def test_what_was_done_matters_until_an_episode_begins(config):
    agent, (obs, actions, first) = agent_of(config), episode(config)
    first[1:] = False
    first[4] = True
    other = actions.clone()
    other[1] = (other[1] + 1) % agent.num_actions
    one, two = (agent.unroll(obs, (), first, each).logits for each in (actions, other))
    torch.testing.assert_close(one[:2], two[:2])
    assert not torch.allclose(one[2], two[2])
    torch.testing.assert_close(one[4:], two[4:])


@torch.no_grad()
def test_the_world_model_observes_what_the_agent_does(config, monkeypatch):
    """With the mode for a sample, replayed sequences give the latents that the agent had."""
    agent, (obs, actions, first) = agent_of(config), episode(config)
    monkeypatch.setattr(distributions, "sample", distributions.mode)
    seen = agent.world_model.observe(obs, actions, first)
    _, cache = run_with_cache(
        agent, obs, names=["deter", "stoch", "posterior", "prior"], first=first, actions=actions, unroll=True
    )
    torch.testing.assert_close(cache["deter"], seen.latent.deter)
    torch.testing.assert_close(cache["stoch"], seen.latent.stoch)
    torch.testing.assert_close(cache["posterior"], seen.posterior)
    torch.testing.assert_close(cache["prior"].view_as(seen.prior), seen.prior)


@torch.no_grad()
def test_training_samples_latents_and_evaluation_does_not(config):
    agent, (obs, actions, first) = agent_of(config), episode(config)
    logits = [agent.train(mode).unroll(obs, (), first, actions).logits for mode in (False, False, True, True)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[2], logits[3])


@torch.no_grad()
def test_phases_and_times_are_told_apart(config):
    agent, (obs, actions, first) = agent_of(config), episode(config)
    sites = []
    with hooked(agent, {name: lambda value, site: sites.append(site) for name in ("deter", "embed")}):
        seen = agent.world_model.observe(obs, actions, first)
        agent.imagine((seen.latent.deter[-1], seen.latent.stoch[-1], torch.zeros(3, agent.num_actions)), horizon=4)
    times = [(site.name, site.phase, site.time) for site in sites]
    assert times == [
        ("embed", "observe", 0),
        *(("deter", "observe", t) for t in range(6)),
        *(("deter", "imagine", t) for t in range(4)),
    ]


@torch.no_grad()
def test_a_latent_clamped_in_imagination_changes_what_follows_alone(config):
    agent, (obs, _, _) = agent_of(config), episode(config)
    state = agent.step(obs[0], agent.initial_state(3)).state
    plain = agent.imagine(state, horizon=5, seed=1)
    change = During(Clamp("deter", units=[3], value=4.0), phase="imagine", times=[2])
    with hooked(agent, as_hooks([change])):
        agent.step(obs[0], agent.initial_state(3))  # not imagined: not touched
        changed = agent.imagine(state, horizon=5, seed=1)
    assert torch.equal(plain.latent.deter[:3], changed.latent.deter[:3])
    assert (changed.latent.deter[3, :, 3] == 4).all()
    assert not torch.allclose(plain.latent.deter[4], changed.latent.deter[4])
    assert torch.equal(plain.rewards[:2], changed.rewards[:2])
    assert not torch.equal(plain.rewards[2], changed.rewards[2])
    assert not torch.equal(agent.world_model.decoder(plain.features[3]), agent.world_model.decoder(changed.features[3]))
    assert not torch.equal(agent.behaviour.policy(plain.features[3]), agent.behaviour.policy(changed.features[3]))


@torch.no_grad()
def test_imagined_actions_can_be_given(config):
    agent, (obs, actions, _) = agent_of(config), episode(config)
    state = agent.step(obs[0], agent.initial_state(3)).state
    dream = agent.imagine(state, horizon=4, actions=actions[:4])
    assert torch.equal(dream.actions[:4].argmax(-1), actions[:4])
    picture = agent.world_model.picture(dream.latent)
    assert picture.shape == (5, 3, *config.env.observation_shape)
    assert picture.dtype == torch.uint8
    if config.env.categories is not None:
        assert all(picture[:, :, i].max() < count for i, count in enumerate(config.env.categories))


def test_a_head_that_deciding_does_not_need_is_computed_where_a_hook_is(config):
    agent, (obs, _, _) = agent_of(config), episode(config)
    calls = []
    handle = agent.world_model.reward.register_forward_hook(lambda *_: calls.append(1))
    agent.step(obs[0], agent.initial_state(3))
    assert calls == [1]  # PyTorch's own hooks count too
    handle.remove()
    _, cache = run_with_cache(agent, obs[0], names=["reward.out", "cont.out", "decoder.h0.post"] if
                              config.env.categories else ["reward.out", "decoder.s0.post"])  # fmt: skip
    assert cache["reward.out"].shape == (3, 255)


def test_zeroing_the_latent_changes_the_policy(config):
    agent, (obs, _, _) = agent_of(config), episode(config)
    plain = agent.step(obs[0], agent.initial_state(3)).logits
    for name in ("deter", "stoch", "embed", "actor.h0.post"):
        changed = run_with_hooks(agent, obs[0], hooks=as_hooks([Zero(name)])).logits
        assert not torch.allclose(plain, changed), name


def test_an_observation_is_learned_from_in_every_part(config):
    """One world-model loss reaches every parameter of the world model, and none of the behaviour's."""
    agent, (obs, actions, first) = agent_of(config).train(), episode(config)
    batch = {
        "obs": obs, "actions": actions, "first": first, "rewards": torch.randn(first.shape),
        "terminated": torch.rand(first.shape) < 0.2,
    }  # fmt: skip
    terms, _ = agent.world_model.losses(batch)
    assert set(terms) == {"dyn", "rep", "image", "reward", "cont"}
    agent.world_model.total(terms).backward()
    assert not [name for name, p in agent.world_model.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(p.grad is None for p in agent.behaviour.parameters())


def test_a_sequence_that_goes_on_from_a_stored_latent_is_the_rest_of_the_whole(config):
    """Given the same samples: every loss of the second half is what it is after the first half."""
    agent, (obs, actions, _) = agent_of(config), episode(config)
    half, shape = len(obs) // 2, actions.shape
    batch = {
        "obs": obs, "actions": actions, "first": torch.zeros(shape, dtype=torch.bool),
        "rewards": torch.randn(shape), "terminated": torch.rand(shape) < 0.2,
    }  # fmt: skip
    model = agent.world_model
    with torch.no_grad(), mock.patch.object(distributions, "sample", distributions.mode):
        whole, seen = model.losses(batch)
        stored = model.rssm.packed(Latent(*(leaf[half - 1] for leaf in seen.latent)))
        rest = {name: tensor[half:] for name, tensor in batch.items()} | {
            "before_deter": torch.from_numpy(stored["deter"]), "before_stoch": torch.from_numpy(stored["stoch"]).long(),
            "before_actions": actions[half - 1],
        }  # fmt: skip
        parts, _ = model.losses(rest)
    for name, loss in parts.items():
        torch.testing.assert_close(loss, whole[name][half:])


def test_small_has_the_published_number_of_parameters():
    """As the package counts them for 64×64 pictures and 5 actions; Crafter has 12 actions more, each with a row of
    the RSSM's first layer and a weight and a bias of the actor's last."""
    agent = make_agent(default_config("CrafterReward-v1", size="small"))
    parts = (agent.world_model, agent.behaviour.actor, agent.behaviour.critic)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [15_687_299 + 12 * 512, 1_053_189 + 12 * 513, 1_181_439]


def test_pictures_of_other_sizes_are_resized():
    assert stages((3, 64, 64)) == 4
    for shape in ((3, 56, 56), (1, 84, 84), (3, 210, 160), (3, 6, 6), (3, 64, 32)):
        assert picture_shape(shape) == (shape[0], 64, 64)
    for side in (8, 16, 32, 64, 128):
        assert picture_shape((3, side, side)) == (3, side, side)


def test_an_unknown_size_is_refused():
    with pytest.raises(UserError, match="unknown size 'huge'"):
        DreamerV3Config(size="huge")
    assert set(SIZES) == {"debug", "tiny", "small", "medium", "large", "xlarge"}


def test_the_initial_latent_is_learned(config):
    rssm = agent_of(config).world_model.rssm
    latent = rssm.initial(2)
    assert isinstance(latent, Latent)
    torch.testing.assert_close(latent.deter[0], rssm.initial_deter.tanh())
    prior = rssm.prior_of(latent.deter)
    torch.testing.assert_close(latent.stoch, torch.nn.functional.one_hot(prior.argmax(-1), 4).float().flatten(1))


@pytest.mark.parametrize("channels", [8, 16], ids=["compiled", "PyTorch's"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_norm_adds_up_its_weights_gradients_in_full(channels, dtype):
    """PyTorch's, given bf16, loses 84% of the bias's gradient over as many rows."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4, 128, 128, channels, generator=random).to(dtype)
    gradient = (torch.randn(x.shape, generator=random) + 0.1).to(dtype)
    norm = LayerNorm(channels)
    exact = torch.nn.LayerNorm(channels, eps=1e-3).double()
    with torch.no_grad():
        for parameter, other in zip(norm.parameters(), exact.parameters(), strict=True):
            other.copy_(parameter.add_(0.1 * torch.randn(channels, generator=random)))
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    out, expected = norm(ours), exact(theirs)
    out.backward(gradient)
    expected.backward(gradient.double())
    assert out.dtype == dtype
    rounding = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(out.double(), expected, rtol=rounding, atol=rounding)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=rounding, atol=rounding)
    torch.testing.assert_close(norm.weight.grad.double(), exact.weight.grad, rtol=2e-4, atol=0.05)
    torch.testing.assert_close(norm.bias.grad.double(), exact.bias.grad, rtol=2e-4, atol=0.05)
