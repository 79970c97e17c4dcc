"""Finding an agent's graph by running it: where each operation's operands come from, and where its result goes.

One run follows values from hook points to the operations that read them, and from there to the next hook points. Then,
with every hook point held at its value but one, that one is changed in one half of its units at a time, as often as
units have binary digits: an operand's features that change in all halves with a unit, and in none without it, are of
that unit. So an agent may lay out, cut up, join and rescale its values as it likes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.circuits.graph import Graph, Kind, Link, Node, Reader
from rl_interp.circuits.operations import KINDS, Operation, Operations
from rl_interp.core.agent import Agent, PolicyOutput, State, evaluating, tree_map
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import Site, hook_point, hooked
from rl_interp.core.parts import leaves

Change = Callable[[Tensor], Tensor]

OBS = "obs"
"""The name of the node that the observation is."""

_HEADS = ("q_values", "logits", "mean", "std", "value")
_OUTPUT = " of the output"
_FRESH = {
    *(f"new_{what}" for what in ("empty", "full", "ones", "tensor", "zeros")),
    *(f"{what}_like" for what in ("empty", "full", "ones", "rand", "randn", "zeros")),
}
"""What takes the shape and type of a tensor, and nothing of its values."""


def trace(
    agent: Agent, obs: Tensor, state: State = None, *, first: Tensor | None = None, points: Sequence[str] | None = None
) -> Graph:
    """The graph of one step of an agent.

    Args:
        obs: `[B, ...]`, of which the first is looked at.
        state: `[B, ...]`; None for the initial one.
        points: hook points at which nodes are seen, with `obs` for the observation; all of them by default. What is
            computed before the first of them is not in the graph.

    Raises:
        HookError: no such point; or what two nodes have in common can't be told: a value that is read is mixed of
            several nodes, or is a sum that no hook point names.
    """
    points = (OBS, *agent.hook_points) if points is None else points
    with torch.enable_grad():
        with_grad = _Tracing(agent, obs, state, first, points)
        with_grad.follow()
    with torch.no_grad():
        return _Tracing(agent, obs, state, first, points).graph(with_grad)


class _Tracing:
    def __init__(self, agent: Agent, obs: Tensor, state: State, first: Tensor | None, points: Sequence[str]):
        self.agent, self.obs, self.first = agent, obs[:1], None if first is None else first[:1]
        state = agent.initial_state(1) if state is None or state == () else _rows(state, 1)
        self.state = state
        self.points = [point for point in points if point != OBS]
        self.sees_obs = OBS in points
        for point in self.points:
            hook_point(agent, point)
        # By the tensor's identity; what is kept stays alive, so that no other can take its place.
        self.origins: dict[int, frozenset[str]] = {}
        self.pending: dict[int, frozenset[int]] = {}
        self.kept: list[Tensor] = []
        self.faces: dict[str, _Face] = {}
        self.readers: dict[int, _Reading] = {}
        self.weights: set[int] = set()
        self.unread: list[str] = []

    def graph(self, with_grad: "_Tracing") -> Graph:
        """The graph, where `with_grad` has followed a step with gradients."""
        out = self.follow()
        calls = list(zip(self.readers, with_grad.readers, strict=False))
        theirs = [(r.name, r.origins) for r in with_grad.readers.values()]
        if [(r.name, r.origins) for r in self.readers.values()] != theirs:
            raise HookError("the agent computes in other ways where gradients are on, so its graph can't be told.")
        number = {call: i for i, call in enumerate(self.readers)}
        nodes, node_of = self._nodes(out)
        keys = self._keys(node_of)
        units, rows_of = self._units_read(), self._rows_made()
        root_unit = self._root_units(units)
        # An output that is made of what is seen alone, by no reader, is no node's.
        widths = {node.name: len(root_unit[node.faces[0]]) for node in nodes if node.faces[0] in root_unit}
        links: list[Link] = []
        for reading in self.readers.values():
            for face in reading.dests:
                dest, rows = node_of[face], torch.empty(0, dtype=torch.int64)
                if reading.dense:
                    rows = _through(rows_of[reading.call, face], root_unit[face])
                for operand, origins in reading.origins.items():
                    for origin in sorted(origins):
                        source = node_of[origin]
                        of_unit = _through(units[origin][reading.call, operand], root_unit[origin])
                        shape = (widths[dest], widths[source]) if reading.dense else (widths[source],)
                        key = keys[reading.call, operand]
                        links.append(
                            Link(source, dest, number[reading.call], operand, key, reading.dense, of_unit, rows, shape)
                        )
        named = _named(links)
        read = {link.source for link in named} | {link.dest for link in named}
        heads = {head: node_of.get(f"{head}{_OUTPUT}") for head in _HEADS}
        outputs = {head: node for head, node in heads.items() if node in widths}
        return Graph(
            nodes={n.name: replace(n, units=widths[n.name]) for n in nodes if n.name in read | set(outputs.values())},
            links=tuple(named),
            readers=tuple(
                Reader(both, r.kind, r.name, {i: keys[r.call, i] for i in r.origins})
                for both, r in zip(calls, self.readers.values(), strict=True)
            ),
            outputs=outputs,
            paths=tuple(dict.fromkeys(hook_point(self.agent, point).path for point in self.points)),
            calls=(self.count, with_grad.count),
            unread=tuple(dict.fromkeys(self.unread)),
        )

    # -- one run, following values -------------------------------------------------------------------------------------

    def follow(self) -> PolicyOutput:
        """Run once; fills `faces` and `readers`."""
        self._mark(self.obs, {OBS} if self.sees_obs else set())
        if self.sees_obs:
            self.faces[OBS] = _Face(OBS, self.obs, frozenset(), frozenset())
        for place, leaf in leaves(self.state):
            name = _state_name(place)
            self._mark(leaf, {name})
            self.faces[name] = _Face(name, leaf, frozenset(), frozenset())
        mode = Operations(self._operation, self._other)
        with evaluating(self.agent), hooked(self.agent, {point: _look for point in self.points}):
            self.agent.step(self.obs, self.state, self.first)  # what is tried or compiled once is no step's
        hooks = {point: self._at_point for point in self.points}
        with evaluating(self.agent), self._unseen_followed(), hooked(self.agent, hooks), mode:
            out = self.agent.step(self.obs, self.state, self.first)
        for head in _HEADS:
            value = getattr(out, head)
            if value is not None:
                name = f"{head}{_OUTPUT}"
                self.faces[name] = _Face(name, value, self._origins(value), self._pending(value))
        self.count = mode.count
        return out

    @contextmanager
    def _unseen_followed(self) -> Iterator[None]:
        """What a module computes outside of PyTorch, such as in a compiled loop, is made of what the module is given;
        if it has weights, nothing is known of it."""

        def follow(module: nn.Module, args: Any, out: Any) -> None:
            with torch._C.DisableTorchFunction():
                fresh = [x for x in _tensors(out) if id(x) not in self.origins]
                if fresh and all(parameter.dim() < 2 for parameter in module.parameters()):
                    origins = frozenset().union(*(self._origins(x) for x in _tensors(args)))
                    pending = frozenset().union(*(self._pending(x) for x in _tensors(args)))
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
        name = _face_name(site)
        self.faces[name] = _Face(name, value, self._origins(value), self._pending(value), site.point.feature_axis)
        new = value.clone()
        self._mark(new, {name})
        self.pending[id(new)] = frozenset()
        return new

    def _operation(self, operation: Operation) -> Any:
        reads = {}
        weighted = operation.kind in ("linear", "conv")
        values = operation.operands
        if weighted:
            made_of = {0: self._origins(values[0])} if values else {}
            known = operation.weight is not None and not self._origins(operation.weight)
            if values and known and (pending := self._pending(values[0])):
                made_by = ", ".join(self.readers[call].name for call in sorted(pending))
                raise HookError(
                    f"{operation.name} reads a sum, of {made_by}, that no hook point names; name a hook point on it."
                )
            if made_of and made_of[0] and known and not self._pending(values[0]):
                reads = made_of
        else:
            origins = {i: self._origins(x) for i, x in values.items()}
            pending = {i: self._pending(x) for i, x in values.items()}
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
        carried = frozenset().union(*(self._pending(x) for x in values.values())) if not weighted else frozenset()
        self.readers[operation.index] = _Reading(operation, reads, {i: id(values[i]) for i in reads}, out)
        self.kept.extend(values.values())
        self._mark(out, set())
        self.pending[id(out)] = carried | {operation.index}
        return out

    def _other(self, function: Callable[..., Any], args: Any, named: Mapping[str, Any]) -> Any:
        """Any other call: its results are made of what its arguments are made of."""
        out = function(*args, **named)
        if getattr(function, "__name__", "") in _FRESH:
            return out
        given = [x for x in _tensors((args, dict(named)))]
        weighted = [x for x in given if id(x) in self.weights or (isinstance(x, nn.Parameter) and x.dim() > 1)]
        origins = frozenset().union(*(self._origins(x) for x in given)) if given else frozenset()
        pending = frozenset().union(*(self._pending(x) for x in given)) if given else frozenset()
        if weighted and getattr(function, "__name__", "") not in KINDS:
            if origins or pending:  # by weights, but in no way that is known: what it gives is taken as given
                read = sorted(origins) or [f"what {self.readers[call].name} gives" for call in sorted(pending)]
                self.unread.append(f"{getattr(function, '__name__', function)} of {', '.join(read)}")
            else:
                self.kept.extend(_tensors(out))
                self.weights.update(map(id, _tensors(out)))
            return out
        if origins or pending:
            written = args[:1] if getattr(function, "__name__", "") in ("__setitem__", "copy_") else ()
            for result in _tensors((out, named.get("out"), *written)):
                self._mark(result, origins)
                self.pending[id(result)] = pending
        return out

    def _mark(self, value: Tensor, origins: Iterable[str]) -> None:
        self.kept.append(value)
        self.origins[id(value)] = frozenset(origins)

    def _origins(self, value: Tensor) -> frozenset[str]:
        return self.origins.get(id(value), frozenset())

    def _pending(self, value: Tensor) -> frozenset[int]:
        return self.pending.get(id(value), frozenset())

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _nodes(self, out: PolicyOutput) -> tuple[list[Node], dict[str, str]]:
        """The nodes, and the name of the node of each face. A face made of another alone is the same node."""
        root: dict[str, str] = {}
        for name, face in self.faces.items():
            for call in face.pending:
                self.readers[call].dests.append(name)
            if face.pending and face.origins:
                raise HookError(
                    f"{name!r} is a mixture of {', '.join(sorted(face.origins))} and of a sum that no hook point "
                    "names; name a hook point on the sum."
                )
            # An encoder may make of an observation what it likes, so its units are those of what is seen first.
            alone = len(face.origins) == 1 and face.origins != {OBS}
            root[name] = root[next(iter(face.origins))] if alone else name
        groups: dict[str, list[str]] = {}
        for name, first in root.items():
            groups.setdefault(first, []).append(name)
        memory = {
            _state_name(place): root[next(iter(made))]
            for place, leaf in leaves(out.state)
            if len(made := self._origins(leaf)) == 1
        }
        nodes: list[Node] = []
        node_of: dict[str, str] = {}
        for faces in groups.values():
            named = [face for face in faces if not face.endswith(_OUTPUT)] or faces
            name = named[-1].removesuffix(_OUTPUT)
            nodes.append(Node(name, 0, tuple(named)))
            node_of |= dict.fromkeys(faces, name)
        renamed = {leaf: f"{node_of[of]}[-1]" for leaf, of in memory.items() if of in node_of and leaf in node_of}
        nodes = [
            replace(n, name=renamed[n.faces[0]], memory=node_of[memory[n.faces[0]]]) if n.faces[0] in renamed else n
            for n in nodes
        ]
        node_of = {face: renamed.get(face, name) for face, name in node_of.items()}
        return nodes, node_of

    def _keys(self, node_of: Mapping[str, str]) -> dict[tuple[int, int], str]:
        """A name for each operand that is read: of the nodes that it holds, and of what reads it where that is not
        enough. Operands that are one tensor have one."""
        by_tensor: dict[int, list[tuple[int, int]]] = {}
        for reading in self.readers.values():
            for operand, tensor in reading.tensors.items():
                by_tensor.setdefault(tensor, []).append((reading.call, operand))
        keys: dict[tuple[int, int], str] = {}
        for places in by_tensor.values():
            reading = self.readers[places[0][0]]
            name = "+".join(dict.fromkeys(node_of[origin] for origin in sorted(reading.origins[places[0][1]])))
            if name in keys.values():
                name = f"{name} -> {node_of[reading.dests[0]] if reading.dests else reading.name}"
            while name in keys.values():
                name += "'"
            keys |= dict.fromkeys(places, name)
        return keys

    def _root_units(self, units: Mapping[str, Mapping[Any, Tensor]]) -> dict[str, Tensor]:
        """For each face: int64 `[units]`, which unit of its node's first face each is."""
        found: dict[str, Tensor] = {}
        for name, face in self.faces.items():
            if face.is_output and face.origins:  # any function of its node: a distribution's mean, say
                continue
            if len(face.origins) == 1 and face.origins != {OBS}:
                (before,) = face.origins
                found[name] = _through(units[before][name], found[before])
            elif name == OBS:
                found[name] = torch.arange(max((len(of_unit) for of_unit in units.get(OBS, {}).values()), default=0))
            else:
                found[name] = torch.arange(face.units)
        return found

    # -- which unit is where -------------------------------------------------------------------------------------------

    def _units_read(self) -> dict[str, dict[Any, Tensor]]:
        """For each face and each operand that reads it, by call and place: int64 `[features]`, the unit at each
        feature; and for each later face that is made of it, by name, the unit that each of that one's units is."""
        found: dict[str, dict[Any, Tensor]] = {}
        together: list[tuple[str, set[Any]]] = []
        for name in self.faces:
            places: set[Any] = {
                (r.call, i) for r in self.readers.values() for i, made in r.origins.items() if name in made
            }
            if name == OBS:  # what an encoder makes of it, such as a category's zeros and ones, is its units
                found[name] = {p: torch.arange(self.readers[p[0]].features(p[1])) for p in places}
            elif places := places | {
                later for later, face in self.faces.items() if face.origins == {name} and not face.is_output
            }:
                together.append((name, places))
        before = self._base
        for names in _apart(together):
            codes = {name: self._codes(self.faces[name].units) for name in names}
            after = self._seen(before, {n: _change(self.faces[n].axis, codes[n]) for n in names}, {})
            for name in names:
                found[name] = {}
                for place in dict(together)[name]:
                    found[name][place] = self._decoded(name, place, before, after)
        return found

    def _decoded(self, name: str, place: Any, before: "_Seen", after: "_Seen") -> Tensor:
        """The unit of a face at each feature of an operand, or at each unit of a later face."""
        units = self.faces[name].units
        if isinstance(place, str):
            face = self.faces[place]
            decoded = _decoded(face.by_unit(before.faces[place] != after.faces[place]), units)
            if decoded is None and face.units == units:  # such as a softmax, or the largest of some
                return torch.arange(units)
            what = repr(place)
        else:
            reading, operand = self.readers[place[0]], place[1]
            decoded = _decoded(reading.by_feature(operand, before.operands[place] != after.operands[place]), units)
            what = f"what {reading.name} reads"
        if decoded is None:
            raise HookError(
                f"the units of {name!r} are mixed by something that is no sum on the way to {what}, so they can't be "
                "told apart there; name a hook point in between."
            )
        return decoded

    def _rows_made(self) -> dict[tuple[int, str], Tensor]:
        """For each reader with weights and each face that its result reaches: int64 `[R]`, the unit that each row
        makes, -1 for none."""
        dense = {r.call: r for r in self.readers.values() if r.dense and r.dests}
        found: dict[tuple[int, str], Tensor] = {}
        before = self._base
        for calls in _apart([(call, set(reading.dests)) for call, reading in dense.items()]):
            axes = {call: dense[call].row_axis for call in calls}
            counts = {call: dense[call].out.shape[axes[call]] for call in calls}
            codes = {call: self._codes(counts[call]) for call in calls}
            after = self._seen(before, {}, {call: _change(axes[call], codes[call]) for call in calls})
            for call in calls:
                for name in dense[call].dests:
                    changed = before.faces[name] != after.faces[name]
                    made_by = _decoded(self.faces[name].by_unit(changed), counts[call])
                    if made_by is None:
                        made_by = self._row_most_felt(dense[call], self.faces[name], counts[call])
                    rows = torch.full((counts[call],), -1)
                    units = torch.arange(len(made_by))
                    rows[made_by[made_by >= 0]] = units[made_by >= 0]
                    found[call, name] = rows
        return found

    def _row_most_felt(self, reading: "_Reading", face: "_Face", rows: int) -> Tensor:
        """The row that moves each unit most, where a norm lets every row move each a little."""
        before = self._seen(_Seen(rows), {}, {})
        one_each = torch.eye(rows, dtype=torch.bool)
        after = self._seen(before, {}, {reading.call: _change(reading.row_axis, one_each, nudge=True)})
        moved = (after.faces[face.name] - before.faces[face.name]).abs()
        made_by = face.by_unit(moved).argmax(0)  # of [rows, units]
        if len(made_by.unique()) < len(made_by):
            raise HookError(
                f"the units of {face.name!r} are mixtures of what {reading.name} gives, so no edge can be told from "
                "another; name a hook point right after it."
            )
        return made_by

    def _codes(self, units: int) -> Tensor:
        """Which units are changed in each run of the base's batch; no unit in the runs too many."""
        codes = _codes(units)
        return torch.cat([codes, codes.new_zeros(self._batch - len(codes), units)])

    @cached_property
    def _batch(self) -> int:
        """Copies of the state that have a code each, whichever is the widest thing to be told apart."""
        widths = [face.units for name, face in self.faces.items() if name != OBS]
        widths += [r.out.shape[r.row_axis] for r in self.readers.values() if r.dense]
        return len(_codes(max(widths, default=1)))

    @cached_property
    def _base(self) -> "_Seen":
        return self._seen(_Seen(self._batch), {}, {})

    def _seen(self, held: "_Seen", at_faces: Mapping[str, "Change"], at_operations: Mapping[int, "Change"]) -> "_Seen":
        """The agent on copies of the state, every face held at what `held` saw there (if it saw anything), and changed
        at some faces or in the results of some operations."""
        batch, state = held.batch, _rows(self.state, held.batch)
        for place, _ in leaves(self.state):
            if change := at_faces.get(_state_name(place)):
                state = _with_leaf(state, place, change)
        seen = _Seen(held.batch)

        def at_point(value: Tensor, site: Site) -> Tensor | None:
            name = _face_name(site)
            seen.faces[name] = value.clone()
            value = held.faces.get(name, value)
            return at_faces[name](value) if name in at_faces else value.clone()

        def at_operation(operation: Operation) -> Any:
            if operation.index in self.readers:
                for i, value in operation.operands.items():
                    seen.operands[operation.index, i] = value.clone()
            out = operation.plain()
            return at_operations[operation.index](out) if operation.index in at_operations else out

        first = None if self.first is None else _rows(self.first, batch)
        hooks = {point: at_point for point in self.points}
        mode = Operations(at_operation)
        with evaluating(self.agent), hooked(self.agent, hooks), mode:
            out = self.agent.step(_rows(self.obs, batch), state, first)
        if mode.count != self.count:
            raise HookError(
                f"the agent computes in different ways from time to time ({self.count} operations in one step, "
                f"{mode.count} in the next, of equal observations), so its graph can't be told."
            )
        for head in _HEADS:
            if getattr(out, head) is not None:
                seen.faces[f"{head}{_OUTPUT}"] = getattr(out, head)
        return seen


class _Face:
    """What was seen at a hook point, of the state, or of the output."""

    def __init__(
        self, name: str, value: Tensor, origins: frozenset[str], pending: frozenset[int], axis: int | None = None
    ):
        self.name, self.origins, self.pending = name, origins, pending
        spatial = axis is not None and axis != -1
        self.axis = axis if spatial and axis is not None else None
        """Of the units; None where all entries are units."""
        self.units = int(value.shape[self.axis] if self.axis is not None else value[0].numel())

    @property
    def is_output(self) -> bool:
        return self.name.endswith(_OUTPUT)

    def by_unit(self, of_entries: Tensor) -> Tensor:
        """`[N, units]`: the largest over a unit's places, of values like this face's."""
        if self.axis is None:
            return of_entries.reshape(len(of_entries), -1)[:, : self.units] if of_entries.dim() else of_entries
        return of_entries.movedim(self.axis, 1).flatten(2).amax(2)


class _Reading:
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


class _Seen:
    """The values of one run, of a batch of copies of a state."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.faces: dict[str, Tensor] = {}
        self.operands: dict[tuple[int, int], Tensor] = {}


def _codes(units: int) -> Tensor:
    """bool `[2 D, units]`: which units are changed in each run: those with a binary digit, then those without it."""
    digits = max(1, (units - 1).bit_length())
    ones = (torch.arange(units)[None] >> torch.arange(digits)[:, None]) & 1 == 1
    return torch.cat([ones, ~ones])


def _decoded(changed: Tensor, units: int) -> Tensor | None:
    """int64 `[N]` from bool `[2 D, N]`: the unit with which each changed, -1 if none did; None if one changed with
    several."""
    with_digit, without = changed[: len(_codes(units))].chunk(2)
    found = (with_digit.long() << torch.arange(len(with_digit))[:, None]).sum(0)
    none = ~changed.any(0)
    if not ((with_digit ^ without).all(0) | none).all():
        return None
    return torch.where(none | (found >= units), -1, found)


def _change(axis: int | None, codes: Tensor, nudge: bool = False) -> "Change":
    """A function that puts other numbers into those units of a value `[N, ...]` that `codes [N, units]` names for
    each: far from what was there, or a little larger."""

    def change(value: Tensor) -> Tensor:
        if axis is None:
            chosen = codes.reshape(value.shape)
        else:
            shape = [1] * value.dim()
            shape[next(i for i, size in enumerate(value.shape) if size == len(codes))] = len(codes)
            shape[axis] = codes.shape[1]
            chosen = codes.reshape(shape)
        if nudge:
            return torch.where(chosen, value + 0.01 * (value.std() + 0.1), value)
        # Numbers that no value has, small enough for a sigmoid to tell them apart.
        other = value.abs().amax() + 1 + torch.rand(value.shape, generator=torch.Generator().manual_seed(0))
        return torch.where(chosen, other.to(value), value)

    return change


def _apart(items: Sequence[tuple[Any, set[Any]]]) -> list[list[Any]]:
    """Names in as few rounds as it takes for no two of a round to share one of their places."""
    rounds: list[tuple[list[Any], set[Any]]] = []
    for name, places in items:
        free = next((each for each in rounds if not each[1] & places), None)
        if free is None:
            rounds.append(free := ([], set()))
        free[0].append(name)
        free[1].update(places)
    return [names for names, _ in rounds]


def _look(value: Tensor, site: Site) -> None:
    return None


def _face_name(site: Site) -> str:
    return site.name if site.time == 0 else f"{site.name}[{site.time}]"


def _state_name(place: tuple[Any, ...]) -> str:
    return ".".join(["state", *map(str, place)])


def _through(units: Tensor, onward: Tensor) -> Tensor:
    """Units of units, -1 staying -1."""
    return torch.where(units < 0, -1, onward[units.clamp(min=0)])


def _rows(tree: Any, count: int) -> Any:
    """The first element of a batch, `count` times."""
    return tree_map(lambda leaf: leaf[:1].expand(count, *leaf.shape[1:]).clone(), tree)


def _with_leaf(tree: Any, place: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> Any:
    if not place:
        return change(tree)
    key, rest = place[0], place[1:]
    if isinstance(tree, Mapping):
        return {k: _with_leaf(v, rest, change) if k == key else v for k, v in tree.items()}
    values = [_with_leaf(v, rest, change) if i == key else v for i, v in enumerate(tree)]
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)


def _tensors(whole: Any) -> Iterator[Tensor]:
    if isinstance(whole, Tensor):
        yield whole
    elif isinstance(whole, Mapping):
        for value in whole.values():
            yield from _tensors(value)
    elif isinstance(whole, tuple | list):
        for value in whole:
            yield from _tensors(value)


def _named(links: Sequence[Link]) -> list[Link]:
    """The links with names of their own: `conv1.post -> conv2.post`."""
    named: dict[str, Link] = {}
    for link in links:
        name = f"{link.source} -> {link.dest}"
        count = sum(each == name or each.startswith(name + " #") for each in named)
        name = name if count == 0 else f"{name} #{count + 1}"
        named[name] = replace(link, name=name)
    return list(named.values())
