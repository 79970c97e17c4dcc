"""DreamerV3: world model, behaviour learned in imagination, replay and training, with CBET and transfer."""

from rl_interp.agents.dreamerv3.agent import DreamerV3, make_agent
from rl_interp.agents.dreamerv3.behaviour import Imagined
from rl_interp.agents.dreamerv3.config import DreamerV3Config, default_config
from rl_interp.agents.dreamerv3.rssm import Latent
from rl_interp.agents.dreamerv3.training import Training, train
from rl_interp.agents.dreamerv3.world_model import Observed, WorldModel
from rl_interp.core.config import from_plain
from rl_interp.core.run import Run
from rl_interp.core.weights import with_weights


def load_config(run: Run) -> DreamerV3Config:
    """The configuration that a DreamerV3 run was made with."""
    return from_plain(DreamerV3Config, run.config, run.path / "config.yaml")


def load(run: Run, step: int | None = None) -> DreamerV3:
    """The agent of a run's newest checkpoint, or of the one at `step`, in evaluation mode."""
    config = load_config(run)
    return with_weights(lambda: make_agent(config), run.weights(step), run.path).eval()


__all__ = [
    "DreamerV3",
    "DreamerV3Config",
    "Imagined",
    "Latent",
    "Observed",
    "Training",
    "WorldModel",
    "default_config",
    "load",
    "load_config",
    "make_agent",
    "train",
]
