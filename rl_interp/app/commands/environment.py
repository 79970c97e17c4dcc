"""The flags that say which environment a command is about: `FromEnv`."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.constructors import StructConstructorSpec, StructTypeInfo

from rl_interp.app.commands.flags import REGISTRY, Count, EnvId, several
from rl_interp.core.envs import EnvConfig, GymConfig, env_config
from rl_interp.core.errors import UserError

Labels = Annotated[str, tyro.conf.arg(name="env.labels", metavar="CODE", help_behavior_hint="")]
Info = Annotated[tuple[str, ...], several("KEY", "env.info")]


@dataclass(frozen=True)
class Environment:
    """The environment that a command is about."""

    env: EnvId = None
    """Gymnasium id of the environment, or what makes it, as my.py:make or module:function."""
    kwargs: Annotated[tuple[str, ...], several("NAME=VALUE", "env.kwargs")] = ()
    """Settings that a Gymnasium environment is made with, such as is_slippery=False."""
    wrappers: Annotated[tuple[str, ...], several("WRAPPER", "env.wrappers")] = ()
    """Wrappers around a Gymnasium environment, the innermost first, such as gymnasium.wrappers:FlattenObservation or,
    in quotes, "my.py:Half(factor=2)"."""
    symbols: Annotated[tuple[Count, ...], several("INT", "env.symbols")] = ()
    """Number of categories of each channel, where bytes that a Gymnasium environment shows are categories."""
    labels: Labels = ""
    """Function labels(info, obs) that gives the ground truth of a state as numbers by name, such as my.py:labels."""
    info: Info = ()
    """Entries of a Gymnasium environment's info that are ground truth."""

    @property
    def settings(self) -> dict[str, Any]:
        """What is asked for beside the id."""
        return {name: value for name, value in vars(self).items() if name != "env" and value}

    def config(self, default: EnvConfig) -> EnvConfig:
        """What is asked for; `default` if nothing is.

        Raises:
            UserError: there is no such environment, or settings were given without one.
        """
        if self.env is None and self.settings:
            raise UserError(f"--env.{next(iter(self.settings))} given without --env, which says of what environment.")
        return default if self.env is None else env_config(self.env, **self.settings)


FromEnv = Annotated[Environment, tyro.conf.arg(name="")]
DEFAULT = Environment()
"""No environment is named, so that a command takes its own."""


@REGISTRY.struct_rule
def _gymnasium(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The config of a Gymnasium environment is made before, of the flags of `Environment`."""
    made = info.default
    return StructConstructorSpec(lambda: made, fields=()) if isinstance(made, GymConfig) else None
