"""Anybody's module as an agent, without editing it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rl_interp.core.agent import (
    Agent,
    HookPoint,
    ObservationKind,
    PolicyOutput,
    PreferenceKind,
    State,
    tree_leaves,
    tree_map,
)
from rl_interp.core.auto_points import auto_hook_points, require_hookable
from rl_interp.core.check_agent import ContractError, check_agent
from rl_interp.core.errors import UserError, unknown

Forward = Callable[..., Any]
"""`(module, obs) -> tensor [B, A] or PolicyOutput`; of a recurrent module `(module, obs, state) -> (that, state)`."""


class WrappedAgent(Agent):
    """A user's module behind the agent contract; made by `wrap`."""

    def __init__(
        self, module: nn.Module, forward: Forward, output: PreferenceKind, observation: ObservationKind,
        initial_state: Callable[[int], State] | None,
    ):  # fmt: skip
        super().__init__()
        self.module = module
        self.observation = observation
        self.preference_kind = output
        self._forward = forward
        self._begin = initial_state
        self._axes = () if initial_state is None else _batch_axes(initial_state)

    def initial_state(self, batch: int) -> State:
        """That of the module, each leaf on the agent's device and with its batch axis first."""
        if self._begin is None:
            return ()
        return self._moved(tree_map(lambda leaf: leaf.to(self.device), self._begin(batch)), 0)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        if self._begin is None:
            return self._read(self._forward(self.module, obs))
        if first is not None:
            state = _reset(state, self.initial_state(len(obs)), first)
        given = self._forward(self.module, obs, self._moved(state, 1))
        if not isinstance(given, tuple) or len(given) != 2:
            raise ContractError(
                f"forward returned {_kind(given)} for a module with an initial_state; it must return its output and "
                "the next state, as in `return logits, state`."
            )
        return replace(self._read(given[0]), state=self._moved(given[1], 0))

    def _moved(self, state: State, to: int) -> State:
        """The state with the batch axis of each leaf first (`to=0`), or from there to where the module has it."""
        axes = iter(self._axes)
        return tree_map(lambda leaf: leaf.movedim(*((next(axes), 0) if to == 0 else (0, next(axes)))), state)

    def _read(self, out: Any) -> PolicyOutput:
        """What the module gave as what an agent gives."""
        if isinstance(out, PolicyOutput):
            return out
        if isinstance(out, Tensor):
            return PolicyOutput(**{self.preference_kind: out})
        raise ContractError(
            f"{type(self.module).__name__} returned {_kind(out)}; say what is what in a function that makes a "
            f"PolicyOutput of it, {_example(out)}, and give it as wrap(forward=...)."
        )


def wrap(
    module: nn.Module,
    hook_points: Mapping[str, HookPoint | tuple[str, str]] | Literal["auto"],
    forward: Forward | None = None,
    output: PreferenceKind = "logits",
    observation: ObservationKind = "pixels",
    initial_state: Callable[[int], State] | None = None,
    obs: Tensor | None = None,
) -> WrappedAgent:
    """Make any `nn.Module` an agent, without editing it.

    Args:
        hook_points: name to `HookPoint`, or to `(path, axes)` for short, with paths in `module`. "auto" finds all that
            a step on `obs` passes through, and names them by their paths.
        forward: `(module, obs)` to a tensor `[B, A]` or a `PolicyOutput`; by default the module is called. Of a
            recurrent module `(module, obs, state)` to such an output and the next state.
        output: what the preferences are, and so what a bare tensor from `forward` means.
        observation: what an observation is: bytes that are intensities, or categories that are looked up, or a vector.
        initial_state: makes a recurrent module a recurrent agent: the number of episodes to the state before their
            first step, tensors as the module takes them, wherever their batch axis is. The agent takes this state
            where an episode begins, so `forward` need not.
        obs: observations `[B, ...]` to try the agent on at once, by `check_agent`.

    Raises:
        UserError: a path names no submodule of `module`, `output` is no kind of preferences, or "auto" without `obs`.
        ContractError: a part of `module` is TorchScript, or tried on `obs`, the agent breaks the contract.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"wrap was given a {type(module).__name__}; give the nn.Module that decides.")
    for what, given, kinds in (("output", output, PreferenceKind), ("observation", observation, ObservationKind)):
        if given not in get_args(kinds):
            raise UserError(unknown(f"kind of {what}", given, get_args(kinds)))
    agent = WrappedAgent(module, forward or _call, output, observation, initial_state)
    if hook_points == "auto":
        if obs is None:
            raise UserError(
                'hook_points="auto" given without observations to find them with; give obs=, a tensor [B, ...].'
            )
        agent.hook_points = auto_hook_points(agent, obs)
    else:
        agent.hook_points = _named(module, hook_points)
    if obs is not None:
        check_agent(agent, obs)
    return agent


def _call(module: nn.Module, *given: Any) -> Any:
    return module(*given)


def _named(module: nn.Module, hook_points: Any) -> dict[str, HookPoint]:
    """The points by their names, with paths in the agent."""
    pairs = hook_points.values() if isinstance(hook_points, Mapping) else [hook_points]
    if not all(isinstance(each, HookPoint) or (isinstance(each, tuple | list) and len(each) == 2) for each in pairs):
        raise UserError(
            f"hook_points={hook_points!r} given; give a dict of names and (path, axes), such as "
            '{"hidden": ("fc1", "B D")}, or "auto" with obs=.'
        )
    require_hookable(module)
    paths = dict(module.named_modules(remove_duplicate=False))
    points = {}
    for name, point in hook_points.items():
        if not isinstance(point, HookPoint):
            path, axes = point
            point = HookPoint(path, axes, "spatial" if "H" in axes.split() else "vector")
        if point.path not in paths:
            raise UserError(
                f"hook point {name!r} has path {point.path!r}, which is no submodule of {type(module).__name__}; "
                f"submodules: {', '.join(p for p in paths if p)}."
            )
        prefix = "module." if point.path else "module"
        points[name] = replace(point, path=prefix + point.path, head=point.head and f"module.{point.head}")
    return points


def _batch_axes(initial_state: Callable[[int], State]) -> list[int]:
    """Of each tensor of a state, the axis that grows with the batch."""
    axes: list[int] = []
    for less, more in zip(tree_leaves(initial_state(2)), tree_leaves(initial_state(3)), strict=True):
        grown = [i for i, (a, b) in enumerate(zip(less.shape, more.shape, strict=True)) if (a, b) == (2, 3)]
        if len(grown) != 1:
            raise ContractError(
                f"initial_state gave {tuple(less.shape)} for 2 episodes and {tuple(more.shape)} for 3; one axis of "
                "each tensor must count the episodes."
            )
        axes.append(grown[0])
    if not axes:
        raise ContractError("initial_state gave no tensors; a feed-forward module is wrapped without it.")
    return axes


def _reset(state: State, fresh: State, first: Tensor) -> State:
    """The state, with the fresh one where an episode begins."""
    return tree_map(lambda a, b: torch.where(first.view(-1, *[1] * (a.dim() - 1)), a, b), fresh, state)


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        shapes = [f"{tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__ for each in value]
        return f"a {type(value).__name__} of {', '.join(shapes)}"
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(repr, value))}"
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _example(value: Any) -> str:
    if hasattr(value, "logits"):
        return "PolicyOutput(logits=out.logits)"
    if isinstance(value, torch.distributions.Distribution):
        return "PolicyOutput(mean=out.mean, std=out.stddev)"
    if isinstance(value, Mapping):
        return f"such as PolicyOutput(logits=out[{next(iter(value), '')!r}])"
    return "such as PolicyOutput(logits=out[0], value=out[1][:, 0])"
