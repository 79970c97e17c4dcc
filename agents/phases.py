"""The phases of training with an exploration bonus: from scratch, pre-training, transfer (Parisi et al. 2021)."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from rl_interp.agents.cbet import CBETConfig
from rl_interp.agents.loop import TrainConfig
from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.config import from_plain
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.run import Run, load_into


@dataclass(frozen=True)
class PhasedConfig(TrainConfig):
    """The configuration of an agent that can learn from a bonus, and from an explorer that did so before."""

    cbet: CBETConfig | None = None
    """The exploration bonus; none by default."""
    pretrain: bool = False
    """Pre-training of an exploration policy: the bonus is the only reward, to the learner no state is terminal, and
    counts are reset at random (`cbet.reset_probability`, by default 0.001)."""
    explorer: str | None = None
    """Transfer: the run of a pre-trained policy, whose frozen logits are added to the learned ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.env.action_kind == "continuous":
            raise UserError(
                f"{self.env.id} has continuous actions, and the agents that are trained here choose among discrete "
                "ones; wrap it with gymnasium.wrappers:DiscretizeAction, or import an agent that was trained elsewhere."
            )
        if self.pretrain and self.cbet is None:
            raise UserError("pretrain given without a bonus to learn from; give --cbet too.")
        if self.cbet and self.cbet.reset_probability and not self.pretrain:
            raise UserError(
                f"cbet.reset_probability={self.cbet.reset_probability} given without pretrain; counts are reset at "
                "random in pre-training only."
            )
        if self.pretrain and self.explorer:
            raise UserError("pretrain and explorer given; pre-train first, then transfer in a run of its own.")


Config = TypeVar("Config", bound=PhasedConfig)
Network = TypeVar("Network", bound=Agent)


class Transfer(Agent, Generic[Network]):
    """f_task + f_expl: preferences that are learned, added to those of a network that stays as it is (Parisi et al.
    2021, §3.2, of a policy's logits; with Q-values, what is learned is the difference to the explorer's).

    Hook points of the task's network keep their names; those of the explorer begin with `explorer.`.

    Args:
        head: the task's last layer, which is set to 0, so that training starts as the explorer plays.
    """

    def __init__(self, task: Network, explorer: Network, head: nn.Linear):
        super().__init__()
        self.task, self.explorer = task, explorer.requires_grad_(False)
        self.observation, self.preference_kind = task.observation, task.preference_kind
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.hook_points = {  # none has a head: what either makes is a part of the preferences
            prefix + name: replace(point, path=f"{part}.{point.path}", head=None)
            for part, prefix, network in (("task", "", task), ("explorer", "explorer.", explorer))
            for name, point in network.hook_points.items()
        }

    def initial_state(self, batch: int) -> State:
        return (*self.task.initial_state(batch), *self.explorer.initial_state(batch))

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        state = state or self.initial_state(obs.shape[1])
        leaves = len(self.task.initial_state(1))  # the task's come first
        own = self.task.unroll(obs, state[:leaves], first)
        with torch.no_grad():
            theirs = self.explorer.unroll(obs, state[leaves:], first)
        after = (*own.state, *theirs.state)
        added = {self.preference_kind: own.preferences + theirs.preferences}
        return PolicyOutput(after, value=own.value, **added)


def explorer_config(config: Config, kind: str) -> Config:
    """The configuration of the run that `config.explorer` names.

    Raises:
        RunError: the run is of a different kind, has different actions or observations, or its own explorers lead
            back to it.
    """
    run = Run.open(config.explorer or "")
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


def load_explorer(explorer: nn.Module, config: PhasedConfig) -> None:
    """Put the pre-trained weights of `config.explorer` into a new agent's explorer, whose checkpoints hold them from
    then on.

    Raises:
        RunError: there is no such run, or its weights do not fit.
    """
    run = Run.open(config.explorer or "")
    load_into(explorer, run.load_weights(), run.path)


def _check_chain(run: Run, config: PhasedConfig) -> None:
    """An explorer may have an explorer in turn; a circle of them would never end."""
    seen = {run.path.resolve()}
    while config.explorer is not None:
        after = Run.open(config.explorer)
        if after.path.resolve() in seen:
            raise RunError(f"{after.path}/config.yaml: its explorer leads back to it; name a pre-trained run there.")
        seen.add(after.path.resolve())
        config = from_plain(type(config), after.config, after.path / "config.yaml")
