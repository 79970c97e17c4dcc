"""Which environments there are: ids to families, and families to what implements them.

A new family is a folder here, with its config in `config.py`, and a line in `FAMILIES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rl_interp.core.config import SUBCLASS
from rl_interp.core.envs.atari.config import AtariConfig
from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.crafter.config import CrafterConfig
from rl_interp.core.envs.labelled import LabelledEnv
from rl_interp.core.envs.maze.config import MazeConfig
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.envs.vector import VectorEnv
from rl_interp.core.errors import UserError, at_least_one


@dataclass(frozen=True)
class Family:
    """Environments of one kind. What implements them is named as `module:attribute` (with a leading dot, a module of
    this package) and imported where one is made: emulators and compiled code load slowly."""

    ids: str
    """How their ids begin."""
    config: type[EnvConfig]
    vector: str
    """Called with the config, the number of environments, and that of threads or processes (0: as many as pay)."""
    labelled: str
    """Called with the config."""


FAMILIES = [
    Family("ALE/", AtariConfig, ".atari.vector:AtariVector", ".atari.labelled:AtariLabelled"),
    Family("MiniGrid-", MiniGridConfig, ".minigrid.game:make_vector", ".minigrid.labelled:MiniGridLabelled"),
    Family("Crafter", CrafterConfig, ".crafter.game:make_vector", ".crafter.labelled:CrafterLabelled"),
    Family("rl_interp/Maze", MazeConfig, ".maze.vector:MazeVector", ".maze.labelled:MazeLabelled"),
]


def env_config(env_id: str) -> EnvConfig:
    """The default config of an environment.

    Raises:
        UserError: no family has an environment of that id.
    """
    for family in FAMILIES:
        if env_id.startswith(family.ids):
            config = family.config(id=env_id)
            _ = config.action_names  # an unknown id of the family is refused here
            return config
    raise UserError(
        f"unknown environment {env_id!r}; ids begin with {', '.join(family.ids for family in FAMILIES)}, as in "
        "ALE/MsPacman-v5, MiniGrid-Unlock-v0, CrafterReward-v1 or rl_interp/Maze-v0."
    )


def make_vector(config: EnvConfig, num_envs: int, workers: int = 0) -> VectorEnv:
    """Make `num_envs` environments stepped together, in `workers` threads or processes (0: as many as pay)."""
    at_least_one(num_envs=num_envs)
    return _load(_family(config).vector)(config, num_envs, workers)


def make_labelled(config: EnvConfig) -> LabelledEnv:
    """Make one environment with ground-truth labels and a screen, equal to those of `make_vector`."""
    return _load(_family(config).labelled)(config)


def _family(config: EnvConfig) -> Family:
    for family in FAMILIES:
        if isinstance(config, family.config):
            return family
    raise UserError(
        f"{type(config).__name__} given, which no family of environments has; they have "
        f"{', '.join(family.config.__name__ for family in FAMILIES)}."
    )


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module, __package__), attribute)


def _class_of(values: Mapping[str, Any]) -> type[EnvConfig]:
    return type(env_config(values["id"]))


SUBCLASS[EnvConfig] = _class_of  # a config on disk says by its id which it is
