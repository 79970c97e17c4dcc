"""One IMPALA update: V-trace actor-critic on an unroll (Espeholt et al. 2018, arXiv 1802.01561, §4).

Shape letters: T time, B batch.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.agents.impala.actor import Unroll
from rl_interp.agents.impala.agent import IMPALA
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.agents.impala.self_ablation import ABLATED_COST, both_streams
from rl_interp.core.agent import Agent, PolicyOutput, State

_HEADS = re.compile(r"(^|\.)(policy|baseline)\.\w+$")
"""Weights of the last layers."""
_NEW = 0.01
"""Weight of an update's numbers in their moments, which are so those of about the last hundred."""
_SMALLEST = 1e-4
"""Variance that numbers are divided by, at least: where nothing has been rewarded yet they are the value's noise alone,
which is not to be made as large as a reward, of the order of 1."""


class Learner:
    """The agent with its optimiser."""

    def __init__(self, agent: Agent, config: IMPALAConfig, device: torch.device):
        self.agent, self.config = agent.to(device), config
        self.device = device
        learned = [parameter for parameter in agent.parameters() if parameter.requires_grad]
        betas = 0.9, config.adam_beta2
        self.optimizer = torch.optim.Adam(learned, config.learning_rate, betas, config.adam_eps, fused=True)
        self.bf16 = config.computes_in_bf16(device)
        self.moments = Moments(), Moments()
        self.updates = 0

    def update(self, unroll: Unroll, progress: float) -> "Losses":
        """Take one optimiser step.

        Args:
            unroll: with `bonus [T, N]` where there is one, kept apart from the extrinsic rewards until here.
            progress: share of the training done, in [0, 1].
        """
        batch = {name: torch.from_numpy(array).to(self.device) for name, array in unroll.items()}
        # What is learned from: the extrinsic reward, the bonus, or both.
        extrinsic = 0.0 if self.config.pretrain else self.config.reward_scale
        if bound := self.config.reward_clip:
            batch["rewards"] = batch["rewards"].clamp(-bound, bound)
        batch["rewards"] = extrinsic * batch["rewards"]
        if "bonus" in batch:
            batch["rewards"] = batch["rewards"] + batch["bonus"]
        # From the state that the actor had at the unroll's start, by the weights of now.
        state = tuple(batch[f"state{i}"] for i in range(len(self.agent.initial_state(1))))
        result = self._losses(batch, state)
        self.descend(result.total, progress)
        return result

    def descend(self, loss: Tensor, progress: float) -> None:
        """Take one step down the gradient of a loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.step_size(progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1

    def _penalties(self, out: PolicyOutput) -> Tensor | float:
        """What keeps logits and the last layers' weights small."""
        config, penalty = self.config, 0.0
        if config.logit_penalty:
            assert out.logits is not None
            penalty = penalty + config.logit_penalty * out.logits.square().sum()
        if config.weight_penalty:
            heads = [weight for name, weight in self.agent.named_parameters() if _HEADS.search(name)]
            penalty = penalty + config.weight_penalty * sum(weight.square().sum() for weight in heads)
        return penalty

    def _losses(self, batch: dict[str, Tensor], state: State) -> "Losses":
        given, bf16 = (batch["obs"], state, batch["first"]), torch.autocast(self.device.type, torch.bfloat16, self.bf16)
        if not isinstance(self.agent, IMPALA) or self.agent.self_ablation is None:
            with bf16:
                out = self.agent.unroll(*given)
            own = losses(self.config, out, batch, self.moments)
            return replace(own, total=own.total + self._penalties(out))
        with bf16:
            out, ablated, distance = both_streams(self.agent, self.agent.torso, self.agent.policy, *given)
        own, second = losses(self.config, out, batch, self.moments), losses(self.config, ablated, batch)
        total = own.total + self._penalties(out) + ABLATED_COST * second.total + self.config.distance_cost * distance
        return replace(own, total=total, ablated=second.total.detach(), distance=distance.detach())

    def state(self) -> dict[str, Any]:
        moments = [each.state() for each in self.moments]
        return {"updates": self.updates, "optimizer": self.optimizer.state_dict(), "moments": moments}

    def restore(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        for each, saved in zip(self.moments, state.get("moments", ()), strict=False):  # earlier versions have none
            each.restore(saved)


class Moments:
    """Mean and variance of numbers over about the last hundred updates.

    PPO takes those of a minibatch. Where rewards are rare, most minibatches hold none, and the value's noise would
    count in these as much as a reward does in others.
    """

    def __init__(self):
        self.weight = self._mean = self._square = 0.0

    def update(self, numbers: Tensor) -> None:
        if numbers.numel():
            numbers = numbers.double()
            self.weight += _NEW * (1 - self.weight)
            self._mean += _NEW * (numbers.mean().item() - self._mean)
            self._square += _NEW * (numbers.square().mean().item() - self._square)

    @property
    def mean(self) -> float:
        return self._mean / max(self.weight, _NEW)

    @property
    def variance(self) -> float:
        return max(self._square / max(self.weight, _NEW) - self.mean**2, _SMALLEST)

    def state(self) -> list[float]:
        return [self.weight, self._mean, self._square]

    def restore(self, state: list[float]) -> None:
        self.weight, self._mean, self._square = state


@dataclass(frozen=True)
class Losses:
    """Scalars: `total = policy + baseline_cost · value − entropy_cost · entropy`, and how far off policy it was.

    With self-ablation the total has `ABLATED_COST · ablated + distance_cost · distance` besides.
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    rho: Tensor
    """Mean importance ratio π/μ of the actions taken; 1 where the actor had the learner's weights."""
    ablated: Tensor | None = None
    """With self-ablation, the same total of the ablated stream, which follows the agent's own actions."""
    distance: Tensor | None = None
    """With self-ablation, the mean squared distance of the two streams' last hidden representations."""


def losses(
    config: IMPALAConfig, out: PolicyOutput, batch: dict[str, Tensor], moments: tuple[Moments, Moments] | None = None
) -> Losses:
    """Losses (§4.2), each a mean over the steps of an unroll.

    Args:
        out: the agent's on the T + 1 observations.
        batch: the unroll's arrays as tensors, with `rewards` as they are to be learned from.
        moments: of advantages and of values' targets, which the surrogate and the value's loss beside it are brought
            to the scale of; by default those of this batch alone.
    """
    assert out.logits is not None
    assert out.value is not None
    log_probs = out.logits[:-1].log_softmax(-1)
    taken = log_probs.gather(-1, batch["actions"][..., None])[..., 0]
    # A step that only reset its environment has neither an action nor a reward to learn from.
    valid = ~batch["first"][1:]
    # Exploration is not episodic: in pre-training a death costs nothing by itself.
    going_on = torch.ones_like(taken) if config.pretrain else (~batch["terminated"]).float()
    targets = vtrace(
        batch["log_probs"], taken.detach(), batch["rewards"], config.gamma * going_on,
        out.value[:-1].detach(), out.value[-1].detach(), valid, lambda_=config.vtrace_lambda,
    )  # fmt: skip
    count = valid.sum().clamp(min=1)
    value = 0.5 * (valid * (targets.vs - out.value[:-1]) ** 2).sum() / count
    if config.clip:
        of_advantages, of_targets = moments or (Moments(), Moments())
        of_advantages.update(targets.errors[valid])
        of_targets.update(targets.vs[valid])
        advantages = (targets.errors - of_advantages.mean) / of_advantages.variance**0.5
        policy = -(valid * _surrogate(taken - batch["log_probs"], advantages, config.clip)).sum() / count
        value = value / of_targets.variance
    else:
        policy = -(targets.advantages * taken).sum() / count  # advantages are 0 where not valid
    entropy = -(valid * (log_probs.exp() * log_probs).sum(-1)).sum() / count
    total = policy + config.baseline_cost * value - config.entropy_cost * entropy
    return Losses(total, policy.detach(), value.detach(), entropy.detach(), (valid * targets.rhos).sum() / count)


def _surrogate(log_ratios: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's clipped objective (Schulman et al. 2017, arXiv 1707.06347, eq. 7) of each step."""
    ratios = log_ratios.exp()
    return torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)


@dataclass(frozen=True)
class VTrace:
    """What `vtrace` gives, all `[T, B]` and without gradient."""

    vs: Tensor
    """Value targets v_s (eq. 1)."""
    advantages: Tensor
    """min(ρ̄_pg, ratio) · (r_s + γ v_{s+1} − V(x_s)), the weights of ∇ log π."""
    errors: Tensor
    """r_s + γ (λ v_{s+1} + (1 − λ) V(x_{s+1})) − V(x_s): on policy, generalised advantages (Schulman et al. 2016). The
    ratio of the action itself is not in them."""
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
    lambda_: float = 1.0,
) -> VTrace:
    """V-trace (§4.1): off-policy corrected value targets and policy-gradient advantages of T steps.

    Args:
        behavior_log_probs: log μ(a_s | x_s) of the actions taken, `[T, B]`.
        target_log_probs: log π(a_s | x_s) under the learner, `[T, B]`.
        rewards: r_s, `[T, B]`.
        discounts: γ where the episode goes on or was truncated after the step, 0 where it terminated, `[T, B]`.
        values: V(x_s), `[T, B]`.
        bootstrap: V of the observation after the last step, `[B]`.
        valid: False where a step only reset its environment (NEXT_STEP autoreset), `[T, B]`. There the target is
            V itself, the advantage 0, and no trace passes: a truncated episode is bootstrapped from its last
            observation, and nothing of the next one reaches it.
        rho_bar: truncation ρ̄ of the ratios in the temporal differences: it sets which policy's value is learned.
        c_bar: truncation c̄ of the trace coefficients: it sets how fast.
        pg_rho_bar: truncation of the ratios in the advantages.
        lambda_: factor of the trace coefficients (Remark 2).
    """
    rhos = (target_log_probs - behavior_log_probs).exp()
    real = torch.ones_like(rewards) if valid is None else valid.to(rewards.dtype)
    # δ_s V = ρ_s (r_s + γ V(x_{s+1}) − V(x_s)), and the coefficients γ c_s by which corrections pass backwards.
    next_values = torch.cat([values[1:], bootstrap[None]])
    deltas = real * rhos.clamp(max=rho_bar) * (rewards + discounts * next_values - values)
    traces = lambda_ * real * discounts * rhos.clamp(max=c_bar)
    # Remark 1: v_s − V(x_s) = δ_s V + γ c_s (v_{s+1} − V(x_{s+1})), from the end backwards.
    corrections = torch.zeros_like(values)
    following = torch.zeros_like(bootstrap)
    for s in reversed(range(len(values))):
        following = deltas[s] + traces[s] * following
        corrections[s] = following
    vs = values + corrections
    # The policy's gradient is weighted by r_s + γ v_{s+1} − V(x_s).
    next_vs = torch.cat([vs[1:], bootstrap[None]])
    advantages = real * rhos.clamp(max=pg_rho_bar) * (rewards + discounts * next_vs - values)
    mixed = lambda_ * next_vs + (1 - lambda_) * next_values
    errors = real * (rewards + discounts * mixed - values)
    return VTrace(vs, advantages, errors, rhos)
