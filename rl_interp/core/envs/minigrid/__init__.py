"""MiniGrid (Chevalier-Boisvert et al. 2023, arXiv 2306.13831), with compiled views of its grid."""

from rl_interp.core.envs.minigrid.config import MiniGridConfig

__all__ = ["MiniGridConfig"]
