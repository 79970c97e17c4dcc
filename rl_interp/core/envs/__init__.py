"""Environments behind one vector convention, with their conventions explicit in a config."""

from rl_interp.core.envs.atari.config import AtariConfig
from rl_interp.core.envs.config import EnvConfig, Goals
from rl_interp.core.envs.crafter.config import CrafterConfig
from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.envs.labelled import Cells, Concept, LabelledEnv, concepts_sha256
from rl_interp.core.envs.maze.config import MazeConfig
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.envs.registry import env_config, make_labelled, make_vector
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.text.config import TextConfig
from rl_interp.core.envs.two_ways.config import TwoWaysConfig
from rl_interp.core.envs.vector import Step, VectorEnv

__all__ = [
    "AtariConfig",
    "Cells",
    "Concept",
    "CrafterConfig",
    "EnvConfig",
    "Goals",
    "GymConfig",
    "LabelledEnv",
    "MazeConfig",
    "MiniGridConfig",
    "SokobanConfig",
    "Step",
    "TextConfig",
    "TwoWaysConfig",
    "VectorEnv",
    "concepts_sha256",
    "env_config",
    "make_labelled",
    "make_vector",
]
