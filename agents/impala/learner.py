"""One IMPALA update: V-trace actor-critic on an unroll (Espeholt et al. 2018, §4.2)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.agents.impala.actor import Unroll
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.agents.impala.network import IMPALA
from rl_interp.agents.impala.transfer import Transfer
from rl_interp.agents.impala.vtrace import vtrace
from rl_interp.core.agent import PolicyOutput
from rl_interp.core.device import computes_in_bf16


@dataclass(frozen=True)
class Losses:
    """Scalars: `total = policy + baseline_cost · value − entropy_cost · entropy`, and how far off policy it was."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    rho: Tensor
    """Mean importance ratio π/μ of the actions taken; 1 where the actor had the learner's weights."""


def losses(config: IMPALAConfig, out: PolicyOutput, batch: dict[str, Tensor]) -> Losses:
    """Losses, each a mean over the decisions of an unroll.

    Args:
        out: of the agent on the T + 1 observations.
        batch: the unroll's arrays as tensors, with `rewards` as they are to be learned from.
    """
    assert out.logits is not None
    assert out.value is not None
    log_probs = out.logits[:-1].log_softmax(-1)
    taken = log_probs.gather(-1, batch["actions"][..., None])[..., 0]
    valid = ~batch["first"][1:]  # the others only reset their environment
    going_on = torch.ones_like(taken) if config.pretrain else (~batch["terminated"]).float()
    targets = vtrace(
        batch["log_probs"], taken.detach(), batch["rewards"], config.gamma * going_on,
        out.value[:-1].detach(), out.value[-1].detach(), valid,
    )  # fmt: skip
    count = valid.sum().clamp(min=1)
    policy = -(targets.advantages * taken).sum() / count  # 0 where not valid
    value = 0.5 * (valid * (targets.vs - out.value[:-1]) ** 2).sum() / count
    entropy = -(valid * (log_probs.exp() * log_probs).sum(-1)).sum() / count
    total = policy + config.baseline_cost * value - config.entropy_cost * entropy
    return Losses(total, policy.detach(), value.detach(), entropy.detach(), (valid * targets.rhos).sum() / count)


class Learner:
    """The agent with its optimiser."""

    def __init__(self, agent: IMPALA | Transfer, config: IMPALAConfig, device: torch.device):
        self.agent, self.config, self.device = agent.to(device), config, device
        learned = [parameter for parameter in agent.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(learned, config.learning_rate, eps=config.adam_eps, fused=True)
        self.bf16 = computes_in_bf16(config.precision, device)
        self.updates = 0

    def update(self, unroll: Unroll, progress: float) -> Losses:
        """Take one optimiser step.

        Args:
            unroll: with `bonus [T, N]` where there is one, kept apart from the extrinsic rewards until here.
            progress: share of the training done, in [0, 1].
        """
        batch = {name: torch.from_numpy(array).to(self.device) for name, array in unroll.items()}
        extrinsic = 0.0 if self.config.pretrain else self.config.reward_scale
        batch["rewards"] = extrinsic * batch["rewards"]
        if "bonus" in batch:
            batch["rewards"] = batch["rewards"] + batch["bonus"]
        state = tuple(batch[f"state{i}"] for i in range(len(self.agent.initial_state(1))))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.agent.unroll(batch["obs"], state, batch["first"])
        result = losses(self.config, out, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * max(0.0, 1 - progress)
        self.optimizer.zero_grad(set_to_none=True)
        result.total.backward()
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        return result

    def state(self) -> dict[str, Any]:
        return {"updates": self.updates, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
