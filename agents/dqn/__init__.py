"""DQN: network, replay, learner and training loop."""

from pathlib import Path

from agents.dqn.config import DQNConfig
from agents.dqn.learner import DivergedError, Learner
from agents.dqn.network import DQN
from agents.dqn.replay import Batch, Replay
from agents.dqn.training import score, train
from rl_interp.core.config import from_plain
from rl_interp.core.envs.atari import action_names
from rl_interp.core.run import Run, load_into


def load_config(run: Run) -> DQNConfig:
    """The configuration that a DQN run was made with."""
    return from_plain(DQNConfig, run.config, run.path / "config.yaml")


def load(run: Run, step: int | None = None) -> DQN:
    """The agent of a run's newest checkpoint, or of the one at `step`, in evaluation mode."""
    config = load_config(run)
    agent = DQN(len(action_names(config.env.id)), config.env.frame_stack)
    load_into(agent, run.load_weights(step), Path(run.path))
    return agent.eval()


__all__ = [
    "DQN",
    "Batch",
    "DQNConfig",
    "DivergedError",
    "Learner",
    "Replay",
    "load",
    "load_config",
    "score",
    "train",
]
