"""The agent contract: what a policy must offer so that every analysis of the suite works on it.

Shape letters: B batch, T time, A actions, C channels, H W image, D width, S places in a sequence.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rl_interp.core.errors import UserError
from rl_interp.core.parts import Element

State = Any
"""A pytree (tuples, lists, dicts) of tensors with leading dimension B; `()` for feed-forward agents."""

Kind = Literal["spatial", "vector", "categorical", "recurrent"]
ObservationKind = Literal["pixels", "symbols", "vector", "tokens"]
PreferenceKind = Literal["logits", "q_values", "mean", "actions"]


@dataclass(frozen=True)
class HookPoint:
    """A place inside an agent whose value can be read and changed.

    `path` names the submodule (as in `named_modules`) and `side` which of its two values is meant: its output, or its
    first argument. `axes` names the dimensions of that value, e.g. "B C H W", "B D", "T B D", "B S K". A point of kind
    `recurrent` has a T, and hooks see one time after the other, without it: whether the module is called once for each
    time, or with a sequence (as `nn.LSTM` is), whose value then has all its axes. One that is computed several times
    within a time, as in a DRC's ticks, has an N besides, "T N B C H W", and its hooks see one tick after the other.
    Where a linear layer turns this value alone into the preferences, `head` is its path: effects are then exact.

    Of a module that gives a tuple or a dict, `element` says which part is meant, by index or key, and `(1, 0)` is a
    part of a part; an index also picks along the first axis of a tensor. `nn.LSTM` gives `(output, (h, c))`, so that
    the cell state of its first layer is element `(1, 1, 0)`. Of a module that is called several times in a step, `call`
    says which time, from 0; None is every time. So do `tick` and `phase`, where the point is of one tick (and then has
    no N) or of one phase alone.
    """

    path: str
    axes: str
    kind: Kind = "vector"
    side: Literal["input", "output"] = "output"
    head: str | None = None
    element: Element = None
    call: int | None = None
    tick: int | None = None
    phase: str | None = None

    @property
    def has_ticks(self) -> bool:
        """Whether it is computed several times within a time; see `rl_interp.core.hooks.tick`."""
        return "N" in self.axes.split()

    def newest(self, cached: Tensor) -> Tensor:
        """Of a cached value `[B, ...]`, `[T, B, ...]` or `[T, N, B, ...]` what it was last, `[B, ...]`."""
        last = cached[-1] if self.kind == "recurrent" else cached
        return last[-1] if self.has_ticks else last

    @property
    def feature_axis(self) -> int:
        """The axis that counts features, from the end: C of a spatial point, else the last. So it also holds for
        one time step of a recurrent point, whose value has no T."""
        names = self.axes.split()
        return names.index("C") - len(names) if "C" in names else -1

    @property
    def width_axis(self) -> int | None:
        """The axis, from the end, along which a unit has several numbers at one place: D where C counts units, as in an
        attention head's "B C S D"; None where a unit is one number at each place."""
        names = self.axes.split()
        return names.index("D") - len(names) if {"C", "D"} <= set(names) else None


class TickedPoints(dict[str, HookPoint]):
    """Hook points, of which those with ticks are also known tick by tick: `block0.sum@2` is `block0.sum` at tick 2."""

    def __init__(self, points: Mapping[str, HookPoint], ticks: int):
        super().__init__(points)
        self.ticks = ticks

    def __missing__(self, name: str) -> HookPoint:
        base, _, tick = name.rpartition("@")
        point = self.get(base)
        if point is None or not point.has_ticks or not tick.isdecimal() or int(tick) >= self.ticks:
            raise KeyError(name)
        return replace(point, axes=point.axes.replace("N ", ""), tick=int(tick))

    def __contains__(self, name: object) -> bool:
        try:
            return bool(self[name])  # pyright: ignore[reportArgumentType]
        except (KeyError, AttributeError):
            return False


@dataclass(frozen=True)
class PolicyOutput:
    """What an agent returns. Leaves are `[B, ...]` from `step` and `[T, B, ...]` from `unroll`.

    Of discrete actions, an agent has `logits` or `q_values`; of continuous ones the `mean` of a normal distribution,
    in the environment's units, and its `std`, which a deterministic policy leaves out. A policy that can be sampled
    from and no more, such as a diffusion, gives a sample, `actions`: of the random numbers in its state (see
    `Agent.reseeded`), so that what it decides follows from what it is given.
    """

    state: State = ()
    logits: Tensor | None = None
    q_values: Tensor | None = None
    value: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    actions: Tensor | None = None

    @property
    def kind(self) -> PreferenceKind:
        """What its preferences are."""
        kinds: tuple[PreferenceKind, ...] = ("q_values", "logits", "mean", "actions")
        for kind in kinds:
            if getattr(self, kind) is not None:
                return kind
        raise UserError("the agent returned neither logits, q_values, mean nor actions; it must return one of them.")

    @property
    def preferences(self) -> Tensor:
        """`[..., A]`: Q-values where the agent has them, else logits: the greedy action maximises them. Of continuous
        actions the mean, `[..., D]`, which is the greedy action, or the sample that was drawn."""
        return getattr(self, self.kind)

    @property
    def state_value(self) -> Tensor:
        """`[...]`: the value head's output, or max_a Q(s, a) for an agent without one."""
        if self.value is not None:
            return self.value
        if self.q_values is None:
            raise UserError("the agent returned neither a value nor q_values, so its state has no value.")
        return self.q_values.amax(-1)


def tree_map(fn: Callable[..., Tensor], tree: Any, *others: Any) -> Any:
    """Apply `fn` to every tensor of a tree of tuples, lists, dicts and `PolicyOutput`s, together with those at its
    place in others of the same form."""
    trees = (tree, *others)
    if isinstance(tree, Tensor):
        return fn(*trees)
    if isinstance(tree, PolicyOutput):
        names = tree.__dataclass_fields__
        return PolicyOutput(**{name: tree_map(fn, *(getattr(each, name) for each in trees)) for name in names})
    if isinstance(tree, Mapping):
        return {key: tree_map(fn, *(each[key] for each in trees)) for key in tree}
    if isinstance(tree, (tuple, list)):
        values = [tree_map(fn, *column) for column in zip(*trees, strict=True)]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return tree


def tree_leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in the order in which `tree_map` meets them."""
    leaves: list[Tensor] = []
    tree_map(lambda leaf: leaves.append(leaf) or leaf, tree)
    return leaves


def joined(states: Sequence[Any]) -> Any:
    """States of some batches as the state of one."""
    return tree_map(lambda *leaves: torch.cat(leaves), *states)


HEADS = ("logits", "q_values", "value", "mean", "std", "actions")
"""What of a `PolicyOutput` is not its state."""


class Agent(nn.Module):
    """Base class of agents: implement `step` or `unroll` and get the other.

    `obs` is a tensor of the environment's observations (uint8 for images, float32 for vectors); `first` marks, with a
    boolean per batch element, an episode's first step, where a recurrent agent resets its state.
    An agent that sees pixels decides the same on the same values as floats, which is what saliency maps
    feed: it scales by a constant, not by the dtype it finds. It writes neither into what it is given
    nor, later, into what it returned.
    """

    hook_points: Mapping[str, HookPoint] = {}
    graph_points: tuple[str, ...] = ()
    """The hook points between which `circuits.trace` looks for edges; empty for all of them, and the observation."""
    observation: ObservationKind = "pixels"
    """What an observation is: intensities, which can be blurred, or categories, as bytes, a vector of floats, or a
    sequence of tokens, as int64."""
    preference_kind: PreferenceKind = "logits"
    """What its preferences are: a policy's logits, Q-values, of which it takes the largest, or the mean or a sample of
    continuous actions."""

    @property
    def device(self) -> torch.device:
        """Where it computes: the device of its parameters and buffers, the CPU if it has none."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def continuous(self) -> bool:
        """Whether its actions are numbers rather than choices."""
        return self.preference_kind in ("mean", "actions")

    def initial_state(self, batch: int) -> State:
        """The state before an episode's first step; feed-forward agents keep the default, `()`."""
        return ()

    def after_action(self, state: State, actions: Tensor) -> State:
        """Tell an agent what was done after `step` gave `state`: `actions [B]` int64. Returns the state for the next
        step; agents that do not look at their own actions keep the default, which changes nothing."""
        return state

    def reseeded(self, state: State, rng: np.random.Generator) -> State:
        """The state with new random numbers, for an agent that samples as it decides: those are part of its state, and
        go on with each action. Whoever plays calls this at the start; others keep the default, which changes nothing.
        """
        return state

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        """Decide once: `obs [B, ...]`, `first [B]`; leaves of the result are `[B, ...]`."""
        if type(self).unroll is Agent.unroll:
            raise NotImplementedError(f"{type(self).__name__} must implement `step` or `unroll`.")
        out = self.unroll(obs[None], state, None if first is None else first[None])
        return PolicyOutput(out.state, *(tree_map(lambda leaf: leaf[0], getattr(out, head)) for head in HEADS))

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
        return step_by_step(self, obs, state, first, actions)

    def forward(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        return self.step(obs, state, first)


def step_by_step(
    agent: Agent, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
) -> PolicyOutput:
    """What `unroll` gives, by one `step` after the other."""
    outputs = []
    for t in range(len(obs)):
        outputs.append(agent.step(obs[t], state, None if first is None else first[t]))
        state = outputs[-1].state
        if actions is not None:
            state = agent.after_action(state, actions[t])
    columns = ([getattr(out, head) for out in outputs] for head in HEADS)
    return PolicyOutput(state, *(None if column[0] is None else torch.stack(column) for column in columns))


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


@contextmanager
def replaced_methods(agent: Agent, **methods: Callable[..., Any]) -> Iterator[None]:
    """Some of an agent's methods, such as `step`, replaced for the length of a `with` block."""
    own = {name: vars(agent).get(name) for name in methods}
    try:
        for name, method in methods.items():
            setattr(agent, name, method)
        yield
    finally:
        for name, method in own.items():
            if method is None:
                delattr(agent, name)
            else:
                setattr(agent, name, method)
