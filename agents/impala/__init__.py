"""IMPALA: network, actors, learner and training loop, with CBET and transfer."""

from rl_interp.agents.impala.config import IMPALAConfig, default_config
from rl_interp.agents.impala.network import IMPALA
from rl_interp.agents.impala.training import Training, train
from rl_interp.agents.impala.transfer import Transfer, make_agent
from rl_interp.core.config import from_plain
from rl_interp.core.run import Run
from rl_interp.core.weights import with_weights


def load_config(run: Run) -> IMPALAConfig:
    """The configuration that an IMPALA run was made with."""
    return from_plain(IMPALAConfig, run.config, run.path / "config.yaml")


def load(run: Run, step: int | None = None) -> IMPALA | Transfer:
    """The agent of a run's newest checkpoint, or of the one at `step`, in evaluation mode."""
    config = load_config(run)
    return with_weights(lambda: make_agent(config), run.weights(step), run.path).eval()


__all__ = [
    "IMPALA",
    "IMPALAConfig",
    "Training",
    "Transfer",
    "default_config",
    "load",
    "load_config",
    "make_agent",
    "train",
]
