"""Any Gymnasium environment: one that is registered, or one that a function of the user's makes."""

from rl_interp.core.envs.gym.config import GymConfig

__all__ = ["GymConfig"]
