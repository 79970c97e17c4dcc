"""Environments behind one vector convention, with their conventions explicit in a config."""

from rl_interp.core.envs.atari import AtariConfig, AtariVector
from rl_interp.core.envs.labelled import Concept, LabelledEnv
from rl_interp.core.envs.vector import Step, VectorEnv
from rl_interp.core.errors import at_least_one


def make_vector(config: AtariConfig, num_envs: int, threads: int = 0) -> VectorEnv:
    """Make `num_envs` environments stepped together, in `threads` threads (0: one per core)."""
    at_least_one(num_envs=num_envs)
    return AtariVector(config, num_envs, threads)


def make_labelled(config: AtariConfig) -> LabelledEnv:
    """Make one environment with ground-truth labels and a screen, equal to those of `make_vector`."""
    from rl_interp.core.envs.atari_labelled import AtariLabelled

    return AtariLabelled(config)


__all__ = ["AtariConfig", "AtariVector", "Concept", "LabelledEnv", "Step", "VectorEnv", "make_labelled", "make_vector"]
