"""The metric of a policy says how far an error at a layer takes decisions, measured by making the error."""

from itertools import product

import pytest
import torch
from circuit_agents import make

from rl_interp.analysis.sae import policy
from rl_interp.analysis.sae.policy import policy_metric
from rl_interp.circuits.distance import Distance
from rl_interp.circuits.states import States
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.wrap import wrap


@pytest.mark.parametrize(("kind", "hook"), [("dqn", "fc.post"), ("dqn", "conv3.post"), ("lstm", "lstm.h")])
def test_small_errors_change_the_policy_as_the_metric_says(kind, hook):
    agent, obs = make(kind)
    point, metric = (
        agent.hook_points[hook],
        policy_metric(agent, States(obs, agent.initial_state(len(obs))), hook).float(),
    )
    with torch.no_grad():
        out, cache = run_with_cache(agent, obs, names=[hook])
    plain, value = out.preferences, point.newest(cache[hook]).movedim(point.feature_axis, -1)
    distance = Distance.of(agent, plain)
    for direction in (torch.linalg.eigh(metric)[1][:, -1], torch.randn(len(metric))):
        error, changes = 0.02 * value.std() * direction / direction.norm(), 0.0
        for at in product(*map(range, value.shape[1:-1])):  # positions, one after the other

            def push(value, site, at=at, error=error):
                changed = value.clone().movedim(point.feature_axis, -1)
                changed[:, *at] += error
                return changed.movedim(-1, point.feature_axis)

            with torch.no_grad():
                changed = run_with_hooks(agent, obs, hooks={hook: push}).preferences
            changes += distance(plain, changed).mean().item()
        assert changes == pytest.approx((error @ metric @ error / 2).item(), rel=0.1)


def test_continuous_actions_are_refused():
    agent = wrap(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)), {"0": ("0", "B D")}, output="mean")
    with pytest.raises(UserError, match=r"continuous actions, and policy_weight is of .* discrete"):
        policy_metric(agent, States(torch.randn(3, 4)), "0")


def test_of_many_actions_some_are_drawn(monkeypatch):
    agent, obs = make("dqn")
    states = States(obs.repeat(60, 1, 1, 1))
    exact = policy_metric(agent, states, "fc.post")
    monkeypatch.setattr(policy, "_MOST", 3)  # of four
    drawn = policy_metric(agent, states, "fc.post")
    assert not torch.equal(drawn, exact)
    torch.testing.assert_close(drawn.trace(), exact.trace(), rtol=0.25, atol=0)
