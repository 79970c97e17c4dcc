"""IMPALA's configuration."""

import reprlib
from dataclasses import dataclass, field
from typing import Literal

from rl_interp.agents.phases import PhasedConfig
from rl_interp.core.envs import (
    AtariConfig,
    CrafterConfig,
    EnvConfig,
    MazeConfig,
    MiniGridConfig,
    SokobanConfig,
    env_config,
)
from rl_interp.core.errors import UserError, require_numbers

NETWORKS = ("impala", "drc")
SOLVER = "solver"
"""Who is imitated, instead of a file's solutions."""
MOST_SECTIONS = 16
"""Sections of the ResNet, at most: each halves the picture (without `cells`), so that more would see a single point."""


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
    """Updates per pass over a batch, each on an equal share of its environments; V-trace corrects for the policy's
    drift."""
    epochs: int = 1
    """Passes over each batch: more learn more from a step, and take as many times as long."""
    network: Literal["impala", "drc"] = "impala"
    """What the agent is: the encoder that suits the observation and an LSTM (impala), or a DRC (drc)."""
    channels: tuple[int, ...] = (16, 32, 32)
    """Channels of the ResNet's sections, for pixels; of a DRC one number, that of all its layers."""
    cells: bool = False
    """Whether, in pictures of a grid, the ResNet's first convolution sees each cell alone and nothing is pooled, so
    that a layer's positions are the cells (in Crafter with the inventory's, in mazes with those of the margin)."""
    layers: int = 3
    """ConvLSTM layers of a DRC."""
    ticks: int = 3
    """Sweeps over a DRC's layers at each step."""
    hidden: int = 128
    """Width of the fully connected layer."""
    lstm: int = 128
    """Width of the LSTM; 0 for none, where everything worth knowing is in view."""
    gamma: float = 0.99
    """Discount per step."""
    clip: float = 0.0
    """The policy's loss is PPO's surrogate, with this bound of |π/μ − 1| (Schulman et al. 2017, eq. 7), on V-trace's
    targets. Advantages are then brought to a standard deviation of 1, and the value's squared error is divided by the
    variance of its targets. 0 for V-trace's policy gradient."""
    vtrace_lambda: float = 1.0
    """Factor of V-trace's trace coefficients: 1 for targets of all the steps that follow, 0 for one."""
    learning_rate: float = 2e-3
    """Adam's step size at the start; it falls linearly at `agent_steps` to `final_learning_rate`."""
    final_learning_rate: float = 0.0
    """Adam's step size at the end."""
    adam_beta2: float = 0.999
    """Decay of Adam's squared gradients."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    entropy_cost: float = 0.0005
    """Weight of the policy's entropy in the loss."""
    baseline_cost: float = 0.5
    """Weight of the value's squared error in the loss."""
    logit_penalty: float = 0.0
    """Weight of the sum of a batch's squared logits in the loss."""
    weight_penalty: float = 0.0
    """Weight of the sum of the squared weights of the policy's and the value's last layers in the loss."""
    reward_scale: float = 1.0
    """Factor of the extrinsic reward in learning."""
    reward_clip: float = 0.0
    """Bound of the extrinsic reward's size in learning, before the factor, as 1 for Atari; 0 for none."""
    self_ablation: int = 0
    """Units of each layer that a second stream, trained beside the agent, keeps for an observation; 0 for none."""
    distance_cost: float = 0.1
    """With self-ablation, weight of the distance between the two streams' last hidden representations in the loss."""
    imitate: str | None = None
    """Imitation instead of reinforcement, in Sokoban: solver, to learn the solutions that a search finds, or a CSV file
    with solutions (level, actions)."""
    start: str | None = None
    """Run whose weights training starts from, such as one of imitation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(
            self,
            at_least_1=("unroll", "epochs", "channels", "hidden", "layers", "ticks"),
            at_least_0=(
                "final_learning_rate", "adam_eps", "entropy_cost", "baseline_cost", "logit_penalty", "weight_penalty",
                "reward_scale", "reward_clip", "self_ablation", "distance_cost", "clip",
            ),
            positive=("learning_rate", "max_grad_norm"),
            share=("gamma", "vtrace_lambda", "adam_beta2"),
        )  # fmt: skip
        if self.minibatches < 1 or self.num_envs % self.minibatches:
            raise UserError(
                f"minibatches={self.minibatches} given for {self.num_envs} environments; they must share them equally."
            )
        if not 1 <= len(self.channels) <= MOST_SECTIONS or not all(width >= 1 for width in self.channels):
            raise UserError(
                f"channels={reprlib.repr(self.channels)} given; they are widths of 1 to {MOST_SECTIONS} sections."
            )
        if self.cells and (self.env.observation_kind != "pixels" or self.env.cell_pixels is None):
            raise UserError(f"cells given for {self.env.id}, which shows no picture of a grid of cells; leave it out.")
        if self.lstm < 0:
            raise UserError(f"lstm={self.lstm} given; it is a width, or 0 for no LSTM.")
        if self.self_ablation >= self.hidden:
            raise UserError(
                f"self_ablation={self.self_ablation} given with hidden={self.hidden}; fewer units must win than the "
                "fully connected layer has."
            )
        if self.final_learning_rate > self.learning_rate:
            raise UserError(
                f"final_learning_rate={self.final_learning_rate} given with learning_rate={self.learning_rate}; step "
                "sizes fall or stay: give a smaller final one."
            )
        if self.self_ablation and self.clip:
            raise UserError(
                f"self_ablation given with clip={self.clip}, which has no rule for the ablated stream; give clip=0."
            )
        if self.self_ablation and self.explorer is not None:
            raise UserError("self_ablation and explorer given; an agent beside an explorer has no ablated stream.")
        if self.imitate and (not isinstance(self.env, SokobanConfig) or self.pretrain or self.explorer):
            raise UserError(
                f"imitate={self.imitate!r} given for {self.env.id}; solutions are of Sokoban's levels, and learned "
                "without a bonus or an explorer."
            )
        if self.network == "drc":
            self._require_drc()

    def step_size(self, progress: float) -> float:
        """Adam's, after a share of the training in [0, 1]."""
        left = max(0.0, 1 - progress)
        return left * self.learning_rate + (1 - left) * self.final_learning_rate

    def _require_drc(self) -> None:
        if len(self.channels) != 1:
            raise UserError(
                f"channels={reprlib.repr(self.channels)} given for a DRC; all its layers have as many: give one number."
            )
        if self.cells:
            raise UserError("cells given for a DRC, whose positions are those of the picture; leave it out.")
        if self.self_ablation:
            raise UserError("self_ablation given for a DRC, which has no ablated stream; leave it out.")
        if self.lstm:
            raise UserError(f"lstm={self.lstm} given for a DRC, whose memory is in its layers; give lstm=0.")
        if self.env.observation_kind == "vector" or min(self.env.observation_shape[1:]) < 3:
            raise UserError(
                f"network='drc' given for {self.env.id}, whose observations are {self.env.observation_shape}; a DRC is "
                "for boards of 3 cells or more a side: give network='impala'."
            )


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
        step_size = overrides.get("learning_rate", 4.5e-4)
        values |= dict(cells=True, channels=(64,), unroll=64, minibatches=8, epochs=3, gamma=0.95, vtrace_lambda=0.65)
        values |= dict(clip=0.2, learning_rate=step_size, final_learning_rate=step_size)
    if isinstance(env, MazeConfig):
        values |= dict(agent_steps=3_000_000, lstm=0, num_envs=64, unroll=32, minibatches=8, gamma=0.98)
        values |= dict(entropy_cost=0.005, checkpoint_every=100_000)
    if isinstance(env, SokobanConfig):
        values |= dict(
            agent_steps=5_000_000, gamma=0.97, learning_rate=1e-3, reward_scale=0.1, checkpoint_every=100_000
        )
        values |= dict(entropy_cost=0.001, vtrace_lambda=0.95)
    if overrides.get("network", "drc" if isinstance(env, SokobanConfig) else "impala") == "drc":
        values |= dict(network="drc", layers=2, ticks=2, channels=(16,), hidden=256, lstm=0, cells=False)
    return IMPALAConfig(env=env, **{**values, **overrides})  # pyright: ignore[reportArgumentType]


def published_drc(environment: EnvConfig | str, **overrides: object) -> IMPALAConfig:
    """DRC(3, 3) as Taufeeque et al. 2024 (arXiv 2407.15421) train it, for 2 billion steps.

    Their value loss is the squared error, ours half of it, so that their cost of 0.25 is 0.5 here.
    """
    values: dict[str, object] = dict(network="drc", layers=3, ticks=3, channels=(32,), hidden=256, lstm=0)
    values |= dict(agent_steps=2_002_944_000, num_envs=256, unroll=20, minibatches=8, checkpoint_every=10_000_000)
    values |= dict(gamma=0.97, vtrace_lambda=0.5, baseline_cost=0.5, entropy_cost=0.01)
    values |= dict(learning_rate=4e-4, final_learning_rate=4e-6, adam_beta2=0.99, adam_eps=1.5625e-7)
    values |= dict(max_grad_norm=2.5e-4, logit_penalty=1.5625e-6, weight_penalty=1.5625e-8, log_every=100_000)
    return IMPALAConfig(env=env_config(environment).eased, **{**values, **overrides})  # pyright: ignore[reportArgumentType]
