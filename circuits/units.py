"""Which unit is at each feature that is read, and which unit each row of weights makes.

With every hook point held at its value but one, that one is changed in one half of its units at a time, as often as
units have binary digits: an operand's features that change in all halves with a unit, and in none without it, are of
that unit. So an agent may lay out, cut up, join and rescale its values as it likes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rl_interp.circuits.follow import HEADS, OBS, OUTPUT, Face, Followed, Reading, face_name, rows, state_name
from rl_interp.circuits.operations import Operation, Operations
from rl_interp.core.agent import evaluating
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import Site, hooked
from rl_interp.core.parts import leaves, with_part

Change = Callable[[Tensor], Tensor]


class Units:
    """Tells units apart, in runs of the agent on copies of the state that was followed."""

    def __init__(self, followed: Followed):
        self.agent, self.points, self.count = followed.agent, followed.points, followed.count
        self.obs, self.state, self.first = followed.obs, followed.state, followed.first
        self.faces, self.readers = followed.faces, followed.readers

    def read(self) -> dict[str, dict[Any, Tensor]]:
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

    def made(self) -> dict[tuple[int, str], Tensor]:
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
                    of_rows = torch.full((counts[call],), -1)
                    units = torch.arange(len(made_by))
                    of_rows[made_by[made_by >= 0]] = units[made_by >= 0]
                    found[call, name] = of_rows
        return found

    def _row_most_felt(self, reading: Reading, face: Face, count: int) -> Tensor:
        """The row that moves each unit most, where a norm lets every row move each a little."""
        before = self._seen(_Seen(count), {}, {})
        one_each = torch.eye(count, dtype=torch.bool)
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
        batch, state = held.batch, rows(self.state, held.batch)
        for place, leaf in leaves(state):
            if change := at_faces.get(state_name(place)):
                state = with_part(state, place, change(leaf))
        seen = _Seen(held.batch)

        def at_point(value: Tensor, site: Site) -> Tensor | None:
            name = face_name(site)
            seen.faces[name] = value.clone()
            value = held.faces.get(name, value)
            return at_faces[name](value) if name in at_faces else value.clone()

        def at_operation(operation: Operation) -> Any:
            if operation.index in self.readers:
                for i, value in operation.operands.items():
                    seen.operands[operation.index, i] = value.clone()
            out = operation.plain()
            return at_operations[operation.index](out) if operation.index in at_operations else out

        first = None if self.first is None else rows(self.first, batch)
        hooks = {point: at_point for point in self.points}
        mode = Operations(at_operation)
        with evaluating(self.agent), hooked(self.agent, hooks), mode:
            out = self.agent.step(rows(self.obs, batch), state, first)
        if mode.count != self.count:
            raise HookError(
                f"the agent computes in different ways from time to time ({self.count} operations in one step, "
                f"{mode.count} in the next, of equal observations), so its graph can't be told."
            )
        for head in HEADS:
            if getattr(out, head) is not None:
                seen.faces[f"{head}{OUTPUT}"] = getattr(out, head)
        return seen

    def roots(self, units: Mapping[str, Mapping[Any, Tensor]]) -> dict[str, Tensor]:
        """For each face: int64 `[units]`, which unit of its node's first face each is."""
        found: dict[str, Tensor] = {}
        for name, face in self.faces.items():
            if face.is_output and face.origins:  # any function of its node: a distribution's mean, say
                continue
            if len(face.origins) == 1 and face.origins != {OBS}:
                (before,) = face.origins
                found[name] = through(units[before][name], found[before])
            elif name == OBS:
                found[name] = torch.arange(max((len(of_unit) for of_unit in units.get(OBS, {}).values()), default=0))
            else:
                found[name] = torch.arange(face.units)
        return found


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


def through(units: Tensor, onward: Tensor) -> Tensor:
    """Units of units, -1 staying -1."""
    return torch.where(units < 0, -1, onward[units.clamp(min=0)])
