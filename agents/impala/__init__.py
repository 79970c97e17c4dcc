"""IMPALA: networks, actors, learner and training loop, with CBET and transfer."""

from rl_interp.agents.impala.agent import IMPALA, make_agent
from rl_interp.agents.impala.config import IMPALAConfig, default_config, published_drc
from rl_interp.agents.impala.training import Training, train

PRESETS = {"drc": published_drc}
"""Published settings, by name: functions like `default_config`."""

__all__ = ["IMPALA", "IMPALAConfig", "Training", "default_config", "make_agent", "published_drc", "train"]
