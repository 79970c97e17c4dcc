"""BESO's configuration."""

from dataclasses import dataclass, field
from typing import Any, Literal

from rl_interp.agents.beso.diffusion import Sampling
from rl_interp.agents.loop import TrainConfig
from rl_interp.agents.transformer.config import Shape
from rl_interp.core.envs import EnvConfig, TwoWaysConfig, env_config
from rl_interp.core.errors import UserError, require_numbers

Objective = Literal["diffusion", "mse", "mixture"]
OBJECTIVES = ("diffusion", "mse", "mixture")


@dataclass(frozen=True)
class BESOConfig(TrainConfig):
    """Everything that BESO's run depends on besides its seed. A step is an action of a demonstration that is learned
    from."""

    env: EnvConfig = field(default_factory=TwoWaysConfig)
    agent_steps: int = 250_000
    num_envs: int = 64
    """Windows of demonstrations in an update."""
    log_every: int = 10_000
    checkpoint_every: int = 0
    eval_episodes: int = 200

    objective: Objective = "diffusion"
    """What is learned: a diffusion of actions, or, for comparison, their mean (mse) or a Gaussian mixture, each by the
    same transformer."""
    demonstrations: int = 400
    """Episodes that the environment's own controller demonstrates."""
    data: str = ""
    """Folder of demonstrations to learn from instead."""
    window: int = 4
    """Steps that are seen at once, the last of which is acted in."""
    layers: int = 3
    """Number of blocks, each attention and then an MLP."""
    width: int = 48
    """Numbers that the residual stream has at each place."""
    heads: int = 4
    """Attention heads of a block."""
    hidden: int = 192
    """Neurons of an MLP."""
    components: int = 8
    """Gaussians of a mixture."""
    goal_drop: float = 0.1
    """Probability of leaving the goal out in training, so that the policy without it is learned, too."""
    goal_drop_by: Literal["whole", "element"] = "whole"
    """Whether the whole goal is left out, as the paper says, or each of its numbers for itself, as the released code
    does."""
    last_goals: float = 0.5
    """Share of goals that are the last state of their episode; the others are any state after the window."""
    sampling: Sampling = field(default_factory=Sampling)
    """How actions are sampled."""
    learning_rate: float = 2e-3
    """AdamW's step size after the warm-up; it falls along a half cosine to a tenth of that."""
    warmup: int = 20_000
    """Steps over which the step size rises."""
    weight_decay: float = 0.01
    """How much matrices decay in an update, as a multiple of the step size; biases and norms do not."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    averaging: float = 0.999
    """Share that an update keeps of the agent's weights, which are averages of those that are trained; it rises to this
    as (1 + n) / (10 + n) over n updates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(
            self,
            at_least_1=("demonstrations", "window", "hidden", "components"),
            at_least_0=("warmup", "weight_decay"),
            positive=("learning_rate", "max_grad_norm"),
            share=("goal_drop", "last_goals", "averaging"),
        )
        if self.env.goals is None:
            raise UserError(
                f"{self.env.id} has no goal among what it shows; BESO takes environments that show one, as "
                "rl_interp/TwoWays-v0 does, or Gymnasium's with desired_goal and observation."
            )
        if self.env.action_kind != "continuous":
            raise UserError(f"{self.env.id} has discrete actions; BESO samples continuous ones.")
        for name, known in (("objective", OBJECTIVES), ("goal_drop_by", ("whole", "element"))):
            if getattr(self, name) not in known:
                raise UserError(f"{name}={getattr(self, name)!r} given; it is one of {', '.join(known)}.")
        self.shape.require_whole_heads()

    @property
    def shape(self) -> Shape:
        """Of the transformer."""
        return Shape(layers=self.layers, width=self.width, heads=self.heads, hidden=self.hidden)


def default_config(environment: EnvConfig | str, **overrides: Any) -> BESOConfig:
    """The configuration that suits an environment."""
    return BESOConfig(env=env_config(environment), **overrides)
