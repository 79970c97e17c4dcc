"""Atari through ale-py's emulator, with Ms. Pac-Man's ground truth read from RAM."""

from rl_interp.core.envs.atari.vector import AtariConfig, AtariVector

__all__ = ["AtariConfig", "AtariVector"]
