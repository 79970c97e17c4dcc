"""From a run directory to the agent in it: the one place that knows which package made which kind of run."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rl_interp.core.agent import Agent
from rl_interp.core.config import from_plain
from rl_interp.core.device import pick_device
from rl_interp.core.envs import EnvConfig, MiniGridConfig
from rl_interp.core.envs.minigrid.config import ACTIONS
from rl_interp.core.errors import RunError, ShapeError
from rl_interp.core.run import RUNS, Run
from rl_interp.core.weights import with_weights

AGENT_KINDS = {
    "dqn": ("rl_interp.agents.dqn", "DQNConfig"),
    "impala": ("rl_interp.agents.impala", "IMPALAConfig"),
    "impala-procgen": ("rl_interp.agents.pretrained.maze", "IMPALAConfig"),
    "dreamerv3": ("rl_interp.agents.dreamerv3", "DreamerV3Config"),
    "transformer": ("rl_interp.agents.transformer", "TransformerConfig"),
    "beso": ("rl_interp.agents.beso", "BESOConfig"),
    "own": ("rl_interp.agents.own", "OwnConfig"),
    "sb3": ("rl_interp.agents.pretrained.policy", "PolicyConfig"),
    "cleanrl": ("rl_interp.agents.pretrained.policy", "PolicyConfig"),
}
"""Run kind to the package that made it, which offers `make_agent(config)`, and the name of its configuration there.
Where an agent can't be made before its weights are there, it offers `load(config, run, step)` besides."""


@dataclass(frozen=True)
class Loaded:
    """An agent with the run, checkpoint and environment that it comes from."""

    run: Run
    step: int
    agent: Agent
    env: EnvConfig
    weights_sha256: str

    @property
    def has_q_values(self) -> bool:
        """Whether its preferences are Q-values rather than a policy's logits."""
        return self.agent.preference_kind == "q_values"

    @property
    def source(self) -> dict[str, Any]:
        """What a result made from this agent records as its parent."""
        return {"run": str(self.run.path), "step": self.step, "weights_sha256": self.weights_sha256}

    def is_same_as(self, other: "Loaded") -> bool:
        """Whether both are the same checkpoint of the same run, however its path was given."""
        where, there = self.run.path.resolve(), other.run.path.resolve()
        return (self.step, self.weights_sha256, where) == (other.step, other.weights_sha256, there)


def load_agent(run: Path | str, step: int | None = None, device: str = "auto") -> Loaded:
    """Load the agent of a run, given as a path or a name under `runs/`, in evaluation mode.

    Args:
        step: of the checkpoint; by default the newest.

    Raises:
        RunError: no such run or checkpoint, a file that does not match its checksum, a different architecture, or a
            run that holds no agent.
        UserError: an agent of the user's own code, which is not trusted or fails.
    """
    opened = Run.open(run)
    config = load_config(opened)
    if step is None:  # once: a training may save a newer one meanwhile
        step = opened.newest_step()
    package = agent_package(opened.meta["kind"])
    try:
        if load := getattr(package, "load", None):
            agent = load(config, opened, step)
        else:
            agent = with_weights(lambda: package.make_agent(config), opened.weights(step), opened.path)
    except ShapeError as error:
        env = config.env
        if not (isinstance(env, MiniGridConfig) and _lacks_actions(error, env)):
            raise
        raise RunError(
            f"{error} {env.id} has the actions {', '.join(env.action_names)}; a run of an earlier version, which gave "
            f"it {len(ACTIONS)}, must be trained again."
        ) from None
    return Loaded(opened, step, agent.eval().to(pick_device(device)), config.env.scored, opened.weights_sha256(step))


def untrained(loaded: Loaded, seed: int) -> Agent:
    """The agent of a run as it begins with a seed, in evaluation mode: a control for what training has made of it. Its
    buffers are the run's, such as the scales of what it sees."""
    config = load_config(loaded.run)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        agent = agent_package(loaded.run.meta["kind"]).make_agent(config)
    theirs = dict(loaded.agent.named_buffers())
    with torch.no_grad():
        for name, buffer in agent.named_buffers():
            buffer.copy_(theirs[name])
    return agent.eval().to(loaded.agent.device)


def load_config(run: Run) -> Any:
    """The configuration that the agent of a run was made with.

    Raises:
        RunError: the run holds no agent, or its configuration is not one of its kind.
    """
    kind = run.meta["kind"]
    if kind not in AGENT_KINDS:
        raise RunError(
            f"{run.path} is a run of kind {kind!r}, which holds no agent; give a run of {list(AGENT_KINDS)}."
        )
    return from_plain(getattr(agent_package(kind), AGENT_KINDS[kind][1]), run.config, run.path / "config.yaml")


def agent_package(kind: str) -> Any:
    """The package that made runs of a kind of `AGENT_KINDS`."""
    return importlib.import_module(AGENT_KINDS[kind][0])


def new_run_path(name: str) -> Path:
    """The directory of a new run: `name` as a path if it has a slash, else under `runs/`."""
    return Path(name) if "/" in name else RUNS / name


def _lacks_actions(error: ShapeError, env: MiniGridConfig) -> bool:
    """Whether what differs is that the weights are of all actions, and the environment has fewer."""
    fewer = len(ACTIONS) - len(env.action_names)
    have, want = error.have or (), error.want or ()
    return (
        bool(fewer) and len(have) == len(want) and [h - w for h, w in zip(have, want, strict=True) if h != w] == [fewer]
    )
