"""Training a pruning policy on one behaviour or several, by proximal policy optimisation (Schulman et al. 2017, arXiv
1707.06347), with generalised advantages (arXiv 1506.02438) and no discount."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical

from rl_interp.circuits.discovery.rl.env import Pruning
from rl_interp.circuits.discovery.rl.policy import PruningPolicy
from rl_interp.circuits.discovery.rl.task import BudgetSpent, Found, Ledger
from rl_interp.core.errors import require_numbers


@dataclass(frozen=True)
class RLConfig:
    """How a pruning policy is trained."""

    updates: int = 60
    """Times that episodes are played and learned from."""
    episodes: int = 16
    """Episodes of each task in an update."""
    epochs: int = 4
    """Times that an update goes over its episodes."""
    learning_rate: float = 1e-2
    """Step size of Adam, which falls linearly to 0."""
    clip: float = 0.2
    """How far a probability may move in an update, as a share."""
    trace: float = 0.95
    """λ of the generalised advantages."""
    entropy: float = 0.02
    """Weight of the policy's entropy; falls linearly to 0."""
    keep_best: bool = False
    """Whether an episode is paid for its best moment, not for its end."""
    hidden: int = 32
    """Width of the policy's layers."""

    def __post_init__(self) -> None:
        require_numbers(
            self, at_least_1=("updates", "episodes", "epochs", "hidden"), positive=("learning_rate", "clip"),
            share=("trace",), at_least_0=("entropy",),
        )  # fmt: skip


def train(
    ledgers: Sequence[Ledger],
    config: RLConfig = RLConfig(),
    seed: int = 0,
    report: Callable[[float], None] = lambda done: None,
) -> PruningPolicy:
    """One policy for all the tasks; training ends sooner where a ledger's budget is spent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        policy = PruningPolicy(config.hidden)
    try:
        improve(policy, config, lambda: [_play(policy, ledger, config, generator) for ledger in ledgers], report)
    except BudgetSpent:
        report(1.0)
    return policy


@torch.no_grad()
def follow(policy: PruningPolicy, ledger: Ledger, episodes: int = 1, generator: torch.Generator | None = None) -> Found:
    """The mask at the end of the best of some episodes: at each step the likeliest action, or with a `generator` one
    drawn by its probability."""
    pruning = Pruning(ledger, episodes)
    while not pruning.ended.all():
        logits, _ = policy(pruning.observe(), pruning.allowed())
        pruning.step(logits.argmax(-1) if generator is None else _draw(logits, generator))
    i = int(pruning.potential.argmax())
    return Found(pruning.kept[i], float(pruning.faithfulness[i]), float(pruning.potential[i]))


@dataclass(frozen=True)
class Batch:
    """All steps of some episodes that were not over, S in number."""

    rows: Tensor
    """`[S, A, F]`."""
    allowed: Tensor
    """bool `[S, A]`."""
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor


@torch.no_grad()
def _play(policy: PruningPolicy, ledger: Ledger, config: RLConfig, generator: torch.Generator) -> Batch:
    pruning = Pruning(ledger, config.episodes, config.keep_best)
    steps: list[tuple[Tensor, ...]] = []
    while not pruning.ended.all():
        running = ~pruning.ended
        rows, allowed = pruning.observe(), pruning.allowed()
        logits, values = policy(rows, allowed)
        actions = _draw(logits, generator)
        log_probs = Categorical(logits=logits).log_prob(actions)
        steps.append((rows, allowed, actions, log_probs, pruning.step(actions).float(), values, running))
    rows, allowed, actions, log_probs, rewards, values, running = map(torch.stack, zip(*steps, strict=True))
    advantages = _advantages(rewards, values * running, config.trace)
    returns = (advantages + values)[running]
    advantages = advantages[running]
    # Behaviours differ in how much potential there is to gain; each counts for as much.
    advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-6)
    return Batch(rows[running], allowed[running], actions[running], log_probs[running], advantages, returns)


def _advantages(rewards: Tensor, values: Tensor, trace: float) -> Tensor:
    """`[T, B]`; values are 0 once an episode is over."""
    advantages, last = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    following = torch.cat([values[1:], torch.zeros_like(values[:1])])
    for t in reversed(range(len(rewards))):
        last = rewards[t] + following[t] - values[t] + trace * last
        advantages[t] = last
    return advantages


def improve(
    policy: PruningPolicy,
    config: RLConfig,
    play: Callable[[], list[Batch]],
    report: Callable[[float], None] = lambda done: None,
) -> None:
    """PPO (Schulman et al. 2017, arXiv 1707.06347): `play` gives what each update learns from, a batch for each
    task."""
    optimizer = torch.optim.Adam(policy.parameters(), config.learning_rate, eps=1e-5)
    for update in range(config.updates):
        left = 1 - update / config.updates
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * left
        batches = play()
        for _ in range(config.epochs):
            optimizer.zero_grad()
            for batch in batches:
                ppo_loss(policy, batch, config, left).backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
            optimizer.step()
        report(1 - left + 1 / config.updates)


def ppo_loss(policy: PruningPolicy, batch: Batch, config: RLConfig, left: float) -> Tensor:
    """Of one batch; `left` is the share of the training that is left, by which the entropy's weight falls."""
    logits, values = policy(batch.rows, batch.allowed)
    log_all = logits.log_softmax(-1)
    ratio = (log_all.gather(1, batch.actions[:, None])[:, 0] - batch.log_probs).exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    gain = torch.minimum(ratio * batch.advantages, clipped * batch.advantages).mean()
    entropy = -(log_all.exp() * log_all.masked_fill(~batch.allowed, 0)).sum(-1).mean()
    return 0.5 * (values - batch.returns).square().mean() - gain - left * config.entropy * entropy


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
