"""Reading and changing values inside an agent, by name.

`run_with_cache` reads, `run_with_hooks` changes, `hooked` does either around code of your own. They
place PyTorch forward hooks for the length of one call, so any module works unedited and an idle
agent pays nothing.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State, evaluating, replaced_methods
from rl_interp.core.errors import HookError, unknown
from rl_interp.core.parts import part, path_of, with_part

_PHASE: ContextVar[str] = ContextVar("phase", default="act")
_TICK: ContextVar[int] = ContextVar("tick", default=0)
_MARK = "_rl_interp_hook"
_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)


def inside_hook() -> bool:
    """Whether a hook is running: what is computed now is its work, and not the agent's."""
    return _INSIDE.get()


@dataclass(frozen=True)
class Site:
    """Where and when a hook fires: the point's name, its `HookPoint`, the time index within the call
    and the phase (`act`, `observe`, `imagine`, `denoise`). `time` counts a point's calls within each phase.

    Where an agent computes a point several times in one time, as a DRC in its ticks or a diffusion in its denoising
    steps, `tick` says which of them it is, from 0, and `time` counts on once they are over.
    """

    name: str
    point: HookPoint
    time: int
    phase: str
    tick: int = 0


Hook = Callable[[Tensor, Site], Tensor | None]
"""`hook(value, site)` returns the value to go on with, or None to leave it as it is. What it is given and what it
returns may be kept: neither is written into afterwards, whatever in-place operations the agent uses."""


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Declare, inside an agent, which phase the enclosed computation belongs to."""
    token = _PHASE.set(name)
    try:
        yield
    finally:
        _PHASE.reset(token)


@contextmanager
def tick(number: int) -> Iterator[None]:
    """Declare, inside an agent, which of a time's repetitions the enclosed computation is, from 0: a DRC's tick, or a
    denoising step."""
    token = _TICK.set(number)
    try:
        yield
    finally:
        _TICK.reset(token)


class Cache(Mapping[str, Tensor]):
    """What `run_with_cache` kept: `cache[name]`, or `cache[name, phase]` where a point fired in several.

    A point called once gives its value; a recurrent point, or one called several times, gives the
    values stacked along a new leading axis T, in order of `Site.time`; a point with ticks along T and N, `Site.tick`.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[Tensor]] = {}
        self._points: dict[str, HookPoint] = {}
        self._ticks: dict[tuple[str, str], int] = {}

    def record(self, value: Tensor, site: Site) -> None:
        key = site.name, site.phase
        self._points[site.name] = site.point
        self._values.setdefault(key, []).append(value)
        self._ticks[key] = max(self._ticks.get(key, 0), site.tick + 1)

    def phases(self, name: str) -> list[str]:
        """The phases in which the point fired."""
        return [phase_name for point, phase_name in self._values if point == name]

    def __getitem__(self, key: str | tuple[str, str]) -> Tensor:
        name, asked = (key, None) if isinstance(key, str) else key
        phases = self.phases(name)
        if not phases or (asked is not None and asked not in phases):
            raise KeyError(unknown("cached point", key, [f"{n} ({p})" for n, p in self._values]))
        if asked is None and len(phases) > 1:
            raise HookError(f"{name!r} fired in the phases {phases}; ask for one as cache[{name!r}, {phases[0]!r}].")
        values, ticks = self._values[name, asked or phases[0]], self._ticks[name, asked or phases[0]]
        if len(values) == 1 and self._points[name].kind != "recurrent":
            return values[0]
        if len(shapes := {tuple(value.shape) for value in values}) > 1:
            raise HookError(
                f"{name!r} was computed {len(values)} times with other shapes ({', '.join(map(str, sorted(shapes)))}), "
                "which can't be stacked; name points on the modules around it, or keep its values with a hook."
            )
        stacked = torch.stack(values)
        return stacked.unflatten(0, (-1, ticks)) if self._points[name].has_ticks else stacked

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


@contextmanager
def hooked(agent: Agent, hooks: Mapping[str, Hook | Sequence[Hook]]) -> Iterator[Callable[[], None]]:
    """Place hooks on an agent for the length of a `with` block; several hooks at a point compose in order. Modules
    stay in the mode, training or evaluation, that they are in.

    Yields:
        A function that raises the `HookError` of a hook that has not fired yet, for blocks that go on for long.

    Raises:
        HookError: an unknown name, a point whose value is no tensor or is not there, a hook that changes shape, dtype
            or device, or one that had not fired when the block ended.
    """
    modules = dict(agent.named_modules(remove_duplicate=False))
    placed: list[_Placed] = []

    def require_fired() -> None:
        if silent := [each for each in placed if not each.fired]:
            names = [each.name for each in silent]
            raise HookError(f"the hooks at {names} never fired: {_why_silent(agent, silent)}.")

    try:
        for name, given in hooks.items():
            point = hook_point(agent, name)
            if point.path not in modules:
                raise HookError(f"hook point {name!r} names {point.path!r}, which is no submodule of the agent.")
            chain = (given,) if callable(given) else tuple(given)
            placed.append(_Placed(name, point, chain, modules[point.path]))
        with _calls_counted(agent, placed):
            yield require_fired
        require_fired()
    finally:
        for each in placed:
            each.remove()


def run_with_hooks(
    agent: Agent,
    obs: Tensor,
    state: State = None,
    *,
    hooks: Mapping[str, Hook | Sequence[Hook]],
    first: Tensor | None = None,
    actions: Tensor | None = None,
    unroll: bool = False,
) -> PolicyOutput:
    """Run one `step` (`obs [B, ...]`) or, with `unroll=True`, a segment (`obs [T, B, ...]`, and its `actions [T, B]`
    for agents that look at their own) under hooks.

    `state=None` starts from the agent's initial state. Raises as `hooked` does. Gradients follow the
    caller's `torch.no_grad` or `torch.enable_grad`. All modules are in evaluation mode meanwhile; to train
    under hooks, use `hooked`.
    """
    if not isinstance(obs, Tensor):
        raise HookError(f"obs is a {type(obs).__name__}; give a tensor, such as torch.from_numpy(obs).")
    if state is None:
        state = agent.initial_state(obs.shape[1] if unroll else obs.shape[0])
    with evaluating(agent), hooked(agent, hooks):
        return agent.unroll(obs, state, first, actions) if unroll else agent.step(obs, state, first)


def run_with_cache(
    agent: Agent,
    obs: Tensor,
    state: State = None,
    *,
    names: Sequence[str],
    hooks: Mapping[str, Hook | Sequence[Hook]] | None = None,
    first: Tensor | None = None,
    actions: Tensor | None = None,
    unroll: bool = False,
) -> tuple[PolicyOutput, Cache]:
    """Run as `run_with_hooks` does and keep the values at `names`, after any `hooks` at the same point.

    Values are kept as they were when they were computed. Where gradients are on they are attached to the graph, and
    the gradient with respect to one is that of an intervention there. `names` must not be empty: nothing is cached by
    accident.
    """
    if isinstance(names, str) or not names:
        raise HookError(f"names={names!r} given; name the points to keep as a list, from {sorted(agent.hook_points)}.")
    cache = Cache()
    chains = {name: (given,) if callable(given) else tuple(given) for name, given in (hooks or {}).items()}
    for name in dict.fromkeys(names):
        chains[name] = (*chains.get(name, ()), cache.record)
    return run_with_hooks(agent, obs, state, hooks=chains, first=first, actions=actions, unroll=unroll), cache


def hook_point(agent: Agent, name: str) -> HookPoint:
    """The agent's hook point of that name; a `HookError` lists the known ones if there is none."""
    if name not in agent.hook_points:
        raise HookError(unknown("hook point", name, agent.hook_points))
    return agent.hook_points[name]


def last_layer(agent: Agent) -> str:
    """The hook point to begin with: `fc.post`; in an agent without one, the last layer that feeds its preferences.

    Raises:
        HookError: there is none of these.
    """
    feeding = [name for name, point in agent.hook_points.items() if point.head]
    name = "fc.post" if "fc.post" in agent.hook_points or not feeding else feeding[-1]
    hook_point(agent, name)
    return name


def assert_unhooked(agent: nn.Module) -> None:
    """Raise `HookError` if a hook of this suite was left behind on the agent."""
    for path, module in agent.named_modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if hasattr(hook, _MARK):
                raise HookError(
                    f"hook {getattr(hook, _MARK)!r} is still on {path or 'the agent'!r}: leave its `with` block first."
                )


@contextmanager
def _calls_counted(agent: Agent, placed: Sequence["_Placed"]) -> Iterator[None]:
    """Points of one call of a module count its calls from the start of each `step` or `unroll` on."""
    counting = [each for each in placed if each.point.call is not None]
    if not counting:
        yield
        return

    def announced(decide: Callable[..., PolicyOutput]) -> Callable[..., PolicyOutput]:
        def announcing(*args: Any, **named: Any) -> PolicyOutput:
            for each in counting:
                each.module_calls.clear()
            return decide(*args, **named)

        return announcing

    with replaced_methods(agent, **{name: announced(getattr(agent, name)) for name in ("step", "unroll")}):
        yield


class _Placed:
    """A chain of hooks at one point, on the module that computes it."""

    def __init__(self, name: str, point: HookPoint, chain: tuple[Hook, ...], module: nn.Module):
        self.name, self.point, self.chain = name, point, chain
        self.element = path_of(point.element)
        self.calls: dict[tuple[str, int], int] = {}
        """By phase and tick, how often the hooks have fired."""
        self.module_calls: dict[str, int] = {}
        """By phase, how often the module was called in this step."""
        self.most_calls = 0
        if point.side == "output":

            def on_output(module, args, output):
                return self._apply_within(output)

            setattr(on_output, _MARK, name)
            self.handle = module.register_forward_hook(on_output)
        else:

            def on_input(module, args, named):
                return self._apply_to_input(module, args, named)

            setattr(on_input, _MARK, name)
            self.handle = module.register_forward_pre_hook(on_input, with_kwargs=True)

    @property
    def fired(self) -> bool:
        return bool(self.calls)

    def _apply_within(self, whole: Any) -> Any:
        """What a module gave, or was given, with the point's part of it under the hooks; None if nothing changes."""
        now = _PHASE.get()
        if self.point.phase not in (None, now) or self.point.tick not in (None, _TICK.get()):
            return None
        call = self.module_calls.get(now, 0)
        self.module_calls[now] = call + 1
        self.most_calls = max(self.most_calls, call + 1)
        if self.point.call not in (None, call):
            return None
        new = self._over_time(part(whole, self.element, self.name))
        return None if new is None else with_part(whole, self.element, new)

    def _over_time(self, value: Tensor) -> Tensor | None:
        """A sequence goes through the hooks time by time, as if the module had been called for each."""
        axes = self.point.axes.split()
        if self.point.kind != "recurrent" or value.dim() != len(axes):
            return self.apply(value)
        times = value.unbind(axes.index("T"))
        changed = [self.apply(each) for each in times]
        if all(new is None for new in changed):
            return None
        kept = [old if new is None else new for old, new in zip(times, changed, strict=True)]
        return torch.stack(kept, axes.index("T"))

    def apply(self, value: Tensor) -> Tensor | None:
        """What to go on with; None if that is the value itself."""
        now = _PHASE.get(), _TICK.get()
        site = Site(self.name, self.point, self.calls.get(now, 0), *now)
        self.calls[now] = site.time + 1
        # Hooks see a copy, as the value's own memory may be written into later: by an in-place operation after the
        # module, through another name for its input, or in its next call.
        token = _INSIDE.set(True)
        try:
            return self._through_chain(value.clone(), site)
        finally:
            _INSIDE.reset(token)

    def _through_chain(self, given: Tensor, site: Site) -> Tensor | None:
        value = given
        for hook in self.chain:
            new = hook(value, site)
            if new is None:
                continue
            if (new.shape, new.dtype, new.device) != (value.shape, value.dtype, value.device):
                raise HookError(
                    f"the hook at {self.name!r} returned {_describe(new)} for {_describe(value)}; "
                    "it must keep shape, dtype and device."
                )
            value = new
        if value is given and not (given.requires_grad or _written(given)):
            return None
        return value.clone()  # for the same reason; and gradients with respect to what was seen pass through it

    def _apply_to_input(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The module's arguments to go on with, its first one under the hooks, however the caller passed it."""
        if args:
            new = self._apply_within(args[0])
            return None if new is None else ((new, *args[1:]), named)
        first = next(iter(inspect.signature(module.forward).parameters), "")
        if first not in named:
            raise HookError(
                f"hook point {self.name!r} is the input of {self.point.path!r}, which was called without one "
                f"(keywords: {', '.join(named) or 'none'}); name the output of the module before it."
            )
        new = self._apply_within(named[first])
        return None if new is None else (args, named | {first: new})

    def remove(self) -> None:
        self.handle.remove()


def _why_silent(agent: Agent, silent: Sequence[_Placed]) -> str:
    for each in silent:
        if each.most_calls:
            return (
                f"{each.point.path!r} is called {each.most_calls} times in a step, so it has no call "
                f"{each.point.call} (the first is 0)"
            )
    calls = (getattr(agent, name) for name in ("step", "unroll"))
    compiled = any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in agent.modules())
    if compiled or any(hasattr(call, "_torchdynamo_orig_callable") for call in calls):
        return (
            "torch.compile made the code that ran, without hooks; open the original module (`module._orig_mod`, or the "
            "one that was given to torch.compile)"
        )
    return "the code that ran does not pass through these points"


def _written(copy: Tensor) -> bool:
    """Whether something was written into a fresh copy; inference mode does not count, so there it may have been."""
    return copy.is_inference() or copy._version > 0


def _describe(value: Tensor) -> str:
    return f"{value.dtype} {tuple(value.shape)} on {value.device}"
