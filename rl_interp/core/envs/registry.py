"""Which environments there are: ids to families, and families to what implements them.

A new family is a folder here, with its config in `config.py`, and a line in `FAMILIES`. Whatever none of them has is
looked for among Gymnasium's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rl_interp.core.config import SUBCLASS
from rl_interp.core.envs.atari.config import AtariConfig
from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.crafter.config import CrafterConfig
from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.envs.labelled import LabelledEnv
from rl_interp.core.envs.maze.config import MazeConfig
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.text.config import TextConfig
from rl_interp.core.envs.two_ways.config import TwoWaysConfig
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
    Family("ALE/", AtariConfig, ".atari.vector:AtariVector", ".atari.edits:labelled"),
    Family("MiniGrid-", MiniGridConfig, ".minigrid.game:make_vector", ".minigrid.labelled:MiniGridLabelled"),
    Family("Crafter", CrafterConfig, ".crafter.game:make_vector", ".crafter.labelled:CrafterLabelled"),
    Family("rl_interp/Maze", MazeConfig, ".maze.vector:MazeVector", ".maze.labelled:MazeLabelled"),
    Family("rl_interp/Sokoban", SokobanConfig, ".sokoban.vector:SokobanVector", ".sokoban.labelled:SokobanLabelled"),
    Family("rl_interp/TwoWays", TwoWaysConfig, ".two_ways.game:make_vector", ".two_ways.game:TwoWaysLabelled"),
    Family("rl_interp/Text-", TextConfig, ".text.game:make_vector", ".text.game:TextLabelled"),
]


GYMNASIUM = Family("", GymConfig, ".gym.game:make_vector", ".gym.labelled:GymLabelled")
"""What no other family has, or what is wrapped, labelled or made with settings of Gymnasium's."""


def env_config(environment: EnvConfig | str, **asked: Any) -> EnvConfig:
    """The default config of an environment; a config itself is returned as it is.

    Args:
        environment: an id of one of the families, any other Gymnasium id, or what makes an environment, as
            `file.py:function`.
        asked: settings of `gym_config`. With one of them, an id of a family is of Gymnasium's environment, without what
            the family does to it.

    Raises:
        UserError: there is no environment of that id, or it can't be made.
    """
    if isinstance(environment, EnvConfig):
        return environment
    family = None if asked else _family_of(environment)
    if family is None:
        return _load(".gym.read:gym_config")(environment, **asked)
    config = family.config(id=environment)
    _ = config.action_names  # an unknown id of the family is refused here
    return config


def _family_of(env_id: str) -> Family | None:
    return next((family for family in FAMILIES if env_id.startswith(family.ids)), None)


def make_vector(config: EnvConfig, num_envs: int, workers: int = 0) -> VectorEnv:
    """Make `num_envs` environments stepped together, in `workers` threads or processes (0: as many as pay)."""
    at_least_one(num_envs=num_envs)
    return _load(_family(config).vector)(config, num_envs, workers)


def make_labelled(config: EnvConfig) -> LabelledEnv:
    """Make one environment with ground-truth labels and a screen, equal to those of `make_vector`."""
    return _load(_family(config).labelled)(config)


def _family(config: EnvConfig) -> Family:
    for family in (*FAMILIES, GYMNASIUM):
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
    """Of a config on disk. Gymnasium's environments have their spaces there, and are neither made nor imported."""
    if "spaces" in values:
        return GymConfig
    if family := _family_of(values["id"]):
        _ = family.config(id=values["id"]).action_names
        return family.config
    raise UserError(
        f"unknown environment {values['id']!r}; ids begin with {', '.join(family.ids for family in FAMILIES)}, and "
        "those of Gymnasium are recorded with their spaces."
    )


SUBCLASS[EnvConfig] = _class_of  # a config on disk says by its id, or by its spaces, which it is
