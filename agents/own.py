"""Anybody's agent as a run: its weights lie in the run, and the code that computes with them is named there by hash."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, PreferenceKind, evaluating
from rl_interp.core.auto_points import auto_hook_points
from rl_interp.core.check_agent import alike, check_agent, largest_difference
from rl_interp.core.code import Code, call_code, code_of
from rl_interp.core.envs import EnvConfig, VectorEnv, make_vector
from rl_interp.core.errors import UserError
from rl_interp.core.rollout import choose, require_actions
from rl_interp.core.run import Run, load_into
from rl_interp.core.weights import require_finite
from rl_interp.core.wrap import wrap

KIND = "own"
"""The kind of runs that hold such an agent."""
_ENVS, _STEPS = 8, 32
"""Of the play in which an agent is tried and compared with itself as it is loaded."""


@dataclass(frozen=True)
class OwnConfig:
    """An agent that the user's code makes, and the environment that it plays."""

    env: EnvConfig
    """The environment and its conventions."""
    code: Code
    """A function without arguments that returns an `rl_interp.Agent`, or any module with one output."""
    output: PreferenceKind = "logits"
    """What a module's output is; an `Agent` says so itself."""


def make_agent(config: OwnConfig) -> Agent:
    """What the code makes, as an agent; where it names no hook points, these are found by trying it.

    Raises:
        UserError: the code is not trusted or fails, or makes neither an agent nor a module that takes the
            environment's observations.
    """
    made = call_code(config.code)
    if not isinstance(made, nn.Module):
        raise UserError(
            f"{config.code.reference} returned a {type(made).__name__}; it must return an rl_interp.Agent or an "
            "nn.Module."
        )
    agent = made if isinstance(made, Agent) else wrap(made, {}, output=config.output)
    agent.observation = config.env.observation_kind
    if not agent.hook_points:
        blank = np.zeros((2, *config.env.observation_shape), config.env.observation_dtype)
        agent.hook_points = auto_hook_points(agent, torch.from_numpy(blank).to(agent.device))
    return agent


def load(config: OwnConfig, run: Run, step: int) -> Agent:
    """The agent of a checkpoint.

    Raises:
        UserError: as by `make_agent`, or weights that are not those of what the code makes.
    """
    agent = make_agent(config)
    load_into(agent, run.weights(step, infinite=_buffers(agent)).load(), run.path)
    return agent


def import_agent(reference: str, env: EnvConfig, path: Path, output: PreferenceKind | None = None) -> dict[str, Any]:
    """Make a run of an agent that the user's own code makes.

    The agent is tried on the environment first, and compared with itself as it is loaded from its weights.

    Args:
        reference: `file.py:function`, or `package.module:function`.
        path: directory of the run.
        output: what a module's output is: by default logits, or the mean of continuous actions.

    Raises:
        UserError: the code fails, or the agent breaks the contract, does not fit the environment's actions, or computes
            with what is not among its weights; no run is left.
        RunError: a directory that holds a run.
    """
    config = OwnConfig(env, code_of(reference), output or _usual(env))
    agent = make_agent(config).eval()
    weights = _weights(agent, reference)
    again = make_agent(config).eval()
    load_into(again, weights, reference)
    with _playing(env) as game:
        obs = torch.from_numpy(game.reset(0)).to(agent.device)
        check_agent(agent, obs)
        _check_actions(agent, obs, config)
        difference = _largest_difference(agent, again, game, reference)
    run = Run.create(path, KIND, config, 0, parent={"code": reference, "sha256": config.code.sha256})
    run.save_checkpoint(0, weights)
    return {
        "run": str(run.path),
        "kind": KIND,
        "parameters": sum(each.numel() for each in agent.parameters()),
        "hook_points": list(agent.hook_points),
        "checked": difference,
    }


def _usual(env: EnvConfig) -> PreferenceKind:
    return "mean" if env.action_kind == "continuous" else "logits"


def _buffers(agent: Agent) -> list[str]:
    """What may be infinite, such as the mask of what attention must not see."""
    return [name for name, _ in agent.named_buffers()]


def _weights(agent: Agent, reference: str) -> Mapping[str, Tensor]:
    weights, infinite = agent.state_dict(), _buffers(agent)
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"the state_dict of what {reference} makes has {name!r}, a {type(value).__name__}; a run holds tensors "
                "only."
            )
        require_finite(value, name, reference, name in infinite)
    return weights


@contextmanager
def _playing(env: EnvConfig) -> Iterator[VectorEnv]:
    game = make_vector(env, _ENVS)
    try:
        yield game
    finally:
        game.close()


def _check_actions(agent: Agent, obs: Tensor, config: OwnConfig) -> None:
    """That the preferences are of the environment's actions."""
    env, kind = config.env, agent.preference_kind
    if agent.continuous != (env.action_kind == "continuous"):
        raise UserError(
            f"{config.code.reference} makes an agent of {kind}, and the actions of {env.id} are {env.action_kind}; "
            f"give an agent of {'mean and std' if env.action_kind == 'continuous' else 'logits or q_values'}."
        )
    with torch.no_grad(), evaluating(agent):
        out = agent.step(obs, agent.initial_state(len(obs)))
    require_actions(f"{config.code.reference} makes an agent", out, env.id, env.action_names)


@torch.no_grad()
def _largest_difference(agent: Agent, again: Agent, game: VectorEnv, reference: str) -> float:
    """Of the preferences of both, over the states that the first visits."""
    rng, device = np.random.default_rng(0), agent.device
    obs, first = game.reset(1), np.ones(_ENVS, bool)
    states, largest = [each.initial_state(_ENVS) for each in (agent, again)], 0.0
    for _ in range(_STEPS):
        seen, begun = torch.from_numpy(obs).to(device), torch.from_numpy(first).to(device)
        own, loaded = (each.step(seen, state, begun) for each, state in zip((agent, again), states, strict=True))
        if not alike(loaded.preferences, own.preferences):
            raise UserError(
                f"what {reference} makes decides differently when it is made again with the same weights (by "
                f"{largest_difference(loaded.preferences, own.preferences):.3g}), so it computes with more than its "
                "state_dict holds; register that as a parameter or buffer, or let the function make it the same."
            )
        largest = max(largest, largest_difference(loaded.preferences, own.preferences))
        actions = choose(own, rng, epsilon=0.0)
        taken = torch.from_numpy(actions).to(device)
        states = [agent.after_action(own.state, taken), again.after_action(loaded.state, taken)]
        game.send(actions)
        step = game.recv()
        obs, first = step.obs, step.first
    return largest
