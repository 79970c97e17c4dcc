"""DreamerV3: world model, behaviour learned in imagination, replay and training, with CBET and transfer."""

from rl_interp.agents.dreamerv3.agent import DreamerV3, make_agent
from rl_interp.agents.dreamerv3.behaviour import Imagined
from rl_interp.agents.dreamerv3.config import DreamerV3Config, default_config
from rl_interp.agents.dreamerv3.rssm import Latent
from rl_interp.agents.dreamerv3.training import Training, train
from rl_interp.agents.dreamerv3.world_model import Observed, WorldModel

__all__ = [
    "DreamerV3",
    "DreamerV3Config",
    "Imagined",
    "Latent",
    "Observed",
    "Training",
    "WorldModel",
    "default_config",
    "make_agent",
    "train",
]
