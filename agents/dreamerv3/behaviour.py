"""Actor and critic, which learn only from imagined trajectories (arXiv 2301.04104, "Actor critic learning").

Imagined trajectories need no gradient through the dynamics and have none. CBET's bonus has a head of its own beside
the reward's; the reward of an imagined step is the sum of both means, or in pre-training the bonus alone. In transfer
the frozen explorer follows the same actions, real and imagined, in its own world model.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rl_interp.agents.dreamerv3 import distributions
from rl_interp.agents.dreamerv3.config import SIZES, DreamerV3Config
from rl_interp.agents.dreamerv3.networks import MLP, Points
from rl_interp.agents.dreamerv3.rssm import Latent
from rl_interp.agents.dreamerv3.world_model import WorldModel
from rl_interp.core.hooks import phase


@dataclass(frozen=True)
class Imagined:
    """Trajectories of H imagined steps: H + 1 latents `[H + 1, B, ...]`, the first one observed."""

    latent: Latent
    features: Tensor
    """The latents, `[H + 1, B, D + S·K]`."""
    actions: Tensor
    """One-hot `[H + 1, B, A]`; the last one leads nowhere."""
    policy: Tensor
    """Log-probabilities `[H + 1, B, A]` of the policy, whichever actions were taken."""
    cont: Tensor
    """`[H + 1, B]`: 1 where the episode is predicted to go on, 0 where it ended."""
    rewards: Tensor
    """`[H, B]`: predicted for arriving at the latents after the first."""
    guide: Tensor | None = None
    """Logits `[H + 1, B, A]` of a frozen policy, added to the actor's."""


class Guide:
    """A frozen policy, which follows the imagined actions in a world model of its own from `latent [B, ...]`."""

    def __init__(self, model: WorldModel, behaviour: "Behaviour", latent: Latent):
        self.model, self.behaviour, self.latent = model, behaviour, latent

    def logits(self) -> Tensor:
        return self.behaviour.policy(self.latent.features)

    def act(self, action: Tensor) -> None:
        self.latent = self.model.rssm.imagine(self.latent, action)


class Behaviour(nn.Module):
    """The policy, the critic, its slowly following copy, and the running range of returns."""

    low: Tensor
    high: Tensor

    def __init__(self, config: DreamerV3Config):
        super().__init__()
        size, self.config = SIZES[config.size], config
        width = size.deter + size.stoch * size.classes
        self.actor = MLP(width, size.layers, size.units, len(config.env.action_names))
        self.critic = MLP(width, size.layers, size.units, distributions.BINS, scale=0.0)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def points(self, path: str) -> Points:
        return [*self.actor.points("actor", f"{path}.actor"), *self.critic.points("critic", f"{path}.critic")]

    def policy(self, features: Tensor, guide: Tensor | None = None) -> Tensor:
        """Log-probabilities `[..., A]`; `guide` is added to the logits."""
        logits = self.actor(features)
        return distributions.unimix(logits if guide is None else logits + guide, self.config.unimix)

    def value(self, features: Tensor) -> Tensor:
        """`[...]`."""
        return distributions.two_hot_mean(self.critic(features))

    @torch.no_grad()
    def imagine(
        self,
        model: WorldModel,
        start: Latent,
        horizon: int,
        terminated: Tensor | None = None,
        actions: Tensor | None = None,
        guide: Guide | None = None,
    ) -> Imagined:
        """Go on from latents `[B, ...]` without observations, for `horizon` steps.

        Args:
            terminated: `[B]`, where an episode ended at the start.
            actions: one-hot `[H, B, A]` to take; by default samples of the policy, whose last action is always one.
        """
        latents, taken, policies, added = [start], [], [], []
        with phase("imagine"):
            # One action more than steps: the last latent's policy is part of the trajectory.
            for t in range(horizon + 1):
                added.append(guide.logits() if guide else None)
                policies.append(policy := self.policy(latents[-1].features, added[-1]))
                taken.append(distributions.sample(policy) if actions is None or t == horizon else actions[t])
                if t < horizon:
                    latents.append(model.rssm.imagine(latents[-1], taken[-1]))
                    if guide:
                        guide.act(taken[-1])
            latent = Latent(*(torch.stack(parts) for parts in zip(*latents, strict=True)))
            features = latent.features
            rewards, going_on = self._predictions(model, features[1:])
        # Whether the first latent's episode goes on is known; of the others it is predicted.
        ended = torch.zeros_like(going_on[:1]) if terminated is None else terminated[None].float()
        return Imagined(
            latent,
            features,
            torch.stack(taken),
            torch.stack(policies),
            torch.cat([1 - ended, going_on]),
            rewards,
            torch.stack(added) if guide else None,
        )

    def _predictions(self, model: WorldModel, features: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted rewards that the policy is to maximise, and whether the episode goes on, `[H, B]` each."""
        going_on = (model.cont(features)[..., 0] > 0).float()
        if model.bonus is None:
            return distributions.two_hot_mean(model.reward(features)), going_on
        bonus = distributions.two_hot_mean(model.bonus(features))
        if self.config.pretrain:
            return bonus, torch.ones_like(going_on)
        return distributions.two_hot_mean(model.reward(features)) + bonus, going_on

    def losses(self, dream: Imagined) -> dict[str, Tensor]:
        """`actor` and `critic` as scalars to minimise, and figures about them. Updates the range of returns."""
        config, features = self.config, dream.features
        # Each step counts by its discount and by the probability of having got there.
        weight = (config.discount * dream.cont).cumprod(0)[:-1] / config.discount
        # Targets: λ-returns of the imagined rewards, bootstrapped from the critic.
        critic = self.critic(features)
        value = distributions.two_hot_mean(critic.detach())
        returns = lambda_returns(dream.rewards, config.discount * dream.cont[1:], value, config.return_lambda)
        advantage = (returns - value[:-1]) / self._range(returns)
        # REINFORCE with the value as baseline, and a bonus for entropy.
        policy = self.policy(features[:-1], None if dream.guide is None else dream.guide[:-1])
        log_prob, entropy = (policy * dream.actions[:-1]).sum(-1), distributions.entropy(policy)
        actor_loss = -(weight * (log_prob * advantage + config.actor_entropy * entropy)).mean()
        # The critic learns the returns, and stays near to its slow copy.
        with torch.no_grad():
            slow = distributions.two_hot_mean(self.slow_critic(features[:-1]))
        errors = distributions.two_hot_loss(critic[:-1], returns, slow)
        return {
            "actor": actor_loss,
            "critic": (weight * errors).mean(),
            "entropy": entropy.mean(),
            "imagined_reward": dream.rewards.mean(),
            "imagined_return": returns.mean(),
            "value": value.mean(),
        }

    def _range(self, returns: Tensor) -> Tensor:
        """What advantages are divided by: the running width from the 5th to the 95th percentile, but at least 1."""
        for running, share in ((self.low, 0.05), (self.high, 0.95)):
            running.lerp_(torch.quantile(returns, share), 1 - self.config.return_decay)
        return (self.high - self.low).clamp(min=1.0)

    @torch.no_grad()
    def follow(self, fraction: float) -> None:
        """Move the slow critic a fraction of the way to the critic."""
        for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(fast, fraction)


def lambda_returns(rewards: Tensor, discounts: Tensor, values: Tensor, lambda_: float) -> Tensor:
    """R_t = r_t + γ_t ((1 − λ) v_{t+1} + λ R_{t+1}), R_H = v_H: `[H, B]` from values `[H + 1, B]`."""
    returns = [values[-1]]
    for t in reversed(range(len(rewards))):
        ahead = torch.lerp(values[t + 1], returns[-1], lambda_)
        returns.append(rewards[t] + discounts[t] * ahead)
    return torch.stack(returns[:0:-1])
