"""What features do to decisions: clamped, spliced in, and shared out."""

import numpy as np
import pytest
import torch
from made import make, make_jump

from rl_interp import run_with_cache, run_with_hooks
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Zero, as_hooks
from rl_interp.sae import ClampFeature, clamp_effects, direct_effects, integrated_effects, splice


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)


def test_clamping_through_the_head_equals_clamping_by_hook(conv_agent, conv_obs):
    sae = make(108, 40, 5)
    out, cache = run_with_cache(conv_agent, conv_obs, names=["q.in"])
    values = torch.full((40,), 30.0)
    effects = clamp_effects(sae, cache["q.in"], conv_agent.q, values)
    changes = set()
    for feature in (0, 7, 39):
        clamp = ClampFeature("q.in", sae=sae, feature=feature, value=30.0)
        hooked = run_with_hooks(conv_agent, conv_obs, hooks=as_hooks([clamp])).q_values
        changed = (hooked.argmax(1) != out.q_values.argmax(1)).float().mean().item()
        assert effects[feature].changed == pytest.approx(changed)
        assert sum(effects[feature].towards) == pytest.approx(0, abs=1e-6)
        changes.add(changed)
    assert changes != {0.0}


def test_clamping_changes_nothing_of_an_action_that_is_ruled_out(x):
    def head(at):
        return at[:, :3].masked_fill(torch.tensor([False, True, False]), -torch.inf)

    sae = make()
    for effect in clamp_effects(sae, torch.from_numpy(x), head, torch.ones(sae.d_sae)):
        assert effect.preference_change[1] == effect.preference_change_control[1] == 0
        assert np.isfinite(effect.preference_change).all()


def test_direct_effects_are_the_heads_answer_to_a_direction():
    sae, head = make(), torch.nn.Linear(6, 4)
    effects = direct_effects(sae, head.weight)
    for feature in range(10):
        torch.testing.assert_close(effects[feature], (head(sae.W_dec[feature]) - head.bias).detach())


def test_splicing_reconstructs_inside_the_agent(conv_agent, conv_obs):
    sae = make(108, 40, 5)
    out = run_with_hooks(conv_agent, conv_obs, hooks=as_hooks([Zero("q.in"), splice(sae, "q.in")]))
    wanted = conv_agent.q(sae(torch.zeros(5, 108)))
    torch.testing.assert_close(out.q_values, wanted)
    with pytest.raises(UserError, match="108 wide can't be spliced in at 'fc', which is 512 wide"):
        splice(sae, "fc", 512)


@pytest.mark.parametrize("sae", [make(), make_jump()], ids=["topk", "jumprelu"])
def test_integrated_effects_share_out_what_all_features_do(sae, x):
    rows = torch.from_numpy(x[:50]).double()
    sae = sae.double()
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)).double()
    active = (sae.encode(rows) > 0).sum(0)
    shares = integrated_effects(sae, rows, head, steps=200) * active[:, None]
    without = head(rows - (sae(rows) - sae.b_dec))
    torch.testing.assert_close(shares.sum(0), (head(rows) - without).sum(0), rtol=1e-3, atol=1e-3)
    linear = torch.nn.Linear(6, 4).double()
    latents = sae.encode(rows)
    expected = direct_effects(sae, linear.weight) * (latents.sum(0) / active.clamp(min=1))[:, None]
    torch.testing.assert_close(integrated_effects(sae, rows, linear, steps=2), expected)
