"""BESO, a goal-conditioned policy by score-based diffusion: network, agent, demonstrations and training."""

from rl_interp.agents.beso.agent import BESO, ClonedMean, ClonedMixture, GoalPolicy, make_agent
from rl_interp.agents.beso.config import BESOConfig, default_config
from rl_interp.agents.beso.data import Demonstrations
from rl_interp.agents.beso.demonstrate import demonstrate
from rl_interp.agents.beso.diffusion import Sampling
from rl_interp.agents.beso.files import load_demonstrations, save_demonstrations
from rl_interp.agents.beso.training import Training, train

__all__ = [
    "BESO",
    "BESOConfig",
    "ClonedMean",
    "ClonedMixture",
    "Demonstrations",
    "GoalPolicy",
    "Sampling",
    "Training",
    "default_config",
    "demonstrate",
    "load_demonstrations",
    "make_agent",
    "save_demonstrations",
    "train",
]
