"""Interventions: named changes of the value at a hook point, composed in order.

Each is a hook with a config, used alike by `run_with_hooks` on recorded states and by `evaluate` in
closed loop. `units` limits an intervention to some indices of the point's feature axis (channels of
a convolution, neurons of a layer); None means all of them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rl_interp.core.agent import Agent
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import Hook, Site, hooked

Units = Sequence[int] | None


@dataclass(frozen=True)
class Intervention:
    """Base class: `at` names the hook point; calling it with `(value, site)` returns the new value."""

    at: str

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        raise NotImplementedError

    def hooks(self) -> dict[str, Hook]:
        """The hooks to place, by hook point: itself at `at`, and others where it reads further points."""
        return {self.at: self}

    def around(self, agent: Agent) -> AbstractContextManager[None]:
        """What else holds while the agent decides, for interventions that hooks alone can't make."""
        return nullcontext()

    @property
    def name(self) -> str:
        """Short description, e.g. `zero(fc.post)`."""
        return f"{type(self).__name__.lower()}({self.at})"

    def config(self) -> dict[str, Any]:
        """Plain values that describe it; tensors are described by their shape."""
        return {"kind": type(self).__name__.lower()} | {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class Zero(Intervention):
    """Set to zero."""

    units: Units = None

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        return _replace(value, torch.zeros_like(value), self.units, site)


@dataclass(frozen=True)
class Mean(Intervention):
    """Replace by a mean over a data set: `mean` has the value's shape without its batch axis, or `[features]`."""

    mean: Tensor = field(kw_only=True)
    units: Units = None

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        mean = self.mean if self.mean.shape == value.shape[1:] else _along_features(self.mean, value, site)
        return _replace(value, mean.to(value).expand_as(value), self.units, site)


@dataclass(frozen=True)
class Resample(Intervention):
    """Replace each sample by a random one of `bank [N, ...]`, drawn anew at each call from `generator`."""

    bank: Tensor = field(kw_only=True)
    generator: torch.Generator = field(kw_only=True)
    units: Units = None

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        if self.bank.shape[1:] != value.shape[1:]:
            raise HookError(
                f"{self.name} has a bank of samples {tuple(self.bank.shape[1:])} for values "
                f"{tuple(value.shape[1:])}; collect it at the same hook point."
            )
        drawn = torch.randint(len(self.bank), (len(value),), generator=self.generator)
        return _replace(value, self.bank[drawn].to(value), self.units, site)


@dataclass(frozen=True)
class Clamp(Intervention):
    """Set the given units to `value`, at every position."""

    units: Units = field(kw_only=True)
    value: float = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        return _replace(value, torch.full_like(value, self.value), self.units, site)


@dataclass(frozen=True)
class Scale(Intervention):
    """Multiply the given units by `factor`, at every position."""

    units: Units = field(kw_only=True)
    factor: float = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        return _replace(value, self.factor * value, self.units, site)


def parse_clamp(text: str) -> Clamp:
    """`HOOK:UNIT=VALUE`, such as `deter:12=0.9`.

    Raises:
        UserError: it is not of that form.
    """
    match = re.fullmatch(r"(.+):(\d+)=(-?\d+(?:\.\d+)?)", text)
    if not match:
        raise UserError(f"clamp {text!r} given; it has the form HOOK:UNIT=VALUE, such as deter:12=0.9.")
    return Clamp(match[1], units=[int(match[2])], value=float(match[3]))


@dataclass(frozen=True)
class Add(Intervention):
    """Add `scale · direction`: `direction [features]` at every position, or one of the value's own shape, with or
    without its batch axis."""

    direction: Tensor = field(kw_only=True)
    scale: float = 1.0

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        whole = self.direction.shape in (value.shape, value.shape[1:])
        direction = self.direction.to(value) if whole else _along_features(self.direction, value, site)
        return value + self.scale * direction


@dataclass(frozen=True)
class Patch(Intervention):
    """Replace by a value from another run, of the same shape."""

    source: Tensor = field(kw_only=True)
    units: Units = None

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        if self.source.shape != value.shape:
            raise HookError(
                f"{self.name} has a source {tuple(self.source.shape)} for a value {tuple(value.shape)}; "
                "run both on batches of the same shape."
            )
        return _replace(value, self.source.to(value), self.units, site)


@dataclass(frozen=True)
class Splice(Intervention):
    """Pass the features through `reconstruct [N, features] -> [N, features]`, e.g. a sparse autoencoder."""

    reconstruct: Callable[[Tensor], Tensor] = field(kw_only=True)
    label: str = "splice"

    @property
    def name(self) -> str:
        return f"{self.label}({self.at})"

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        return _from_rows(self.reconstruct(_rows(value, site)), value, site)


@dataclass(frozen=True)
class Transcode(Intervention):
    """Replace by what `predict [N, features there] -> [N, features]` makes of the value at an earlier hook point,
    `source`, in the same forward pass, e.g. a transcoder.

    Where both points have the same positions, each is predicted from its own; else a sample is from the source's whole
    value, flattened.
    """

    source: str = field(kw_only=True)
    predict: Callable[[Tensor], Tensor] = field(kw_only=True)
    label: str = "transcoder"

    @property
    def name(self) -> str:
        return f"{self.label}({self.source} -> {self.at})"

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        raise HookError(f"{self.name} is at two hook points; place it with as_hooks([...]).")

    def hooks(self) -> dict[str, Hook]:
        read: list[tuple[Tensor, Site]] = []

        def on_source(value: Tensor, site: Site) -> None:
            read[:] = [(value, site)]

        def on_target(value: Tensor, site: Site) -> Tensor:
            if not read:
                raise HookError(f"{self.name}: {self.source!r} must have a new value each time before {self.at!r} has.")
            given, there = read.pop()
            rows, wanted = _rows(given, there), value.numel() // value.shape[site.point.feature_axis]
            return _from_rows(self.predict(rows if len(rows) == wanted else given.flatten(1)), value, site)

        return {self.source: on_source, self.at: on_target}


@dataclass(frozen=True)
class During(Intervention):
    """An intervention limited to one phase, to some times or to some ticks: `During(Clamp(...), phase="imagine",
    times=[3])` clamps at the fourth imagined step, `During(Clamp(...), ticks=[0])` at the first tick of every step.
    Times and ticks are those of `Site`."""

    at: str = field(init=False)
    inner: Intervention
    phase: str | None = None
    times: Sequence[int] | None = None
    ticks: Sequence[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", self.inner.at)

    @property
    def name(self) -> str:
        limits = "".join(
            f" at {what} {list(numbers)}"
            for what, numbers in (("times", self.times), ("ticks", self.ticks))
            if numbers is not None
        )
        return f"{self.inner.name} during {self.phase or 'every phase'}{limits}"

    def config(self) -> dict[str, Any]:
        times, ticks = (None if each is None else list(each) for each in (self.times, self.ticks))
        config = self.inner.config() | {"phase": self.phase, "times": times}
        return config if ticks is None else config | {"ticks": ticks}

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        new = self._apply(self.inner, value, site)
        return value if new is None else new

    def hooks(self) -> dict[str, Hook]:
        return {point: partial(self._apply, hook) for point, hook in self.inner.hooks().items()}

    def _apply(self, hook: Hook, value: Tensor, site: Site) -> Tensor | None:
        limits = ((self.times, site.time), (self.ticks, site.tick))
        within = self.phase in (None, site.phase) and all(only is None or now in only for only, now in limits)
        return hook(value, site) if within else None


@contextmanager
def intervened(agent: Agent, interventions: Sequence[Intervention]) -> Iterator[Callable[[], None]]:
    """The agent under interventions, composed in order, for the length of a `with` block; yields and raises as `hooked`
    does."""
    with ExitStack() as stack:
        for intervention in interventions:
            stack.enter_context(intervention.around(agent))
        yield stack.enter_context(hooked(agent, as_hooks(interventions)))


def as_hooks(interventions: Sequence[Intervention]) -> dict[str, list[Hook]]:
    """Group interventions by hook point, in order, for `run_with_hooks`."""
    hooks: dict[str, list[Hook]] = {}
    for intervention in interventions:
        for point, hook in intervention.hooks().items():
            hooks.setdefault(point, []).append(hook)
    return hooks


def _rows(value: Tensor, site: Site) -> Tensor:
    """`[N, features]`: a row for each position of each sample."""
    features_last = value.movedim(site.point.feature_axis, -1)
    return features_last.reshape(-1, features_last.shape[-1])


def _from_rows(rows: Tensor, value: Tensor, site: Site) -> Tensor:
    """`rows`, as `_rows` gives them, in the form of `value`."""
    features_last = value.movedim(site.point.feature_axis, -1)
    if rows.numel() != value.numel():
        raise HookError(
            f"{tuple(rows.shape)} was given for {site.name!r}, which has {features_last.shape[-1]} features at "
            f"{value.numel() // features_last.shape[-1]} places."
        )
    return rows.to(value.dtype).reshape(features_last.shape).movedim(-1, site.point.feature_axis)


def _along_features(vector: Tensor, value: Tensor, site: Site) -> Tensor:
    axis = site.point.feature_axis
    if vector.shape != (value.shape[axis],):
        raise HookError(
            f"a vector {tuple(vector.shape)} was given for {site.name!r}, which has {value.shape[axis]} features."
        )
    shape = [1] * value.dim()
    shape[axis] = -1
    return vector.to(value).reshape(shape)


def _replace(value: Tensor, new: Tensor, units: Units, site: Site) -> Tensor:
    if units is None:
        return new.clone()  # which the next hook may write into: never the source of a patch, nor an expanded mean
    axis, width = site.point.feature_axis, value.shape[site.point.feature_axis]
    outside = [unit for unit in units if not 0 <= unit < width]
    if outside:
        raise HookError(f"units {outside} were given for {site.name!r}, which has units 0 to {width - 1}.")
    index = torch.as_tensor(list(units), dtype=torch.int64, device=value.device)
    return value.index_copy(axis, index, new.index_select(axis, index))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)}"
    if isinstance(value, str | int | float | None):
        return value
    return list(value) if isinstance(value, Sequence) else type(value).__name__
