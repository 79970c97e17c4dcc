"""Which single head a task needs most, as a choice that a policy learns on some tasks and makes on another.

The first version of arXiv 2605.26343: an action cuts one of H heads, and its reward is the damage to the task less that
to control text. With the reward of every head known beforehand, the best head, chance and what any number of tries
finds are exact, and a policy is compared with these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical

from rl_interp.circuits.discovery.rl.policy import PruningPolicy
from rl_interp.circuits.discovery.rl.training import Batch, RLConfig, improve


@dataclass(frozen=True)
class HeadTask:
    """A task of a model.

    Attributes:
        features: float32 `[H, F]`, what a policy sees of each head.
        rewards: float64 `[H]`, of cutting each alone.
    """

    name: str
    features: Tensor
    rewards: Tensor

    @property
    def oracle(self) -> float:
        """The greatest reward of a head."""
        return float(self.rewards.max())

    def share(self, head: int) -> float:
        """A head's reward, as a share of the greatest."""
        return float(self.rewards[head]) / self.oracle

    def share_of_tries(self, tries: int) -> float:
        """The expected greatest reward of so many different heads that are tried at random, as such a share."""
        ordered, count = self.rewards.sort().values, len(self.rewards)
        # The i-th smallest is the greatest of the tries if the others are among the i below it.
        ways = torch.tensor([math.comb(i, tries - 1) for i in range(count)], dtype=torch.float64)
        return float((ordered * ways).sum() / ways.sum()) / self.oracle


@dataclass(frozen=True)
class Learned:
    """A policy, and how many heads it cut while it learned: different ones of all tasks together."""

    policy: PruningPolicy
    cut: int

    @torch.no_grad()
    def choice(self, task: HeadTask) -> int:
        """The head that it thinks the likeliest."""
        logits, _ = self.policy(task.features[None], torch.ones(1, len(task.rewards), dtype=torch.bool))
        return int(logits.argmax())


def learn(tasks: Sequence[HeadTask], config: RLConfig, seed: int = 0) -> Learned:
    """A policy trained by PPO on episodes of one action; rewards are shares of each task's greatest."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        policy = PruningPolicy(config.hidden, tasks[0].features.shape[1])
    tried: set[tuple[str, int]] = set()
    improve(policy, config, lambda: [_tried(policy, task, config.episodes, generator, tried) for task in tasks])
    return Learned(policy, len(tried))


@torch.no_grad()
def _tried(
    policy: PruningPolicy, task: HeadTask, episodes: int, generator: torch.Generator, tried: set[tuple[str, int]]
) -> Batch:
    rows = task.features.expand(episodes, -1, -1)
    allowed = torch.ones(rows.shape[:2], dtype=torch.bool)
    logits, values = policy(rows, allowed)
    actions = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    tried |= {(task.name, int(action)) for action in actions}
    returns = (task.rewards[actions] / task.oracle).float()
    advantages = returns - values
    advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-6)
    return Batch(rows, allowed, actions, Categorical(logits=logits).log_prob(actions), advantages, returns)
