"""Environments behind one vector convention, with their conventions explicit in a config."""

from rl_interp.core.envs.atari import AtariConfig, AtariVector
from rl_interp.core.envs.vector import Step, VectorEnv


def make_vector(config: AtariConfig, num_envs: int, threads: int = 0) -> VectorEnv:
    """Make `num_envs` environments stepped together, in `threads` threads (0: one per core)."""
    return AtariVector(config, num_envs, threads)


__all__ = ["AtariConfig", "AtariVector", "Step", "VectorEnv", "make_vector"]
