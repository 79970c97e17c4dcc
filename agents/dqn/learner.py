"""One DQN update: Huber loss on an n-step, optionally double, bootstrapped target."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.dqn.agent import DQN
from rl_interp.agents.dqn.config import DQNConfig
from rl_interp.agents.dqn.replay import Batch
from rl_interp.agents.phases import Transfer
from rl_interp.core.agent import Agent


class Learner:
    """The online and target networks with their optimiser."""

    def __init__(self, agent: DQN | Transfer[DQN], config: DQNConfig, device: torch.device):
        self.agent, self.config = agent.to(device), config
        self.device = device
        self.target = copy.deepcopy(agent).requires_grad_(False)
        learned = [parameter for parameter in agent.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(learned, config.learning_rate, eps=config.adam_eps, fused=True)
        self.bf16 = config.computes_in_bf16(device)
        self.updates = 0

    def update(self, batch: Batch) -> Tensor:
        """Take one optimiser step and return the loss, a detached scalar on the device."""
        obs, actions, returns, discounts, next_obs = (
            torch.from_numpy(array).to(self.device, non_blocking=True)
            for array in (batch.obs, batch.actions, batch.returns, batch.discounts, batch.next_obs)
        )
        # Products in bf16; values and their difference in float32, where small errors still count. In contexts of their
        # own: until PyTorch 2.9 one keeps the weights that it has cast, and those of the target have no gradient.
        with self._autocast():
            target = bootstrap(self.agent, self.target, returns, discounts, next_obs, self.config.double)
        with self._autocast():
            q = self.agent.step(obs).preferences.float().gather(1, actions[:, None])[:, 0]
        # Huber: quadratic below an error of 1, linear above, as Mnih et al. clip the error.
        loss = F.smooth_l1_loss(q, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        # In between the target stands still, so that the values learned from do not move with every update.
        if self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.agent.state_dict())
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def state(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def bootstrap(
    online: Agent, target: Agent, returns: Tensor, discounts: Tensor, next_obs: Tensor, double: bool
) -> Tensor:
    """`[B]`: R + discount · Q_target(s', a'), with a' the target's greedy action (Mnih et al. 2015) or, if
    `double`, the online network's (van Hasselt et al. 2016, eq. 4)."""
    q = target.step(next_obs).preferences.float()
    chooser = online.step(next_obs).preferences if double else q
    return returns + discounts * q.gather(1, chooser.argmax(1, keepdim=True))[:, 0]
