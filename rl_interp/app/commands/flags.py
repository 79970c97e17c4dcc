"""What commands' flags have in common: bounds of numbers, and flags that many commands share.

A command takes a shared group as one argument, `agent: FromAgent`, whose fields are then its flags.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

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
CountOrNone = Annotated[int, Must("at_least_0")]
"""A number of things that may be 0, or an index."""
Factor = Annotated[float, Must("at_least_0")]
Share = Annotated[float, Must("share")]

RunName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
RunNames = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
"""Runs are named as directories under runs/, or given as paths."""
Device = Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")]
NewName = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
"""The name of a new run, which is made under runs/, or a path."""


@dataclass(frozen=True)
class Agent:
    """The agent that a command is about."""

    run: RunName
    """The agent's run: a name under runs/ or a path."""
    checkpoint: Annotated[CountOrNone | None, tyro.conf.arg(metavar="STEP", help_behavior_hint="")] = None
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
