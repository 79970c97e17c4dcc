"""DreamerV3's configuration."""

from dataclasses import dataclass, field, replace
from typing import Literal

from rl_interp.agents.phases import PhasedConfig
from rl_interp.core.envs import AtariConfig, EnvConfig, MiniGridConfig, env_config
from rl_interp.core.errors import UserError, require_numbers, unknown


@dataclass(frozen=True)
class Size:
    """Widths and depths of every network."""

    deter: int
    """Width of the GRU."""
    units: int
    """Width of the hidden layers of the RSSM and of the heads."""
    layers: int
    """Hidden layers of a head."""
    depth: int
    """Channels of the convolution next to the image."""
    stoch: int = 32
    """Categoricals in the latent."""
    classes: int = 32
    """Classes of each."""
    vector_layers: int = 5
    """Hidden layers of the encoder and decoder of vectors, which the published sizes leave alone."""
    vector_units: int = 1024
    """Their width."""


SIZES = {
    "debug": Size(32, 16, 2, 8, stoch=4, classes=4, vector_layers=2, vector_units=16),
    "tiny": Size(128, 128, 1, 8, stoch=16, classes=16, vector_layers=1, vector_units=128),
    "small": Size(512, 512, 2, 32),
    "medium": Size(1024, 640, 3, 48),
    "large": Size(2048, 768, 4, 64),
    "xlarge": Size(4096, 1024, 5, 96),
}
"""`tiny` is for learning on a CPU; `small` to `xlarge` are the published package's."""

SizeName = Literal["debug", "tiny", "small", "medium", "large", "xlarge"]


@dataclass(frozen=True)
class DreamerV3Config(PhasedConfig):
    """Everything a DreamerV3 run depends on besides its seed."""

    env: EnvConfig = field(default_factory=MiniGridConfig)
    agent_steps: int = 1_000_000
    num_envs: int = 4
    log_every: int = 2_000
    checkpoint_every: int = 50_000

    size: SizeName = "small"
    """Widths of the networks: tiny suits a CPU, small to xlarge are as published."""
    batch_size: int = 16
    """Sequences per update."""
    batch_length: int = 64
    """Steps per sequence."""
    train_ratio: float = 512.0
    """Steps learned from per environment step."""
    replay_capacity: int = 1_000_000
    """Steps kept."""
    replay_on_disk: bool = True
    """Keep the replay in the run's directory, as memory maps, so that a resumed run has it again; else in memory."""
    # A sequence from an episode's middle then knows what came before. As in the published package since 2024
    # ("replay_context"); 1.5.0 starts every sequence afresh. Each update renews the latents that it has passed.
    replay_latents: bool = False
    """Keep latents in the replay, and begin a sequence with the one before it instead of the initial one."""
    learning_starts: int = 1024
    """Steps before the first update."""
    imag_horizon: int = 15
    """Steps imagined from every latent."""
    horizon: int = 333
    """Steps after which a reward has lost most of its worth: the discount is 1 − 1/horizon."""
    return_lambda: float = 0.95
    """λ of the imagined returns."""
    actor_entropy: float = 3e-4
    """Weight of the policy's entropy."""
    dyn_scale: float = 0.5
    """Weight of the loss that pulls the prior towards the posterior."""
    rep_scale: float = 0.1
    """Weight of the loss that pulls the posterior towards the prior."""
    free_nats: float = 1.0
    """KL below which neither pulls."""
    unimix: float = 0.01
    """Share of the uniform distribution in every categorical, the policy included."""
    model_lr: float = 1e-4
    """Adam's step size for the world model (epsilon 1e-8, gradients clipped to norm 1000)."""
    behaviour_lr: float = 3e-5
    """Adam's step size for actor and critic (epsilon 1e-5, gradients clipped to norm 100)."""
    slow_fraction: float = 0.02
    """Share of the critic that enters the slow critic at each update."""
    return_decay: float = 0.99
    """Decay of the running 5th and 95th percentiles of returns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in SIZES:
            raise UserError(unknown("size", self.size, list(SIZES)))
        require_numbers(
            self,
            at_least_1=("batch_size", "replay_capacity", "learning_starts", "imag_horizon"),
            at_least_0=("actor_entropy", "dyn_scale", "rep_scale", "free_nats"),
            positive=("train_ratio", "model_lr", "behaviour_lr"),
            share=("return_lambda", "unimix", "slow_fraction", "return_decay"),
        )
        if self.batch_length < 2:
            raise UserError(f"batch_length={self.batch_length} given; a sequence has at least 2 steps.")
        if self.replay_capacity // self.num_envs <= self.batch_length:
            raise UserError(
                f"replay_capacity={self.replay_capacity} given for num_envs={self.num_envs}; of each it must hold more "
                f"than batch_length={self.batch_length} steps."
            )
        if self.horizon < 2:
            raise UserError(f"horizon={self.horizon} given; it must be at least 2 steps.")

    @property
    def learning_starts_at(self) -> int:
        return self.learning_starts

    @property
    def discount(self) -> float:
        return 1 - 1 / self.horizon


def default_config(environment: EnvConfig | str, size: str = "tiny", **overrides: object) -> DreamerV3Config:
    """The configuration that suits an environment and a size: the published sizes train as published for Crafter,
    `tiny` and `debug` in small batches and large steps, for a CPU."""
    env = env_config(environment).eased
    if isinstance(env, AtariConfig):
        env = replace(env, frame_stack=1)  # as published: what moves is in its memory
    values: dict[str, object] = {}
    if size in ("tiny", "debug"):
        values = dict(
            batch_size=8, batch_length=32, model_lr=1e-3, behaviour_lr=1e-3, train_ratio=64.0, agent_steps=20_000,
            checkpoint_every=5_000, log_every=500,
        )  # fmt: skip
        if env.observation_kind == "pixels":
            # Pictures take the model longer to learn: a policy that learns as fast as it does on symbols follows the
            # model's early errors and never explores. And short sequences do not show what was achieved before them,
            # so not what still pays.
            values |= dict(behaviour_lr=1e-4, actor_entropy=3e-3, learning_starts=2048, replay_latents=True)
    return DreamerV3Config(env=env, size=size, **{**values, **overrides})  # pyright: ignore[reportArgumentType]
