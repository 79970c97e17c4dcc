"""Sokoban: boxes are pushed onto targets, and a push can't be taken back."""

from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.kinds import ACTIONS, KINDS, MOVES

__all__ = ["ACTIONS", "KINDS", "MOVES", "SokobanConfig"]
