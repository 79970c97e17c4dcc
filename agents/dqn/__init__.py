"""DQN: network, replay, learner and training loop."""

from rl_interp.agents.dqn.config import DQNConfig, default_config
from rl_interp.agents.dqn.learner import Learner
from rl_interp.agents.dqn.network import DQN
from rl_interp.agents.dqn.replay import Batch, Replay
from rl_interp.agents.dqn.training import train
from rl_interp.agents.loop import DivergedError
from rl_interp.core.config import from_plain
from rl_interp.core.run import Run
from rl_interp.core.weights import with_weights


def load_config(run: Run) -> DQNConfig:
    """The configuration that a DQN run was made with."""
    return from_plain(DQNConfig, run.config, run.path / "config.yaml")


def load(run: Run, step: int | None = None) -> DQN:
    """The agent of a run's newest checkpoint, or of the one at `step`, in evaluation mode."""
    config = load_config(run)
    return with_weights(
        lambda: DQN(len(config.env.action_names), config.env.frame_stack), run.weights(step), run.path
    ).eval()


__all__ = [
    "DQN",
    "Batch",
    "DQNConfig",
    "DivergedError",
    "Learner",
    "Replay",
    "default_config",
    "load",
    "load_config",
    "train",
]
