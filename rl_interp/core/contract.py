"""The agent contract as a test that anyone can run on an agent of their own."""

import torch
from torch import Tensor

from rl_interp.core.agent import Agent, PolicyOutput, tree_map
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import Cache, assert_unhooked, run_with_hooks


class ContractError(UserError):
    """An agent that breaks the contract; the message says where."""


@torch.no_grad()
def check_agent(agent: Agent, obs: Tensor) -> None:
    """Check an agent on a batch of observations `[B, ...]`, B at least 2.

    That `step` and `unroll` agree, that every hook point fires with the axes it declares, that a hook
    which changes nothing changes nothing, that hooks are gone afterwards, that batch elements do not
    influence one another, and that `first` resets a recurrent agent's state.

    Raises:
        ContractError: in one sentence, what was found and what was wanted.
    """
    if len(obs) < 2:
        raise ContractError(f"check_agent was given {len(obs)} observations; give at least 2.")
    was_training = agent.training
    agent.eval()
    try:
        batch = len(obs)
        first = torch.zeros(batch, dtype=torch.bool, device=obs.device)
        out = agent.step(obs, agent.initial_state(batch), first)
        _check_output(out, batch)
        _check_unroll(agent, obs, first, out)
        _check_hook_points(agent, obs, first, out)
        _check_independence(agent, obs, first, out)
        _check_reset(agent, obs, out)
        assert_unhooked(agent)
    finally:
        agent.train(was_training)


def _check_output(out: PolicyOutput, batch: int) -> None:
    if not isinstance(out, PolicyOutput):
        raise ContractError(f"step returned a {type(out).__name__}; it must return a PolicyOutput.")
    if out.preferences.dim() != 2 or len(out.preferences) != batch:
        raise ContractError(
            f"step returned preferences {tuple(out.preferences.shape)} for {batch} observations; want [B, A]."
        )
    if out.value is not None and out.value.shape != (batch,):
        raise ContractError(f"step returned a value {tuple(out.value.shape)} for {batch} observations; want [B].")


def _check_unroll(agent: Agent, obs: Tensor, first: Tensor, out: PolicyOutput) -> None:
    unrolled = agent.unroll(obs[None], agent.initial_state(len(obs)), first[None]).preferences
    if unrolled.shape != (1, *out.preferences.shape):
        raise ContractError(f"unroll returned preferences {tuple(unrolled.shape)} for one step; want [T, B, A].")
    _same("unroll over one step", unrolled[0], out.preferences)


def _check_hook_points(agent: Agent, obs: Tensor, first: Tensor, out: PolicyOutput) -> None:
    if not agent.hook_points:
        raise ContractError(f"{type(agent).__name__} has no hook points; name at least one.")
    state = agent.initial_state(len(obs))
    for name, point in agent.hook_points.items():
        cache = Cache()
        identity = {name: (lambda value, site: value.clone(), cache.record)}
        hooked_out = run_with_hooks(agent, obs, state, hooks=identity, first=first)
        _same(f"a hook at {name!r} that changes nothing", hooked_out.preferences, out.preferences)
        for phase in cache.phases(name):
            shape, axes = cache[name, phase].shape, point.axes.split()
            if len(shape) != len(axes):
                raise ContractError(
                    f"hook point {name!r} declares axes {point.axes!r} but its value is {tuple(shape)}."
                )


def _check_independence(agent: Agent, obs: Tensor, first: Tensor, out: PolicyOutput) -> None:
    alone = agent.step(obs[:1], agent.initial_state(1), first[:1]).preferences
    _same("a batch of one", alone, out.preferences[:1])


def _check_reset(agent: Agent, obs: Tensor, out: PolicyOutput) -> None:
    if agent.initial_state(1) == ():
        return
    reset = agent.step(obs, out.state, torch.ones(len(obs), dtype=torch.bool, device=obs.device))
    fresh = agent.step(obs, agent.initial_state(len(obs)), torch.ones(len(obs), dtype=torch.bool, device=obs.device))
    _same("`first` on a used state", reset.preferences, fresh.preferences)
    shapes: list[torch.Size] = []

    def note(leaf: Tensor) -> Tensor:
        shapes.append(leaf.shape)
        return leaf

    tree_map(note, out.state)
    if any(shape[0] != len(obs) for shape in shapes):
        raise ContractError(f"the state's leaves are {[tuple(s) for s in shapes]}; each must lead with B = {len(obs)}.")


def _same(what: str, got: Tensor, want: Tensor) -> None:
    if not torch.allclose(got, want, rtol=1e-4, atol=1e-5):
        gap = (got - want).abs().max().item()
        raise ContractError(f"{what} gave other preferences than a plain step (largest difference {gap:.3g}).")
