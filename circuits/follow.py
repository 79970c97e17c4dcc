"""One step of an agent, in which values are followed from hook points to the operations that read them, and from there
to the next hook points."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.circuits.graph import Kind
from rl_interp.circuits.operations import KINDS, Operation, Operations
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State, evaluating, tree_map
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import Site, hook_point, hooked
from rl_interp.core.parts import leaves

OBS = "obs"
"""The name of the node that the observation is."""
HEADS = ("q_values", "logits", "mean", "std", "value")
OUTPUT = " of the output"
_FRESH = {
    *(f"new_{what}" for what in ("empty", "full", "ones", "tensor", "zeros")),
    *(f"{what}_like" for what in ("empty", "full", "ones", "rand", "randn", "zeros")),
}
"""What takes the shape and type of a tensor, and nothing of its values."""


class Followed:
    """What a step of an agent did: the faces that were seen, and the operations that read them."""

    def __init__(self, agent: Agent, obs: Tensor, state: State, first: Tensor | None, points: Sequence[str]):
        self.agent, self.obs, self.first = agent, obs[:1], None if first is None else first[:1]
        state = agent.initial_state(1) if state is None or state == () else rows(state, 1)
        self.state = state
        self.points = [point for point in points if point != OBS]
        self.sees_obs = OBS in points
        for point in self.points:
            hook_point(agent, point)
        # By the tensor's identity; what is kept stays alive, so that no other can take its place.
        self.origins: dict[int, frozenset[str]] = {}
        self.pending: dict[int, frozenset[int]] = {}
        self.kept: list[Tensor] = []
        self.faces: dict[str, Face] = {}
        self.readers: dict[int, Reading] = {}
        self.weights: set[int] = set()
        self.unread: list[str] = []

    def follow(self) -> PolicyOutput:
        """Run once; fills `faces` and `readers`."""
        self._mark(self.obs, {OBS} if self.sees_obs else set())
        if self.sees_obs:
            self.faces[OBS] = Face(OBS, self.obs, frozenset(), frozenset())
        for place, leaf in leaves(self.state):
            name = state_name(place)
            self._mark(leaf, {name})
            self.faces[name] = Face(name, leaf, frozenset(), frozenset())
        mode = Operations(self._operation, self._other)
        with evaluating(self.agent), hooked(self.agent, {point: _look for point in self.points}):
            self.agent.step(self.obs, self.state, self.first)  # what is tried or compiled once is no step's
        hooks = {point: self._at_point for point in self.points}
        with evaluating(self.agent), self._unseen_followed(), hooked(self.agent, hooks), mode:
            out = self.agent.step(self.obs, self.state, self.first)
        for head in HEADS:
            value = getattr(out, head)
            if value is not None:
                name = f"{head}{OUTPUT}"
                self.faces[name] = Face(name, value, self.origins_of(value), self.pending_of(value))
        self.count = mode.count
        return out

    @contextmanager
    def _unseen_followed(self) -> Iterator[None]:
        """What a module computes outside of PyTorch, such as in a compiled loop, is made of what the module is given;
        if it has weights, nothing is known of it."""

        def follow(module: nn.Module, args: Any, out: Any) -> None:
            with torch._C.DisableTorchFunction():
                fresh = [x for _, x in leaves(out) if id(x) not in self.origins]
                if fresh and all(parameter.dim() < 2 for parameter in module.parameters()):
                    origins = frozenset().union(*(self.origins_of(x) for _, x in leaves(args)))
                    pending = frozenset().union(*(self.pending_of(x) for _, x in leaves(args)))
                    for x in fresh if origins or pending else ():
                        self._mark(x, origins)
                        self.pending[id(x)] = pending

        handles = [m.register_forward_hook(follow) for m in self.agent.modules() if not any(m.children())]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _at_point(self, value: Tensor, site: Site) -> Tensor:
        """A value arrives at a hook point: what it is made of is noted, and what goes on is the point's own."""
        name = face_name(site)
        self.faces[name] = Face(name, value, self.origins_of(value), self.pending_of(value), site.point)
        new = value.clone()
        self._mark(new, {name})
        self.pending[id(new)] = frozenset()
        return new

    def _operation(self, operation: Operation) -> Any:
        reads = {}
        weighted = operation.kind in ("linear", "conv")
        values = operation.operands
        if weighted:
            made_of = {0: self.origins_of(values[0])} if values else {}
            known = operation.weight is not None and not self.origins_of(operation.weight)
            if values and known and (pending := self.pending_of(values[0])):
                made_by = ", ".join(self.readers[call].name for call in sorted(pending))
                raise HookError(
                    f"{operation.name} reads a sum, of {made_by}, that no hook point names; name a hook point on it."
                )
            if made_of and made_of[0] and known and not self.pending_of(values[0]):
                reads = made_of
        else:
            origins = {i: self.origins_of(x) for i, x in values.items()}
            pending = {i: self.pending_of(x) for i, x in values.items()}
            others = {i: any(origins[j] | pending[j] for j in values if j != i) for i in values}
            same = len(values) == 2 and origins[0] == origins[1] and not pending[0] | pending[1]
            reads = {i: made for i, made in origins.items() if made and not pending[i] and others[i] and not same}
        if not reads:
            return self._other(operation.function, operation.args, operation.named)
        if operation.groups != 1:
            raise HookError(
                f"a convolution of {operation.groups} groups reads {', '.join(sorted(*reads.values()))}; graphs are of "
                "convolutions of one group."
            )
        out = operation.plain()
        carried = frozenset().union(*(self.pending_of(x) for x in values.values())) if not weighted else frozenset()
        self.readers[operation.index] = Reading(operation, reads, {i: id(values[i]) for i in reads}, out)
        self.kept.extend(values.values())
        self._mark(out, set())
        self.pending[id(out)] = carried | {operation.index}
        return out

    def _other(self, function: Callable[..., Any], args: Any, named: Mapping[str, Any]) -> Any:
        """Any other call: its results are made of what its arguments are made of."""
        out = function(*args, **named)
        if getattr(function, "__name__", "") in _FRESH:
            return out
        given = [x for _, x in leaves((args, dict(named)))]
        weighted = [x for x in given if id(x) in self.weights or (isinstance(x, nn.Parameter) and x.dim() > 1)]
        origins = frozenset().union(*(self.origins_of(x) for x in given)) if given else frozenset()
        pending = frozenset().union(*(self.pending_of(x) for x in given)) if given else frozenset()
        if weighted and getattr(function, "__name__", "") not in KINDS:
            if origins or pending:  # by weights, but in no way that is known: what it gives is taken as given
                read = sorted(origins) or [f"what {self.readers[call].name} gives" for call in sorted(pending)]
                self.unread.append(f"{getattr(function, '__name__', function)} of {', '.join(read)}")
            else:
                made = [x for _, x in leaves(out)]
                self.kept.extend(made)
                self.weights.update(map(id, made))
            return out
        if origins or pending:
            written = args[:1] if getattr(function, "__name__", "") in ("__setitem__", "copy_") else ()
            for _, result in leaves((out, named.get("out"), *written)):
                self._mark(result, origins)
                self.pending[id(result)] = pending
        return out

    def _mark(self, value: Tensor, origins: Iterable[str]) -> None:
        self.kept.append(value)
        self.origins[id(value)] = frozenset(origins)

    def origins_of(self, value: Tensor) -> frozenset[str]:
        return self.origins.get(id(value), frozenset())

    def pending_of(self, value: Tensor) -> frozenset[int]:
        return self.pending.get(id(value), frozenset())


class Face:
    """What was seen at a hook point, of the state, or of the output."""

    def __init__(
        self, name: str, value: Tensor, origins: frozenset[str], pending: frozenset[int],
        point: HookPoint | None = None,
    ):  # fmt: skip
        self.name, self.origins, self.pending = name, origins, pending
        axis, across = (None, None) if point is None else (point.feature_axis, point.width_axis)
        self.width = 1 if across is None else int(value.shape[across])
        """Numbers that a unit has at a place."""
        spatial = axis is not None and axis != -1
        self.axis = axis if spatial and axis is not None else None
        """Of the units; None where all entries are units."""
        self.units = int(value.shape[self.axis] if self.axis is not None else value[0].numel())

    @property
    def is_output(self) -> bool:
        return self.name.endswith(OUTPUT)

    def by_unit(self, of_entries: Tensor) -> Tensor:
        """`[N, units]`: the largest over a unit's places, of values like this face's."""
        if self.axis is None:
            return of_entries.reshape(len(of_entries), -1)[:, : self.units] if of_entries.dim() else of_entries
        return of_entries.movedim(self.axis, 1).flatten(2).amax(2)


class Reading:
    """An operation that reads nodes."""

    def __init__(self, operation: Operation, origins: dict[int, frozenset[str]], tensors: dict[int, int], out: Tensor):
        self.call, self.name = operation.index, operation.name
        self.kind: Kind = operation.kind
        self.origins, self.tensors, self.out = origins, tensors, out
        self.shapes = {i: x.shape for i, x in operation.operands.items()}
        self.dests: list[str] = []

    @property
    def dense(self) -> bool:
        return self.kind in ("linear", "conv")

    @property
    def row_axis(self) -> int:
        return 1 if self.kind == "conv" else -1

    def features(self, operand: int) -> int:
        """How many features the operand has, as `Link.units` counts them."""
        shape = self.shapes[operand]
        return int(shape[self.row_axis]) if self.dense else int(torch.Size(shape[1:]).numel())

    def by_feature(self, operand: int, of_entries: Tensor) -> Tensor:
        """`[N, features]`: whether any of a feature's entries is set."""
        if not self.dense:
            return of_entries.reshape(-1, self.features(operand))
        rows = of_entries.movedim(self.row_axis, -1)
        return (
            rows.reshape(-1, rows[0].numel() // rows.shape[-1] or 1, rows.shape[-1]).any(1)
            if self.kind == "conv"
            else (rows.reshape(-1, rows.shape[-1]))
        )


def _look(value: Tensor, site: Site) -> None:
    return None


def face_name(site: Site) -> str:
    return site.name if site.time == 0 else f"{site.name}[{site.time}]"


def state_name(place: tuple[Any, ...]) -> str:
    return ".".join(["state", *map(str, place)])


def rows(tree: Any, count: int) -> Any:
    """The first element of a batch, `count` times."""
    return tree_map(lambda leaf: leaf[:1].expand(count, *leaf.shape[1:]).clone(), tree)
