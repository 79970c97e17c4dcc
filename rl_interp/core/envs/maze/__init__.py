"""Mazes with a mouse and a cheese, after the Procgen task that goal misgeneralisation was found in."""

from rl_interp.core.envs.maze.config import ACTIONS, MOVES, MazeConfig

__all__ = ["ACTIONS", "MOVES", "MazeConfig"]
