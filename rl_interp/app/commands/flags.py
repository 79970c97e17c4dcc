"""What commands' flags have in common: bounds of numbers, and flags that many commands share.

A command takes a shared group as one argument, `agent: FromAgent`, whose fields are then its flags.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

if TYPE_CHECKING:
    from rl_interp.agents.load import Loaded

C = TypeVar("C", bound=Callable[..., dict[str, Any]])


@dataclass(frozen=True)
class Must:
    """A bound in the annotation of a number: one of those of `core.errors.require_numbers`, which looks at the number
    before the command begins."""

    be: str


Seed = Annotated[int, Must("seed")]
Count = Annotated[int, Must("at_least_1")]
CountOrZero = Annotated[int, Must("at_least_0")]
"""A number of things that may be 0, or an index."""
Factor = Annotated[float, Must("at_least_0")]
Share = Annotated[float, Must("share")]


def optional(metavar: str) -> Any:
    """For a flag that is None by default, in place of `--flag STR|None ... (default: None)`."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


REGISTRY = ConstructorRegistry()
"""How tyro makes what it can't make of flags; the modules of commands add to it."""


@REGISTRY.primitive_rule
def _or_none(of: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Settings that may be None, of which no command's annotation speaks, look like `STR|None` in the help."""
    kinds = [each for each in get_args(of.type) if each is not NoneType]
    if len(kinds) != 1 or NoneType not in get_args(of.type):
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], of.markers))
    if not isinstance(spec, PrimitiveConstructorSpec) or spec.nargs != 1 or spec.choices:
        return None
    return replace(
        spec,
        metavar=f"{spec.metavar}|None",
        instance_from_str=lambda given: None if given == ["None"] else spec.instance_from_str(given),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )


def several(metavar: str, name: str | None = None) -> Any:
    """For a flag or argument that takes any number of texts, none by default."""
    return tyro.conf.arg(name=name, metavar=f"[{metavar} ...]", help_behavior_hint="")


RunName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
"""The name of a run under runs/, or a path."""
Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
NewName = Annotated[str | None, optional("NAME")]
"""The name of a new run, which is made under runs/, or a path; where it is optional, it is made of others."""
Autoencoder = Annotated[str | None, optional("RUN")]
Output = Annotated[Path | None, optional("PATH")]
Checkpoint = Annotated[CountOrZero | None, optional("STEP")]
OptionalCount = Annotated[Count | None, optional("INT")]
Hook = Annotated[str | None, optional("HOOK")]
"""A hook point; by default the last layer, `core.hooks.last_layer`."""
EnvId = Annotated[str | None, optional("ID")]
Cluster = Annotated[str | None, optional("ADDRESS")]
Device = Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")]


@dataclass(frozen=True)
class Agent:
    """The agent that a command is about."""

    run: RunName
    """The agent's run: a name under runs/ or a path."""
    checkpoint: Checkpoint = None
    """Step of the checkpoint to load; by default the newest."""
    device: Device = "auto"
    """Device to compute on."""

    def load(self) -> "Loaded":
        """The agent, with its run and environment."""
        from rl_interp.agents.load import load_agent

        return load_agent(self.run, self.checkpoint, self.device)


FromAgent = Annotated[Agent, tyro.conf.arg(name="")]


def config_from(make: Callable[[list[str]], Any]) -> Callable[[C], C]:
    """Marks a command whose configuration has defaults that depend on other flags: `make(arguments)` is the default of
    its argument `config`."""

    def mark(command: C) -> C:
        command.config_from = make  # pyright: ignore[reportFunctionMemberAccess]
        return command

    return mark
