"""What an agent decides without one unit at a time, for all units of a layer.

Only what comes after the layer is computed again, for many units at once. Where a linear layer or a convolution alone
reads the layer, what it gives changes by one unit's column of its weights times the change of that unit; the rest of
its products stay as they were and are not computed again either.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent, HookPoint, evaluating
from rl_interp.core.check_agent import alike
from rl_interp.core.errors import HookError
from rl_interp.core.gradients import gradient
from rl_interp.core.hooks import hook_point
from rl_interp.core.partial_forward import PartialForward

_FLOATS = 1 << 20
"""Numbers that the layer after the cut gives in one run: few enough to stay in the cache."""


@dataclass(frozen=True)
class PartialPasses:
    """What a computation cost, in forward passes of one state, some of which begin in the middle of the agent."""

    count: float = 0
    """Every run counts as one, also one that begins in the middle."""
    arithmetic: float = 0
    """A run counts by its share of the products and sums of a whole one."""

    def __add__(self, other: "PartialPasses") -> "PartialPasses":
        return PartialPasses(self.count + other.count, self.arithmetic + other.arithmetic)

    def __mul__(self, times: float) -> "PartialPasses":
        return PartialPasses(self.count * times, self.arithmetic * times)


class Ablations:
    """An agent in some states, with units of one hook point replaced.

    The memory that a recurrent agent brought into a state is as it was: a unit is replaced in this step alone.

    Raises:
        HookError: no such hook point, or one that can't be run again from, such as the output of an `nn.LSTM`.
    """

    def __init__(self, agent: Agent, states: States, at: str):
        self.agent, self.states, self.at = agent, states, at
        point = hook_point(agent, at)
        self._from_unit = PartialForward(agent, states.obs, at, states.memory)
        self.values = self._from_unit.values
        """`[N, ...]`: as they are."""
        self.axis = point.feature_axis
        """The axis of units, from the end."""
        self.units = self.values.shape[self.axis]
        """How many there are."""
        self.preferences = self._from_unit(self.values).preferences
        """`[N, A]`: as they are."""
        self._reader = self._find_reader(point)

    def without(self, units: Tensor, new: Tensor, rows: Tensor | None = None) -> Tensor:
        """`[U, R, A]`: the preferences with each of the `units [U]` alone replaced, in the states `rows [R]`, or in
        all. Gradients reach `new` where it requires some.

        Args:
            new: what is put in the units' place: a constant `[...]` of one value's shape, or a value for each of all
                the states, `[N, ...]`.
        """
        rows = torch.arange(len(self.values), device=self.values.device) if rows is None else rows
        new = new[None] if new.dim() < self.values.dim() else new[rows]
        own = self.values[rows]
        difference = (new - own).movedim(self.axis, 0)[units]  # [U, R, ...]
        return (self._reader or self._recomputed)(units, difference, rows)

    def changed(self, values: Tensor, rows: Tensor) -> Tensor:
        """`[R, A]`: the preferences where the whole layer is `values [R, ...]`, in the states `rows [R]`."""
        return self._from_unit(values, rows).preferences

    def _recomputed(self, units: Tensor, difference: Tensor, rows: Tensor) -> Tensor:
        """The same, from the units' `difference [U, R, ...]`: all that comes after the layer is computed."""
        changed = self.values[rows].expand(len(units), len(rows), *self.values.shape[1:])
        changed = changed.clone(memory_format=torch.preserve_format)
        each = torch.arange(len(units), device=units.device)
        changed.movedim(self.axis, 1)[each, units] += difference
        out = self._from_unit(changed.flatten(0, 1), rows.repeat(len(units)))
        return out.preferences.unflatten(0, (len(units), len(rows)))

    def blocks(self, rows: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All pairs of units and of the states `rows [R]`, or all, in parts that fit the cache: the units of each, and
        the states."""
        rows = torch.arange(len(self.values), device=self.values.device) if rows is None else rows
        after = self.values if self._reader is None else self._reader.base
        most = max(1, _FLOATS // after[0].numel())
        every = torch.arange(self.units, device=self.values.device).split(max(1, most // len(rows)))
        for some in rows.split(min(len(rows), most)):
            yield from ((units, some) for units in every)

    def gradient(self, values: Tensor, action: int, rows: Tensor) -> Tensor:
        """`[R, ...]`: of one action's preference with respect to the layer, where it is `values [R, ...]` in the states
        `rows [R]`; zeros where decisions do not depend on it. Raises `NoGradientError` where they do and the agent
        passes no gradient on."""
        with torch.enable_grad():
            at = values.detach().requires_grad_()
            preference = self.changed(at, rows)[:, action].sum()
        return gradient(preference, at, lambda other: self.changed(other, rows))

    @cached_property
    def passes(self) -> PartialPasses:
        """What one unit replaced in one state costs."""
        one = torch.zeros(1, dtype=torch.int64, device=self.values.device)
        return self._counted(lambda: self.without(one, torch.zeros_like(self.values[0]), one))

    @cached_property
    def passes_of_layer(self) -> PartialPasses:
        """What the whole layer replaced in one state costs."""
        one = torch.zeros(1, dtype=torch.int64, device=self.values.device)
        return self._counted(lambda: self._from_unit(self.values[:1], one))

    def _counted(self, run: Callable[[], object]) -> PartialPasses:
        with evaluating(self.agent), torch.no_grad():
            whole, part = _operations(lambda: self.agent.step(*self._first())), _operations(run)
        return PartialPasses(1, part / whole if whole else 1)

    def _first(self) -> tuple[Tensor, object]:
        state = self.states[:1].memory
        return self.states.obs[:1], self.agent.initial_state(1) if state == () else state

    @torch.no_grad()
    def _find_reader(self, point: HookPoint) -> "_Reader | None":
        """The linear layer that alone turns the point's value into preferences, if one does."""
        if point.side != "output":
            return None
        # Tried with units all over the layer cut in some of the states.
        units, rows = (
            _spread(size, most).to(self.values.device) for size, most in ((self.units, 64), (len(self.values), 4))
        )
        difference = -self.values[rows].movedim(self.axis, 0)[units]
        wanted = self._recomputed(units, difference, rows)
        for path in _layers_on(self.agent, self.states, self.agent.get_submodule(point.path)):
            try:
                reader = _Reader(self, HookPoint(path, "B ..."))
            except HookError:
                continue
            if alike(reader(units, difference, rows), wanted):
                return reader
        return None


class _Reader:
    """The linear layer that reads a hook point: what it gives without a unit, and what follows from that."""

    def __init__(self, whole: Ablations, point: HookPoint):
        self._from_here = PartialForward(whole.agent, whole.states.obs, point, whole.states.memory)
        self.base = self._from_here.values
        """`[N, ...]`: what it gives with all units as they are."""
        self._module = whole.agent.get_submodule(point.path)
        self._shape, self._axis = whole.values.shape[1:], whole.axis

    def __call__(self, units: Tensor, difference: Tensor, rows: Tensor) -> Tensor:
        """`[U, R, A]`, where the units `[U]` differ by `difference [U, R, ...]` in the states `rows [R]`."""
        given = (self.base[rows] + self._change(units, difference)).flatten(0, 1)
        if isinstance(self._module, nn.Conv2d):
            given = given.contiguous(memory_format=torch.channels_last)
        return self._from_here(given, rows.repeat(len(units))).preferences.unflatten(0, (len(units), len(rows)))

    def _change(self, units: Tensor, difference: Tensor) -> Tensor:
        """`[U, R, ...]`: of what the layer gives."""
        weight = self._module.weight
        assert isinstance(weight, Tensor)
        if isinstance(layer := self._module, nn.Conv2d):
            settings: Any = layer.stride, layer.padding, layer.dilation
            pairs = zip(units.tolist(), difference, strict=True)
            return torch.stack([F.conv2d(part[:, None], weight[:, [unit]], None, *settings) for unit, part in pairs])
        if weight.shape[1] == self._shape[self._axis]:  # place by place
            return difference[..., None] * weight.T[units].view(len(units), *(1 for _ in difference.shape[1:]), -1)
        places = torch.arange(weight.shape[1], device=weight.device).view(self._shape)
        columns = places.movedim(self._axis, 0)[units].flatten(1)  # of a flattened value
        return difference.flatten(2) @ weight.T[columns]


def _layers_on(agent: Agent, states: States, source: nn.Module) -> Sequence[str]:
    """Paths of the convolutions and linear layers that are given what a module gives, as it is or flattened."""
    kept: list[Tensor] = []
    found: list[str] = []

    def keep(module: nn.Module, args: tuple, output: object) -> None:
        kept[:] = [output.clone()] if isinstance(output, Tensor) else []

    def compare(path: str) -> Callable[[nn.Module, tuple], None]:
        def comparing(module: nn.Module, args: tuple) -> None:
            given = args[0] if args else None
            if (
                kept
                and isinstance(given, Tensor)
                and any(
                    given.shape == each.shape and torch.equal(given, each) for each in (kept[0], kept[0].flatten(1))
                )
            ):
                found.append(path)

        return comparing

    handles = [source.register_forward_hook(keep)]
    for path, module in agent.named_modules():
        plain = isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
        if plain or isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(compare(path)))
    few = states[:2]
    try:
        with evaluating(agent):
            agent.step(few.obs, few.memory or agent.initial_state(len(few)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _spread(size: int, most: int) -> Tensor:
    """At most so many numbers below `size`, evenly spread."""
    return torch.linspace(0, size - 1, min(size, most)).long()


def _operations(run: Callable[[], object]) -> int:
    """Products and sums of matrix products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, which reads its settings once

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
