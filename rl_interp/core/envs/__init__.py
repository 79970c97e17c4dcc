"""Environments behind one vector convention, with their conventions explicit in a config."""

from rl_interp.core.envs.atari import AtariConfig
from rl_interp.core.envs.crafter import CrafterConfig
from rl_interp.core.envs.labelled import Concept, LabelledEnv, concepts_sha256
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.minigrid import MiniGridConfig
from rl_interp.core.envs.vector import EnvConfig, Step, VectorEnv
from rl_interp.core.errors import UserError, at_least_one

FAMILIES: dict[str, type[EnvConfig]] = {
    "ALE/": AtariConfig,
    "MiniGrid-": MiniGridConfig,
    "Crafter": CrafterConfig,
    "rl_interp/Maze": MazeConfig,
}
"""How an id begins, to the config of its family."""


def env_config(env_id: str) -> EnvConfig:
    """The default config of an environment.

    Raises:
        UserError: no family has an environment of that id.
    """
    for beginning, family in FAMILIES.items():
        if env_id.startswith(beginning):
            config = family(id=env_id)
            _ = config.action_names  # an unknown id of the family is refused here
            return config
    raise UserError(
        f"unknown environment {env_id!r}; ids begin with {', '.join(FAMILIES)}, as in ALE/MsPacman-v5, "
        "MiniGrid-Unlock-v0, CrafterReward-v1 or rl_interp/Maze-v0."
    )


def make_vector(config: EnvConfig, num_envs: int, workers: int = 0) -> VectorEnv:
    """Make `num_envs` environments stepped together, in `workers` threads or processes (0: as many as pay)."""
    at_least_one(num_envs=num_envs)
    return config.vector(num_envs, workers)


def make_labelled(config: EnvConfig) -> LabelledEnv:
    """Make one environment with ground-truth labels and a screen, equal to those of `make_vector`."""
    return config.labelled()


__all__ = [
    "AtariConfig",
    "Concept",
    "CrafterConfig",
    "EnvConfig",
    "LabelledEnv",
    "MazeConfig",
    "MiniGridConfig",
    "Step",
    "VectorEnv",
    "concepts_sha256",
    "env_config",
    "make_labelled",
    "make_vector",
]
