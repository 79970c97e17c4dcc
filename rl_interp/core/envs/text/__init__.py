"""Texts as environments: an observation is a beginning, an action the word that is to come next."""

from rl_interp.core.envs.text.config import TASKS, TextConfig

__all__ = ["TASKS", "TextConfig"]
