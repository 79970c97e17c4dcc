"""One DQN update: Huber loss on an n-step, optionally double and rescaled, bootstrapped target."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
        task = agent.task if isinstance(agent, Transfer) else agent
        self.dueling = Dueling(task.q) if config.dueling else None
        learned = [parameter for parameter in agent.parameters() if parameter.requires_grad]
        if self.dueling:
            learned = self.dueling.of(learned)
        self.optimizer = torch.optim.Adam(learned, config.learning_rate, eps=config.adam_eps, fused=True)
        self.bf16 = config.computes_in_bf16(device)
        self.updates = 0
        self.errors = torch.zeros(0)
        """`[B]`: by how much the values of the last batch were wrong, on the device."""

    def update(self, batch: Batch, progress: float = 0.0) -> Tensor:
        """Take one optimiser step and return the loss, a detached scalar on the device.

        Args:
            progress: share of the training done, in [0, 1].
        """
        obs, actions, returns, discounts, next_obs = (
            torch.from_numpy(array).to(self.device, non_blocking=True)
            for array in (batch.obs, batch.actions, batch.returns, batch.discounts, batch.next_obs)
        )
        # Products in bf16; values and their difference in float32, where small errors still count. In contexts of their
        # own: until PyTorch 2.9 one keeps the weights that it has cast, and those of the target have no gradient.
        with self.autocast():
            target = bootstrap(
                self.agent, self.target, returns, discounts, next_obs, self.config.double, self.config.rescale
            )
        with self.autocast():
            q = self.agent.step(obs).preferences.float().gather(1, actions[:, None])[:, 0]
        # Huber: quadratic below an error of 1, linear above, as Mnih et al. clip the error.
        losses = F.smooth_l1_loss(q, target, reduction="none")
        if batch.weights is not None:
            losses = losses * torch.from_numpy(batch.weights).to(self.device)
        loss = losses.mean()
        self.errors = (q - target).detach()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.step_size(progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with self.dueling.instead() if self.dueling else nullcontext():
            nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.config.max_grad_norm)
            self.optimizer.step()
        self.updates += 1
        # In between the target stands still, so that the values learned from do not move with every update.
        if self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.agent.state_dict())
        return loss.detach()

    def autocast(self) -> torch.autocast:
        """The precision of products."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def begin(self) -> None:
        """Go on from weights that the agent was given."""
        self.target.load_state_dict(self.agent.state_dict())
        if self.dueling:
            self.dueling.read()

    def state(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "dueling": None if self.dueling is None else self.dueling.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.dueling:
            self.dueling.restore(state["dueling"])


class Dueling:
    """A value of the state and advantages of the actions, Q = V + A − mean A (Wang et al. 2016, arXiv 1511.06581, eq.
    9), as what is learned of one linear layer.

    So every action's reward teaches the values of all. In the paper the two have hidden layers of their own; with a
    shared one their sum is linear too, so that the network is the same with and without, and only the optimiser's steps
    differ.
    """

    def __init__(self, layer: nn.Linear):
        self.whole = [layer.weight, layer.bias]
        self.values = [nn.Parameter(each[:1].detach().clone()) for each in self.whole]
        self.advantages = [nn.Parameter(each.detach().clone()) for each in self.whole]
        self.read()

    def of(self, learned: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """The parameters to be optimised, with the layer's replaced by their parts."""
        whole = {id(each) for each in self.whole}
        return [*(each for each in learned if id(each) not in whole), *self.values, *self.advantages]

    @torch.no_grad()
    def read(self) -> None:
        """Take the parts from the layer."""
        for each, value, advantage in zip(self.whole, self.values, self.advantages, strict=True):
            value.copy_(each.mean(0, keepdim=True))
            advantage.copy_(each - value)

    def state(self) -> list[Tensor]:
        return [each.detach() for each in (*self.values, *self.advantages)]

    @torch.no_grad()
    def restore(self, state: Sequence[Tensor]) -> None:
        for each, saved in zip((*self.values, *self.advantages), state, strict=True):
            each.copy_(saved)

    @contextmanager
    @torch.no_grad()
    def instead(self) -> Iterator[None]:
        """Within it the layer's gradients are those of the parts; after it the layer is the sum of these."""
        for each, value, advantage in zip(self.whole, self.values, self.advantages, strict=True):
            assert each.grad is not None
            value.grad = each.grad.sum(0, keepdim=True)
            advantage.grad = each.grad - each.grad.mean(0, keepdim=True)
            each.grad = None
        yield
        for each, value, advantage in zip(self.whole, self.values, self.advantages, strict=True):
            each.copy_(value + advantage - advantage.mean(0, keepdim=True))


@torch.no_grad()
def bootstrap(
    online: Agent,
    target: Agent,
    returns: Tensor,
    discounts: Tensor,
    next_obs: Tensor,
    double: bool,
    rescaled: bool = False,
) -> Tensor:
    """`[B]`: R + discount · Q_target(s', a'), with a' the target's greedy action (Mnih et al. 2015) or, if
    `double`, the online network's (van Hasselt et al. 2016, eq. 4). If `rescaled`, networks have h(Q), and so has the
    target: h(R + discount · h⁻¹(Q_target(s', a')))."""
    q = target.step(next_obs).preferences.float()
    chooser = online.step(next_obs).preferences if double else q
    q = q.gather(1, chooser.argmax(1, keepdim=True))[:, 0]
    return rescale(returns + discounts * unscale(q)) if rescaled else returns + discounts * q


_SLOPE = 1e-2
"""ε of Pohlen et al. (2018): what h rises by, however large the return."""


def rescale(returns: Tensor) -> Tensor:
    """h(x) = sign(x)(√(|x| + 1) − 1) + εx (Pohlen et al. 2018, arXiv 1805.11593, proposition A.2)."""
    size = returns.abs()
    return returns.sign() * (size / ((size + 1).sqrt() + 1)) + _SLOPE * returns  # √(x + 1) − 1 without cancellation


def unscale(values: Tensor) -> Tensor:
    """h⁻¹, in float64 within, for two near numbers are subtracted."""
    size = values.abs().double()
    root = (1 + 4 * _SLOPE * (size + 1 + _SLOPE)).sqrt() - 1
    return values.sign() * ((root / (2 * _SLOPE)).square() - 1).to(values.dtype)
