"""DQN: network, replay, learner and training loop."""

from rl_interp.agents.dqn.agent import DQN, make_agent
from rl_interp.agents.dqn.config import DQNConfig, default_config
from rl_interp.agents.dqn.learner import Learner
from rl_interp.agents.dqn.replay import Batch, Replay
from rl_interp.agents.dqn.training import Training, train

__all__ = ["DQN", "Batch", "DQNConfig", "Learner", "Replay", "Training", "default_config", "make_agent", "train"]
