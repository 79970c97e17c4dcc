"""The transformer's configuration."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from rl_interp.agents.loop import TrainConfig
from rl_interp.core.envs import EnvConfig, TextConfig, env_config
from rl_interp.core.errors import UserError, require_numbers


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a decoder with norms before its blocks is made of: GPT-2's and Llama's are settings of it."""

    layers: int = 2
    """Number of blocks, each attention and then an MLP."""
    width: int = 64
    """Numbers that the residual stream has at each position."""
    heads: int = 4
    """Attention heads of a block."""
    kv_heads: int | None = None
    """Keys and values of a block, each shared by as many heads; None for one a head."""
    hidden: int = 256
    """Neurons of an MLP; 0 for blocks of attention alone."""
    positions: Literal["learned", "rotary"] = "learned"
    """How positions are told: by learned vectors, added once, or by turning queries and keys (Su et al. 2021)."""
    rotary_base: float = 10_000.0
    """Wavelengths of rotary positions, as the base of their progression."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm, or division by the root mean square."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    mlp: Literal["gelu", "gated"] = "gelu"
    """GPT-2's MLP, or Llama's, in which SiLU of one product scales another."""
    bias: bool = True
    """Whether products have a bias."""
    tied: bool = False
    """Whether the unembedding is the embedding."""

    @property
    def groups(self) -> int:
        """How many keys and values."""
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        """Numbers of a query."""
        return self.width // self.heads

    def require_whole_heads(self) -> None:
        """Raise a `UserError` where sizes are below 1, or heads do not share the width evenly."""
        require_numbers(
            self, at_least_1=("layers", "width", "heads", "kv_heads"), at_least_0=("hidden",),
            positive=("rotary_base", "norm_eps"),
        )  # fmt: skip
        if self.width % self.heads:
            raise UserError(f"width={self.width} given with heads={self.heads}; it must be a multiple of it.")
        if self.heads % self.groups:
            raise UserError(f"heads={self.heads} given with kv_heads={self.kv_heads}; it must be a multiple of it.")
        if self.positions == "rotary" and self.head_width % 2:
            raise UserError(
                f"width={self.width} given with heads={self.heads}; rotary positions turn pairs, so a head's share of "
                "the width must be even."
            )


@dataclass(frozen=True, kw_only=True)
class Architecture(Shape):
    """A whole decoder."""

    vocabulary: int
    """Number of words."""
    context: int
    """Most words of a text."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_1=("vocabulary", "context"))
        self.require_whole_heads()


@dataclass(frozen=True)
class TransformerConfig(Shape, TrainConfig):
    """Everything a transformer's run depends on besides its seed. A step is a word that is predicted."""

    env: EnvConfig = field(default_factory=TextConfig)
    agent_steps: int = 1_000_000
    num_envs: int = 32
    """Texts in an update."""
    log_every: int = 50_000
    checkpoint_every: int = 250_000
    eval_episodes: int = 500

    context: int | None = None
    """Most words of a text; None for as many as the texts have."""
    words: int | None = None
    """Words of the embedding, if some are none of the environment's; None for as many as that has."""
    self_ablation: int = 0
    """Units of a block's attention, and of its MLP, that win in a second, ablated stream; 0 for none."""
    ablation_scope: Literal["local", "global"] = "local"
    """What units are scored from: what their block is given, or what the whole model comes to in a pass before."""
    distance_cost: float = 0.1
    """With self-ablation, weight of the distance between the two streams' last residuals in the loss."""
    init_std: float = 0.02
    """Standard deviation of matrices before training. GPT-2's by default, which is small for narrow streams: all words
    are then attended to alike for long."""
    learning_rate: float = 3e-3
    """AdamW's step size after the warm-up; it falls along a half cosine to a tenth of that."""
    warmup: int = 20_000
    """Steps over which the step size rises."""
    weight_decay: float = 0.01
    """How much matrices decay in an update, as a multiple of the step size; biases and norms do not."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(
            self, at_least_1=("context", "words"), positive=("init_std", "learning_rate", "max_grad_norm"),
            at_least_0=("warmup", "weight_decay", "self_ablation", "distance_cost"),
        )  # fmt: skip
        if self.env.observation_kind != "tokens":
            raise UserError(
                f"{self.env.id} shows {self.env.observation_kind}; a transformer reads tokens: give --task, or "
                "--env rl_interp/Text-TASK."
            )
        if self.ablation_scope not in ("local", "global"):
            raise UserError(f"ablation_scope={self.ablation_scope!r} given; it is local or global.")
        if self.self_ablation and not self.self_ablation < min(self.width, self.hidden or 0):
            raise UserError(
                f"self_ablation={self.self_ablation} given with width={self.width} and hidden={self.hidden}; fewer "
                "units must win than there are."
            )
        _ = self.architecture

    @property
    def architecture(self) -> Architecture:
        """The network that it is of."""
        shape = {each.name: getattr(self, each.name) for each in fields(Shape)}
        context = self.context or self.env.observation_shape[0]
        return Architecture(**shape, vocabulary=self.words or len(self.env.action_names), context=context)


DEFAULTS: dict[str, dict[str, Any]] = {
    "rl_interp/Text-induction": dict(
        layers=2, hidden=0, positions="rotary", init_std=0.1, num_envs=16, agent_steps=600_000
    ),
    "rl_interp/Text-ioi": dict(layers=3),
    "rl_interp/Text-docstring": dict(layers=3),
    "rl_interp/Text-greater-than": dict(layers=2),
    "rl_interp/Text-stories": dict(layers=4, width=128, heads=4, hidden=512, agent_steps=3_000_000, learning_rate=1e-3),
    "rl_interp/Text-mixed": dict(layers=4, positions="rotary", agent_steps=3_000_000),
}
"""What suits each task."""


def default_config(environment: EnvConfig | str, **overrides: Any) -> TransformerConfig:
    """The configuration that suits an environment."""
    env = env_config(environment)
    return TransformerConfig(env=env, **{**DEFAULTS.get(env.id, {}), **overrides})
