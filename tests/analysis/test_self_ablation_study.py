"""The study of self-ablation on planted masks: what a probe must and must not find."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from rl_interp.agents.impala import IMPALA
from rl_interp.analysis.self_ablation import MostActive
from rl_interp.analysis.self_ablation_leak import Followed, _accuracy, information, layers, leak
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.interventions import as_hooks


def planted(leaks: bool) -> Followed:
    """600 steps of 20 episodes: masks with a bit for each action, or random; units that are noise."""
    rng = np.random.default_rng(0)
    actions = rng.integers(3, size=600)
    masks = rng.random((600, 12)) < 0.5
    if leaks:
        masks[:, :3] = np.eye(3, dtype=bool)[actions]
    units = rng.standard_normal((600, 12)).astype(np.float32)
    won = np.ones(12, np.float32)
    return Followed(np.repeat(np.arange(20), 30), actions, {"fc": units}, {"fc": masks}, {"fc": won}, {})


def test_an_action_tells_of_the_state_what_a_counted_table_says_and_nothing_where_the_policy_is_the_same():
    policy = np.random.default_rng(0).dirichlet([0.3] * 4, 50)
    joint = policy / len(policy)
    expected = scipy.stats.entropy(joint.ravel(), np.outer(joint.sum(1), joint.sum(0)).ravel())
    assert information(policy) == pytest.approx(expected)
    assert information(np.repeat(policy[:1], 50, 0)) == pytest.approx(0, abs=1e-12)
    assert information(np.tile(np.eye(4), (5, 1))) == pytest.approx(np.log(4))


def test_an_interval_of_a_share_of_steps_holds_it_where_episodes_differ_in_length():
    """Two long episodes of which nine steps in ten are right, and twenty of one step that is wrong."""
    right = np.concatenate([np.tile(np.arange(10) > 0, 100), np.zeros(20, bool)])
    found = _accuracy(right, np.concatenate([np.zeros(500, int), np.ones(500, int), np.arange(2, 22)]))
    assert found["value"] == pytest.approx(900 / 1020)
    assert found["interval"][0] < found["value"] < found["interval"][1]


def test_probes_need_episodes_that_they_are_not_fitted_on():
    seen = planted(False)
    with pytest.raises(UserError, match="are of one episode, and probes are scored on other episodes"):
        leak(replace(seen, episodes=np.zeros_like(seen.episodes)))


@pytest.mark.parametrize(("leaks", "least", "most"), [(True, 0.99, 1.0), (False, 0.2, 0.5)])
def test_masks_tell_the_action_where_it_is_planted_in_them_and_nowhere_else(leaks, least, most):
    found = leak(planted(leaks))
    assert least <= found["linear: masks, all"]["value"] <= most
    assert least <= found["mlp: masks, all"]["value"] <= most
    for control in ("linear: units at their medians, all", "linear: masks, all, shuffled labels"):
        assert 0.2 < found[control]["value"] < 0.5, control


def test_the_most_active_units_are_those_of_the_largest_values_and_of_the_channels_with_the_largest_means():
    torch.manual_seed(0)
    agent = IMPALA(5, (3, 16, 16), channels=(4, 12), hidden=16, lstm=0)
    assert list(layers(agent, wider_than=8)) == ["block2.res1", "block2.res2", "fc"]
    obs = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    names = ["block2.res1.post", "fc.post"]
    for name in names:
        _, plain = run_with_cache(agent, obs, names=[name])
        _, cut = run_with_cache(agent, obs, names=[name], hooks=as_hooks([MostActive(name, k=3)]))
        for before, after in zip(plain[name], cut[name], strict=True):
            means = before.reshape(len(before), -1).mean(1)
            best = sorted(range(len(means)), key=lambda unit: -means[unit])[:3]
            for unit in range(len(means)):
                assert torch.equal(after[unit], before[unit] if unit in best else torch.zeros_like(before[unit]))
