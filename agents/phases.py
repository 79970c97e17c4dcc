"""The phases of training with a bonus, shared by agents: from nothing, pre-training, transfer (Parisi et al. 2021)."""

from pathlib import Path
from typing import Protocol, TypeVar

from rl_interp.agents.cbet import CBETConfig
from rl_interp.core.config import from_plain
from rl_interp.core.envs import EnvConfig
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.run import Run


class PhasedConfig(Protocol):
    """What the configuration of an agent with these phases has."""

    @property
    def env(self) -> EnvConfig: ...

    @property
    def cbet(self) -> CBETConfig | None: ...

    @property
    def pretrain(self) -> bool: ...

    @property
    def explorer(self) -> str | None: ...


Config = TypeVar("Config", bound=PhasedConfig)


def check_phases(config: PhasedConfig) -> None:
    """Raise `UserError` where bonus and phases contradict one another."""
    if config.pretrain and config.cbet is None:
        raise UserError("pretrain given without a bonus to learn from; give --cbet too.")
    if config.cbet and config.cbet.reset_probability and not config.pretrain:
        raise UserError(
            f"cbet.reset_probability={config.cbet.reset_probability} given without pretrain; counts are reset at "
            "random in pre-training only."
        )
    if config.pretrain and config.explorer:
        raise UserError("pretrain and explorer given; pre-train first, then transfer in a run of its own.")


def explorer_config(config: Config, kind: str) -> Config:
    """The configuration of the run that `config.explorer` names.

    Raises:
        RunError: it is of another kind, its actions or observations are others, or it has itself for an explorer.
    """
    run = Run.open(Path(config.explorer or ""))
    if run.meta["kind"] != kind:
        raise RunError(f"{run.path} is a run of kind {run.meta['kind']!r}; transfer needs a pre-trained {kind} run.")
    theirs = from_plain(type(config), run.config, run.path / "config.yaml")
    _check_chain(run, theirs)
    for what in ("action_names", "observation_shape", "observation_kind"):
        if getattr(theirs.env, what) != getattr(config.env, what):
            raise RunError(
                f"{run.path} was trained on {theirs.env.id} with {what.replace('_', ' ')} {getattr(theirs.env, what)}, "
                f"and {config.env.id} has {getattr(config.env, what)}; transfer between environments that share them."
            )
    return theirs


def _check_chain(run: Run, config: PhasedConfig) -> None:
    """An explorer may have one in turn; a circle of them would never end."""
    seen = {run.path.resolve()}
    while config.explorer is not None:
        after = Run.open(config.explorer)
        if after.path.resolve() in seen:
            raise RunError(f"{after.path}/config.yaml: its explorer leads back to it; name a pre-trained run there.")
        seen.add(after.path.resolve())
        config = from_plain(type(config), after.config, after.path / "config.yaml")
