"""The DQN's configuration."""

from dataclasses import dataclass, field

from rl_interp.agents.phases import PhasedConfig
from rl_interp.core.envs import AtariConfig, EnvConfig, env_config
from rl_interp.core.errors import UserError, require_numbers


@dataclass(frozen=True)
class DQNConfig(PhasedConfig):
    """Everything a DQN run depends on besides its seed. The defaults are those of the first reference agent, for 10M
    emulator frames of an Atari game; `default_config` has what an environment is trained with today.

    With CBET's bonus, rewards are remembered with the bonus that they had then.
    """

    env: EnvConfig = field(default_factory=AtariConfig)
    agent_steps: int = 2_500_000
    num_envs: int = 16
    log_every: int = 10_000
    checkpoint_every: int = 100_000
    eval_every: int = 250_000
    eval_episodes: int = 10
    eval_epsilon: float = 0.001

    env_threads: int = 2
    """Threads or processes that step the environments, while the main one learns."""
    hidden: int = 512
    """Width of the hidden layer."""
    life_loss_terminal: bool = True
    """Treat a lost life as the end of an episode in learning (the game itself goes on)."""
    clip_reward: bool = True
    """Whether rewards are clipped to [-1, 1] for learning (reported returns never are)."""
    reward_scale: float = 1.0
    """What the environment's rewards are multiplied by for learning, before any clipping; a bonus is not."""
    rescale: bool = False
    """Whether the network learns h(Q), about the root of Q (Pohlen et al. 2018), so that rewards of very different
    sizes need no clipping."""
    batch_size: int = 32
    """Transitions per update."""
    train_every: int = 8
    """Steps per update (4 in Mnih et al.)."""
    learning_starts: int = 20_000
    """Steps before the first update."""
    replay_capacity: int = 500_000
    """Frames, or whole observations, kept; a frame of Atari takes 7 kB on disk."""
    n_step: int = 3
    """Rewards summed before the value is bootstrapped (Sutton 1988; 1 in Mnih et al.)."""
    double: bool = False
    """Whether the online network chooses the bootstrap's action (van Hasselt et al. 2016)."""
    priority: float = 0.0
    """Exponent of the errors by which transitions are drawn from the replay (Schaul et al. 2016: 0.5 to 0.7); 0 to draw
    them uniformly."""
    dueling: bool = False
    """Whether a value of the state and advantages of the actions are learned, whose sum the Q-values are (Wang et al.
    2016)."""
    gamma: float = 0.99
    """Discount per step."""
    learning_rate: float = 1.5e-4
    """Adam's step size."""
    final_learning_rate: float | None = None
    """What the step size falls to, linearly, at `agent_steps`; None to keep it."""
    adam_eps: float = 1.5e-4
    """Adam's epsilon (Hessel et al. 2018)."""
    max_grad_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    target_every: int = 1_000
    """Updates between copies of the online network into the target."""
    epsilon_final: float = 0.01
    """Probability of a random action after the schedule; it starts at 1."""
    epsilon_steps: int = 250_000
    """Steps over which epsilon falls linearly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(
            self,
            at_least_1=(
                "batch_size", "train_every", "replay_capacity", "n_step", "target_every", "epsilon_steps", "hidden",
            ),
            at_least_0=("env_threads", "learning_starts", "adam_eps"),
            positive=("learning_rate", "max_grad_norm", "reward_scale"),
            share=("gamma", "epsilon_final", "priority"),
        )  # fmt: skip
        if self.final_learning_rate is not None and not 0 <= self.final_learning_rate <= self.learning_rate:
            raise UserError(
                f"final_learning_rate={self.final_learning_rate} given with learning_rate={self.learning_rate}; step "
                "sizes fall or stay: give one from 0 to the first, or none."
            )
        if self.learning_starts > self.replay_capacity:
            raise UserError(
                f"learning_starts={self.learning_starts} given with replay_capacity={self.replay_capacity}; learning "
                "would never start: raise replay_capacity."
            )
        window = self.num_envs * (self.n_step + (self.env.stacked_frames or 1))
        if self.learning_starts <= window:
            raise UserError(
                f"learning_starts={self.learning_starts} given; {self.num_envs} environments and {self.n_step}-step "
                f"returns need more than {window}."
            )

    @property
    def learning_starts_at(self) -> int:
        return self.learning_starts

    def step_size(self, progress: float) -> float:
        """Adam's, after a share of the training in [0, 1]."""
        final = self.learning_rate if self.final_learning_rate is None else self.final_learning_rate
        return self.learning_rate + min(1.0, progress) * (final - self.learning_rate)


_SMALL: dict[str, object] = dict(
    num_envs=8, env_threads=1, eval_epsilon=0.0, eval_episodes=30, clip_reward=False, double=True, learning_rate=1e-3,
    learning_starts=1_000, replay_capacity=50_000, target_every=100, batch_size=64, log_every=2_000,
    checkpoint_every=20_000, eval_every=0, hidden=256,
)  # fmt: skip
DEFAULTS: dict[str, dict[str, object]] = {
    "atari": dict(
        clip_reward=False, reward_scale=0.1, rescale=True, priority=0.6, dueling=True, learning_rate=3e-4,
        final_learning_rate=0.0, adam_eps=1.5e-5, epsilon_steps=100_000,
    ),
    "vector": {**_SMALL, "agent_steps": 100_000, "epsilon_steps": 10_000},
    "symbols": {**_SMALL, "agent_steps": 200_000, "epsilon_steps": 50_000},
    "pixels": {
        **_SMALL, "agent_steps": 1_000_000, "learning_rate": 3e-4, "learning_starts": 10_000, "epsilon_steps": 250_000,
        "replay_capacity": 100_000, "target_every": 500, "checkpoint_every": 100_000, "log_every": 10_000,
        "batch_size": 32, "hidden": 512,
    },
}  # fmt: skip
"""What differs from `DQNConfig`'s own defaults, for Atari and by the kind of other environments' observations."""


def default_config(environment: EnvConfig | str, **overrides: object) -> DQNConfig:
    """The configuration that suits an environment."""
    env = env_config(environment).eased
    values = DEFAULTS["atari" if isinstance(env, AtariConfig) else env.observation_kind]
    return DQNConfig(env=env, **{**values, **overrides})  # pyright: ignore[reportArgumentType]
