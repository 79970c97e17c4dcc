"""V-trace: off-policy corrected value targets and policy-gradient advantages.

Espeholt et al. 2018, "IMPALA", arXiv 1802.01561, §4.1. Shape letters: T time, B batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VTrace:
    """What `vtrace` gives, all `[T, B]` and without gradient."""

    vs: Tensor
    """Value targets v_s (eq. 1)."""
    advantages: Tensor
    """min(ρ̄_pg, ratio) · (r_s + γ v_{s+1} − V(x_s)), the weights of ∇ log π."""
    rhos: Tensor
    """Importance ratios π/μ, not truncated: how far behind the actors were."""


@torch.no_grad()
def vtrace(
    behavior_log_probs: Tensor,
    target_log_probs: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    valid: Tensor | None = None,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    pg_rho_bar: float = 1.0,
) -> VTrace:
    """V-trace of a segment of T decisions.

    Args:
        behavior_log_probs: log μ(a_s | x_s) of the actions taken, `[T, B]`.
        target_log_probs: log π(a_s | x_s) under the learner, `[T, B]`.
        rewards: r_s, `[T, B]`.
        discounts: γ where the episode goes on or was truncated after the decision, 0 where it terminated, `[T, B]`.
        values: V(x_s), `[T, B]`.
        bootstrap: V of the observation after the last decision, `[B]`.
        valid: False where a step only reset its environment (NEXT_STEP autoreset), `[T, B]`. There the target is
            V itself, the advantage 0, and no trace passes: a truncated episode is bootstrapped from its last
            observation, and nothing of the next one reaches it.
        rho_bar: truncation ρ̄ of the ratios in the temporal differences: it sets which policy's value is learned.
        c_bar: truncation c̄ of the trace coefficients: it sets how fast.
        pg_rho_bar: truncation of the ratios in the advantages.
    """
    rhos = (target_log_probs - behavior_log_probs).exp()
    real = torch.ones_like(rewards) if valid is None else valid.to(rewards.dtype)
    next_values = torch.cat([values[1:], bootstrap[None]])
    deltas = real * rhos.clamp(max=rho_bar) * (rewards + discounts * next_values - values)
    traces = real * discounts * rhos.clamp(max=c_bar)
    corrections = torch.zeros_like(values)  # v_s − V(x_s)
    following = torch.zeros_like(bootstrap)
    for s in reversed(range(len(values))):
        following = deltas[s] + traces[s] * following
        corrections[s] = following
    vs = values + corrections
    next_vs = torch.cat([vs[1:], bootstrap[None]])
    advantages = real * rhos.clamp(max=pg_rho_bar) * (rewards + discounts * next_vs - values)
    return VTrace(vs, advantages, rhos)
