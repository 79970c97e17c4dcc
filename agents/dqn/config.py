"""The DQN's configuration."""

from dataclasses import dataclass, field
from typing import Literal

from rl_interp.core.envs import AtariConfig, env_config
from rl_interp.core.errors import UserError, require_numbers


@dataclass(frozen=True)
class DQNConfig:
    """Everything a DQN run depends on besides its seed."""

    env: AtariConfig = field(default_factory=AtariConfig)
    """The environment and its conventions."""
    agent_steps: int = 2_500_000
    """Decisions to train for, over all environments; 2.5M are 10M emulator frames."""
    num_envs: int = 16
    """Environments stepped together."""
    env_threads: int = 2
    """Threads that step them, while the main one learns."""
    life_loss_terminal: bool = True
    """Whether a lost life ends the return that is learned (the episode always goes on)."""
    clip_reward: bool = True
    """Whether rewards are clipped to [-1, 1] for learning (reported returns never are)."""
    batch_size: int = 32
    """Transitions per update."""
    train_every: int = 8
    """Decisions per update (4 in Mnih et al.)."""
    learning_starts: int = 20_000
    """Decisions before the first update."""
    replay_capacity: int = 500_000
    """Frames kept, each 7 kB on disk."""
    n_step: int = 3
    """Rewards summed before the value is bootstrapped (Sutton 1988; 1 in Mnih et al.)."""
    double: bool = False
    """Whether the online network chooses the bootstrap's action (van Hasselt et al. 2016)."""
    gamma: float = 0.99
    """Discount per decision."""
    learning_rate: float = 1.5e-4
    """Adam's step size."""
    adam_eps: float = 1.5e-4
    """Adam's epsilon (Hessel et al. 2018)."""
    max_grad_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    target_every: int = 1_000
    """Updates between copies of the online network into the target."""
    epsilon_final: float = 0.01
    """Probability of a random action after the schedule; it starts at 1."""
    epsilon_steps: int = 250_000
    """Decisions over which epsilon falls linearly."""
    eval_every: int = 250_000
    """Decisions between evaluations; 0 for none but the last."""
    eval_episodes: int = 10
    """Full episodes per evaluation."""
    eval_epsilon: float = 0.001
    """Probability of a random action in evaluation."""
    checkpoint_every: int = 100_000
    """Decisions between checkpoints."""
    log_every: int = 10_000
    """Decisions between lines of metrics."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 autocast for updates; `auto` uses it where the processor multiplies in it."""

    def __post_init__(self) -> None:
        require_numbers(
            self,
            at_least_1=(
                "agent_steps", "num_envs", "batch_size", "train_every", "replay_capacity", "n_step", "target_every",
                "epsilon_steps", "eval_episodes", "log_every",
            ),
            at_least_0=("env_threads", "learning_starts", "adam_eps", "eval_every", "checkpoint_every"),
            positive=("learning_rate", "max_grad_norm"),
            share=("gamma", "epsilon_final", "eval_epsilon"),
        )  # fmt: skip
        if self.learning_starts > self.replay_capacity:
            raise UserError(
                f"learning_starts={self.learning_starts} given with replay_capacity={self.replay_capacity}; learning "
                "would never start: raise replay_capacity."
            )
        if self.learning_starts <= self.num_envs * (self.n_step + self.env.frame_stack):
            raise UserError(
                f"learning_starts={self.learning_starts} given; {self.num_envs} environments and {self.n_step}-step "
                f"returns need more than {self.num_envs * (self.n_step + self.env.frame_stack)}."
            )


def default_config(env_id: str) -> DQNConfig:
    """The configuration for a game.

    Raises:
        UserError: the environment is no Atari game.
    """
    env = env_config(env_id)
    if not isinstance(env, AtariConfig):
        raise UserError(f"environment {env_id!r} given; this DQN plays Atari games, such as ALE/MsPacman-v5.")
    return DQNConfig(env=env)
