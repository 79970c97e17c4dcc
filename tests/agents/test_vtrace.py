"""V-trace against its definition written out in float64, and its closed forms."""

import numpy as np
import pytest
import torch

from rl_interp.agents.impala.learner import vtrace

T, B = 7, 3


@pytest.fixture
def segment():
    rng = np.random.default_rng(0)
    return {
        "behavior_log_probs": torch.from_numpy(np.log(rng.uniform(0.1, 0.9, (T, B)))),
        "target_log_probs": torch.from_numpy(np.log(rng.uniform(0.1, 0.9, (T, B)))),
        "rewards": torch.from_numpy(rng.normal(size=(T, B))),
        "discounts": torch.from_numpy(0.97 * (rng.random((T, B)) > 0.2)),
        "values": torch.from_numpy(rng.normal(size=(T, B))),
        "bootstrap": torch.from_numpy(rng.normal(size=B)),
    }


def definition(segment, rho_bar, c_bar, pg_rho_bar, lambda_=1.0):
    """Eq. 1 as the double sum that it is."""
    s = {name: value.numpy() for name, value in segment.items()}
    ratio = np.exp(s["target_log_probs"] - s["behavior_log_probs"])
    v = np.concatenate([s["values"], s["bootstrap"][None]])
    vs = np.copy(v)
    for b in range(B):
        for start in range(T):
            for t in range(start, T):
                product = np.prod([lambda_ * s["discounts"][i, b] * min(c_bar, ratio[i, b]) for i in range(start, t)])
                delta = s["rewards"][t, b] + s["discounts"][t, b] * v[t + 1, b] - v[t, b]
                vs[start, b] += product * min(rho_bar, ratio[t, b]) * delta
    advantages = np.minimum(pg_rho_bar, ratio) * (s["rewards"] + s["discounts"] * vs[1:] - s["values"])
    return vs[:-1], advantages


@pytest.mark.parametrize("bars", [(1.0, 1.0, 1.0), (2.0, 0.7, 1.5), (1e9, 1e9, 1e9), (1.0, 1.0, 1.0, 0.5)])
def test_targets_and_advantages_are_the_papers(segment, bars):
    got = vtrace(**segment, **dict(zip(("rho_bar", "c_bar", "pg_rho_bar", "lambda_"), bars, strict=False)))
    vs, advantages = definition(segment, *bars)
    np.testing.assert_allclose(got.vs, vs, rtol=1e-12)
    np.testing.assert_allclose(got.advantages, advantages, rtol=1e-12)


def test_on_policy_the_target_is_the_n_step_return(segment):
    segment["behavior_log_probs"] = segment["target_log_probs"]
    got = vtrace(**segment)
    following = segment["bootstrap"]
    for s in reversed(range(T)):
        following = segment["rewards"][s] + segment["discounts"][s] * following
        torch.testing.assert_close(got.vs[s], following)


@pytest.mark.parametrize("lambda_", [0.0, 0.65, 1.0])
def test_on_policy_the_errors_are_generalised_advantages(segment, lambda_):
    """Schulman et al. 2016, eq. 16: the sum of later temporal differences, discounted by γλ."""
    segment["behavior_log_probs"] = segment["target_log_probs"]
    got = vtrace(**segment, lambda_=lambda_)
    following = torch.cat([segment["values"][1:], segment["bootstrap"][None]])
    deltas = segment["rewards"] + segment["discounts"] * following - segment["values"]
    for s in range(T):
        expected = sum((lambda_ * segment["discounts"][s:t]).prod(0) * deltas[t] for t in range(s, T))
        torch.testing.assert_close(got.errors[s], expected)


def test_the_errors_do_not_hold_the_actions_own_ratio(segment):
    rarer = segment | {"behavior_log_probs": segment["behavior_log_probs"].clone()}
    rarer["behavior_log_probs"][3] += 1
    ours, theirs = vtrace(**segment).errors, vtrace(**rarer).errors
    torch.testing.assert_close(ours[3:], theirs[3:])
    assert not torch.allclose(ours[2], theirs[2])


def test_nothing_passes_a_step_that_only_reset(segment):
    """A segment with an autoreset step equals the two segments on its sides."""
    cut = 3
    valid = torch.ones(T, B, dtype=torch.bool)
    valid[cut] = False
    whole = vtrace(**segment, valid=valid)
    sides = {"before": slice(0, cut), "after": slice(cut + 1, T)}
    parts = {
        side: vtrace(
            **{name: value[where] for name, value in segment.items() if name != "bootstrap"},
            bootstrap=segment["values"][cut] if side == "before" else segment["bootstrap"],
        )
        for side, where in sides.items()
    }
    for side, where in sides.items():
        torch.testing.assert_close(whole.vs[where], parts[side].vs)
        torch.testing.assert_close(whole.advantages[where], parts[side].advantages)
        torch.testing.assert_close(whole.errors[where], parts[side].errors)
    torch.testing.assert_close(whole.vs[cut], segment["values"][cut])
    assert not whole.advantages[cut].any()
    assert not whole.errors[cut].any()


def test_no_gradient_reaches_the_networks_through_the_targets(segment):
    segment["values"].requires_grad_()
    segment["target_log_probs"].requires_grad_()
    got = vtrace(**segment)
    assert not any(tensor.requires_grad for tensor in (got.vs, got.advantages, got.errors, got.rhos))
