"""The agent contract: what a policy must offer so that every analysis of the suite works on it.

Shape letters: B batch, T time, A actions, C channels, H W image, D width.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rl_interp.core.errors import UserError

State = Any
"""A pytree (tuples, lists, dicts) of tensors with leading dimension B; `()` for feed-forward agents."""

Kind = Literal["spatial", "vector", "categorical", "recurrent"]


@dataclass(frozen=True)
class HookPoint:
    """A place inside an agent whose value can be read and changed.

    `path` names the submodule (as in `named_modules`) and `side` which of its two values is meant;
    `axes` names the dimensions of that value, e.g. "B C H W", "B D", "T B D", "B S K". Where a linear
    layer turns this value alone into the preferences, `head` is its path: effects are then exact.
    """

    path: str
    axes: str
    kind: Kind = "vector"
    side: Literal["input", "output"] = "output"
    head: str | None = None

    @property
    def feature_axis(self) -> int:
        """The axis that counts features, from the end: C of a spatial point, else the last. So it also holds for
        one time step of a recurrent point, whose value has no T."""
        names = self.axes.split()
        return names.index("C") - len(names) if "C" in names else -1


@dataclass(frozen=True)
class PolicyOutput:
    """What an agent returns. Leaves are `[B, ...]` from `step` and `[T, B, ...]` from `unroll`."""

    state: State = ()
    logits: Tensor | None = None
    q_values: Tensor | None = None
    value: Tensor | None = None

    @property
    def preferences(self) -> Tensor:
        """`[..., A]`: Q-values where the agent has them, else logits. The greedy action maximises it."""
        scores = self.logits if self.q_values is None else self.q_values
        if scores is None:
            raise UserError("the agent returned neither q_values nor logits; it must return one of them.")
        return scores

    @property
    def state_value(self) -> Tensor:
        """`[...]`: the value head's output, or max_a Q(s, a) for an agent without one."""
        if self.value is not None:
            return self.value
        if self.q_values is None:
            raise UserError("the agent returned neither a value nor q_values, so its state has no value.")
        return self.q_values.amax(-1)


def tree_map(fn: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply `fn` to every tensor of a tree of tuples, lists, dicts and `PolicyOutput`s."""
    if isinstance(tree, Tensor):
        return fn(tree)
    if isinstance(tree, PolicyOutput):
        return PolicyOutput(**{name: tree_map(fn, getattr(tree, name)) for name in tree.__dataclass_fields__})
    if isinstance(tree, Mapping):
        return {key: tree_map(fn, value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)(tree_map(fn, value) for value in tree)
    return tree


_HEADS = ("logits", "q_values", "value")


class Agent(nn.Module):
    """Base class of agents: implement `step` or `unroll` and get the other.

    `obs` is a tensor of the environment's observations (uint8 for images); `first` marks, with a
    boolean per batch element, an episode's first step, where a recurrent agent resets its state.
    An agent that sees pixels decides the same on the same values as floats, which is what saliency maps
    feed: it scales by a constant, not by the dtype it finds. It writes neither into what it is given
    nor, later, into what it returned.
    """

    hook_points: Mapping[str, HookPoint] = {}
    observation: Literal["pixels", "symbols"] = "pixels"
    """Whether the bytes of an observation are intensities, which can be blurred, or categories."""
    preference_kind: Literal["logits", "q_values"] = "logits"
    """What its preferences are: a policy's logits, or Q-values, of which it takes the largest."""

    @property
    def device(self) -> torch.device:
        """Where it computes: the device of its parameters and buffers, the CPU if it has none."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def initial_state(self, batch: int) -> State:
        """The state before an episode's first step; feed-forward agents keep the default, `()`."""
        return ()

    def after_action(self, state: State, actions: Tensor) -> State:
        """Tell an agent what was done after `step` gave `state`: `actions [B]` int64. Returns the state for the next
        step; agents that do not look at their own actions keep the default, which changes nothing."""
        return state

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        """Decide once: `obs [B, ...]`, `first [B]`; leaves of the result are `[B, ...]`."""
        if type(self).unroll is Agent.unroll:
            raise NotImplementedError(f"{type(self).__name__} must implement `step` or `unroll`.")
        out = self.unroll(obs[None], state, None if first is None else first[None])
        return PolicyOutput(out.state, *(tree_map(lambda leaf: leaf[0], getattr(out, head)) for head in _HEADS))

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        """Decide for a segment: `obs [T, B, ...]`, `first [T, B]`; leaves are `[T, B, ...]`, the state
        is the last one. A feed-forward agent folds T into B; a recurrent one steps through time. `actions [T, B]`
        are those taken after each observation, for agents that look at their own."""
        if type(self).step is Agent.step:
            raise NotImplementedError(f"{type(self).__name__} must implement `step` or `unroll`.")
        time, batch = obs.shape[:2]
        if self.initial_state(batch) == ():
            out = self.step(obs.flatten(0, 1), (), None if first is None else first.flatten(0, 1))
            return tree_map(lambda leaf: leaf.unflatten(0, (time, batch)), out)
        outputs = []
        for t in range(time):
            outputs.append(self.step(obs[t], state, None if first is None else first[t]))
            state = outputs[-1].state
            if actions is not None:
                state = self.after_action(state, actions[t])
        columns = ([getattr(out, head) for out in outputs] for head in _HEADS)
        return PolicyOutput(state, *(None if column[0] is None else torch.stack(column) for column in columns))

    def forward(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        return self.step(obs, state, first)


class WrappedAgent(Agent):
    """A user's module behind the agent contract; made by `wrap`."""

    def __init__(
        self, module: nn.Module, hook_points: Mapping[str, HookPoint], forward, output: Literal["logits", "q_values"],
        observation: Literal["pixels", "symbols"] = "pixels",
    ):  # fmt: skip
        super().__init__()
        self.module = module
        self.hook_points = hook_points
        self.observation = observation
        self._forward = forward
        self.preference_kind = output

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        out = self._forward(self.module, obs)
        return out if isinstance(out, PolicyOutput) else PolicyOutput(**{self.preference_kind: out})


@contextmanager
def evaluating(agent: nn.Module) -> Iterator[None]:
    """Every module of an agent in evaluation mode (dropout off, running statistics fixed) for the length of a `with`
    block; afterwards each is in the mode that it was in, a frozen one inside a training one too."""
    before = {module: module.training for module in agent.modules()}
    if not any(before.values()):
        yield
        return
    agent.eval()
    try:
        yield
    finally:
        for module, training in before.items():  # from the outside in: `train` passes on to children, whose turn comes
            if module.training != training:
                module.train(training)


def wrap(
    module: nn.Module,
    hook_points: Mapping[str, HookPoint | tuple[str, str]],
    forward: Callable[[nn.Module, Tensor], Tensor | PolicyOutput] | None = None,
    output: Literal["logits", "q_values"] = "logits",
    observation: Literal["pixels", "symbols"] = "pixels",
) -> WrappedAgent:
    """Make any feed-forward `nn.Module` an agent, without editing it.

    Args:
        hook_points: name to `HookPoint`, or to `(path, axes)` for short, with paths in `module`.
        forward: `(module, obs) -> tensor [B, A]` or `PolicyOutput`; by default the module is called.
        output: what the preferences are, and so what a bare tensor from `forward` means.
        observation: what an observation's bytes are: intensities, or categories that are looked up.

    Raises:
        UserError: a path names no submodule of `module`.

    A recurrent module subclasses `Agent` instead; `check_agent` tests either.
    """
    paths = dict(module.named_modules())
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
    return WrappedAgent(module, points, forward or (lambda m, obs: m(obs)), output, observation)
