"""IMPALA's configuration."""

import reprlib
from dataclasses import dataclass, field

from rl_interp.agents.phases import PhasedConfig
from rl_interp.core.envs import AtariConfig, CrafterConfig, EnvConfig, MazeConfig, MiniGridConfig, env_config
from rl_interp.core.errors import UserError, require_numbers

MOST_SECTIONS = 16
"""Sections of the ResNet, at most: each halves the picture, so that more would see a single point."""


@dataclass(frozen=True)
class IMPALAConfig(PhasedConfig):
    """Everything an IMPALA run depends on besides its seed."""

    env: EnvConfig = field(default_factory=MiniGridConfig)
    agent_steps: int = 3_000_000
    num_envs: int = 32
    """Environments of each actor; a batch is one unroll of all."""
    log_every: int = 20_000
    checkpoint_every: int = 500_000

    unroll: int = 20
    """Steps per unroll: the length that V-trace and the LSTM see."""
    minibatches: int = 1
    """Updates per batch, each on an equal share of its environments; V-trace corrects for the policy's drift."""
    channels: tuple[int, ...] = (16, 32, 32)
    """Channels of the ResNet's sections, for pixels."""
    hidden: int = 128
    """Width of the fully connected layer."""
    lstm: int = 128
    """Width of the LSTM; 0 for none, where everything worth knowing is in view."""
    gamma: float = 0.99
    """Discount per step."""
    learning_rate: float = 2e-3
    """Adam's step size at the start; it falls linearly to 0 at `agent_steps`."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    entropy_cost: float = 0.0005
    """Weight of the policy's entropy in the loss."""
    baseline_cost: float = 0.5
    """Weight of the value's squared error in the loss."""
    reward_scale: float = 1.0
    """Factor of the extrinsic reward in learning."""
    reward_clip: float = 0.0
    """Bound of the extrinsic reward's size in learning, before the factor, as 1 for Atari; 0 for none."""
    self_ablation: int = 0
    """Units of each layer that a second stream, trained beside the agent, keeps for an observation; 0 for none."""
    distance_cost: float = 0.1
    """With self-ablation, weight of the distance between the two streams' last hidden representations in the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(
            self,
            at_least_1=("unroll", "channels", "hidden"),
            at_least_0=(
                "adam_eps",
                "entropy_cost",
                "baseline_cost",
                "reward_scale",
                "reward_clip",
                "self_ablation",
                "distance_cost",
            ),
            positive=("learning_rate", "max_grad_norm"),
            share=("gamma",),
        )
        if self.minibatches < 1 or self.num_envs % self.minibatches:
            raise UserError(
                f"minibatches={self.minibatches} given for {self.num_envs} environments; they must share them equally."
            )
        if not all(width >= 1 for width in self.channels) or len(self.channels) > MOST_SECTIONS:
            raise UserError(
                f"channels={reprlib.repr(self.channels)} given; they are widths of at most {MOST_SECTIONS} sections."
            )
        if self.lstm < 0:
            raise UserError(f"lstm={self.lstm} given; it is a width, or 0 for no LSTM.")
        if self.self_ablation >= self.hidden:
            raise UserError(
                f"self_ablation={self.self_ablation} given with hidden={self.hidden}; fewer units must win than the "
                "fully connected layer has."
            )
        if self.self_ablation and self.explorer is not None:
            raise UserError("self_ablation and explorer given; an agent beside an explorer has no ablated stream.")


def default_config(environment: EnvConfig | str, **overrides: object) -> IMPALAConfig:
    """The configuration that suits an environment: by its family, the sizes and costs that the results pages use."""
    env = env_config(environment).eased
    values: dict[str, object] = {}
    if env.observation_kind == "pixels":
        values |= dict(
            agent_steps=1_000_000, hidden=256, lstm=256, learning_rate=1e-3, entropy_cost=0.01, checkpoint_every=50_000
        )
    if env.observation_kind == "vector":
        values |= dict(agent_steps=500_000, lstm=0, learning_rate=1e-3, entropy_cost=0.01, checkpoint_every=100_000)
    if isinstance(env, AtariConfig):
        values |= dict(agent_steps=2_500_000, learning_rate=6e-4, reward_clip=1.0, checkpoint_every=100_000)
    if isinstance(env, CrafterConfig):
        values |= dict(unroll=32, minibatches=4, gamma=0.95, entropy_cost=0.002)
    if isinstance(env, MazeConfig):
        values |= dict(agent_steps=3_000_000, lstm=0, num_envs=64, unroll=32, minibatches=8, gamma=0.98)
        values |= dict(entropy_cost=0.005, checkpoint_every=100_000)
    return IMPALAConfig(env=env, **{**values, **overrides})  # pyright: ignore[reportArgumentType]
