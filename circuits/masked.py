"""An agent under a mask: what each reader reads along an edge is what is there, or what a reference puts in its place.

With W a reader's weights, M the mask, x what it reads and r the reference, it gives (W * M) x + (W * (1 - M)) r + b;
a sum or a product unit by unit reads M x + (1 - M) r. With every edge at 1 these are the agent's own numbers, bit for
bit. Everything is differentiable, in the mask and in the reference.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rl_interp.circuits.graph import Graph, Link
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.operations import Operation, Operations, watched
from rl_interp.core.agent import Agent, PolicyOutput, State, evaluating, replaced_methods, step_by_step
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import Hook
from rl_interp.core.interventions import Intervention

Values = Mapping[str, Tensor]
"""What is read along edges that are cut, by the operand's key: like the operand, for each sample (`[B, ...]`) or for
all (`[...]`); zero where a key is missing."""

Reference = Values | Callable[[int], Values]
"""The values themselves, or a function that makes them anew at each step, for a batch of so many."""


def is_constant(reference: Values) -> bool:
    """Whether a reference of many states is the same in all of them: one row of each operand."""
    return all(len(value) == 1 for value in reference.values())


@dataclass
class Passes:
    """How many states an agent was run on, and how often gradients were taken of one."""

    forward: int = 0
    backward: int = 0


_COUNTED: list[Passes] = []


@contextmanager
def counted() -> Iterator[Passes]:
    """Counts the passes that circuits make within a `with` block."""
    passes = Passes()
    _COUNTED.append(passes)
    try:
        yield passes
    finally:
        _COUNTED.remove(passes)


def count_passes(forward: int = 0, backward: int = 0) -> None:
    """Add to what is counted, for code that runs an agent without a mask or takes gradients."""
    for passes in _COUNTED:
        passes.forward += forward
        passes.backward += backward


@contextmanager
def masked(agent: Agent, mask: Mask, reference: Reference | None = None) -> Iterator[None]:
    """`agent.step` and `agent.unroll` run under a mask for the length of a `with` block.

    `unroll` steps through time. Hooks may be placed as well; what they compute is not masked. Raises `HookError` where
    the agent computes in other ways than when its graph was traced.
    """
    graph = mask.graph
    modules = [agent.get_submodule(path) for path in graph.paths]
    plan = _plan(mask)
    step_alone, unroll_alone = agent.step, agent.unroll
    known: _Known = {}

    def step(obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        grad = torch.is_grad_enabled()
        parts = {call: plan.get(i, {}) for call, i in graph.at(grad).items()}
        values = reference(len(obs)) if callable(reference) else reference or {}
        reused = None if grad or callable(reference) else known
        mode = Operations(lambda operation: _read(operation, parts.get(operation.index), values, reused))
        # Agents may step by unrolling a segment of one step.
        with watched(modules), replaced_methods(agent, unroll=unroll_alone), mode:
            out = step_alone(obs, state, first)
        _check(mode.count, graph, grad)
        count_passes(forward=len(obs))
        return out

    with replaced_methods(agent, step=step, unroll=partial(step_by_step, agent)):
        yield


def run_masked(
    agent: Agent, mask: Mask, obs: Tensor, state: State = None, *, reference: Reference | None = None,
    first: Tensor | None = None,
) -> PolicyOutput:  # fmt: skip
    """One step under a mask: `obs [B, ...]`; where there are P masks, B is P times the number of states."""
    state = agent.initial_state(len(obs)) if state is None else state
    with evaluating(agent), masked(agent, mask, reference):
        return agent.step(obs, state, first)


def operands(
    agent: Agent, graph: Graph, obs: Tensor, state: State = None, *, first: Tensor | None = None
) -> tuple[PolicyOutput, dict[str, Tensor]]:
    """A plain step, and what its readers read, by key: `[B, ...]` each."""
    found: dict[str, Tensor] = {}
    grad = torch.is_grad_enabled()
    readers = graph.at(grad)

    def look(operation: Operation) -> Any:
        if operation.index in readers:
            for i, key in graph.readers[readers[operation.index]].operands.items():
                found[key] = _by_sample(operation, operation.operands[i]).detach()
        return operation.plain()

    state = agent.initial_state(len(obs)) if state is None else state
    mode = Operations(look)
    with evaluating(agent), watched([agent.get_submodule(path) for path in graph.paths]), mode:
        out = agent.step(obs, state, first)
    _check(mode.count, graph, grad)
    count_passes(forward=len(obs))
    return out, found


@torch.no_grad()
def terms(agent: Agent, link: Link, graph: Graph, obs: Tensor, state: State = None) -> Tensor:
    """What each edge of a link adds to its sum: `[B, R, units of the source, ...]`, R rows of the reader's weights and
    positions of its result; `[B, ...]`, as it is read, where the link goes unit by unit.

    Over all links that a reader has, they add up to what it gives without its bias. A tensor for each edge and state:
    for few of them.
    """
    found: list[Tensor] = []
    readers = graph.at(False)

    def look(operation: Operation) -> Any:
        if readers.get(operation.index) == link.reader:
            x = _by_sample(operation, operation.operands[link.operand])
            found.append(x.clone() if operation.weight is None else torch.stack(list(by_unit(operation, x)), 2))
        return operation.plain()

    def by_unit(operation: Operation, x: Tensor) -> Iterator[Tensor]:
        assert operation.weight is not None
        for unit in range(graph.nodes[link.source].units):
            read = operation.weights_like((link.units == unit).to(x)[None])
            yield operation.product(x, operation.weight * read, bias=False)

    state = agent.initial_state(len(obs)) if state is None else state
    with evaluating(agent), watched([agent.get_submodule(path) for path in graph.paths]), Operations(look):
        agent.step(obs, state)
    return found[0]


@dataclass(frozen=True)
class Circuit(Intervention):
    """An agent of which only the edges of a mask are left, as an intervention: for `evaluate`, films and saliency."""

    mask: Mask = field(kw_only=True)
    reference: Reference | None = field(default=None, kw_only=True)
    coded: Agent | None = field(default=None, kw_only=True, repr=False)
    """The copy of the agent that the mask is of, with a dictionary's latents (`circuits.latents`); it runs in the
    agent's place."""
    label: str = field(default="circuit", kw_only=True)
    at: str = field(default="the whole agent", init=False)

    @property
    def name(self) -> str:
        return f"{self.label}({self.mask.kept} of {self.mask.graph.edges} edges)"

    def hooks(self) -> dict[str, Hook]:
        return {}

    def around(self, agent: Agent) -> AbstractContextManager[None]:
        return masked(agent, self.mask, self.reference) if self.coded in (None, agent) else self._in_place_of(agent)

    @contextmanager
    def _in_place_of(self, agent: Agent) -> Iterator[None]:
        whole = self.coded
        assert whole is not None
        # `step` and `unroll` are looked up once the mask is on.
        with masked(whole, self.mask, self.reference), replaced_methods(agent, step=whole.step, unroll=whole.unroll):
            yield

    def config(self) -> dict[str, Any]:
        return {"kind": "circuit", "label": self.label, "edges": self.mask.kept, "candidates": self.mask.graph.edges}


@dataclass(frozen=True)
class _Part:
    """What a plan says of one operand: its links and their masks."""

    key: str
    links: tuple[Link, ...]
    masks: tuple[Tensor, ...]
    whole: bool = field(default=False)
    """Whether every edge is at 1, and no gradient asks for what would be otherwise."""


def _plan(mask: Mask) -> dict[int, dict[int, _Part]]:
    """For each reader and each of its operands."""
    found: dict[int, dict[int, list[Link]]] = {}
    for link in mask.graph.links:
        found.setdefault(link.reader, {}).setdefault(link.operand, []).append(link)
    plan: dict[int, dict[int, _Part]] = {}
    for reader, by_operand in found.items():
        plan[reader] = {}
        for operand, links in by_operand.items():
            masks = tuple(mask.values[link.name] for link in links)
            whole = all(not m.requires_grad and bool((m == 1).all()) for m in masks)
            plan[reader][operand] = _Part(links[0].key, tuple(links), masks, whole)
    return plan


def _read(operation: Operation, parts: Mapping[int, _Part] | None, values: Values, known: "_Known | None") -> Any:
    if not parts or all(part.whole for part in parts.values()):
        return operation.plain()
    if operation.weight is not None:
        (part,) = parts.values()
        return _weighted(operation, part, values.get(part.key), known)
    changed = {i: _arm(operation, operation.operands[i], part, values.get(part.key)) for i, part in parts.items()}
    return operation.with_operands(changed)


_Known = dict[int, tuple[Tensor, Tensor | None]]
"""By operation, what stays the same from step to step: W * M, and (W * (1 - M)) r."""


def _weighted(operation: Operation, part: _Part, reference: Tensor | None, known: _Known | None) -> Tensor:
    """(W * M) x + (W * (1 - M)) r + b."""
    x, weight = operation.operands[0], operation.weight
    assert weight is not None
    if known is not None and operation.index in known:
        mine, put = known[operation.index]
        out = operation.product(x, mine, bias=True)
        return out if put is None else out + put
    kept = operation.weights_like(_matrix(part, weight))
    if kept.dim() == weight.dim():
        mine, put = weight * kept, None
        if mine.stride() != weight.stride():  # laid out differently, a convolution would be computed differently
            mine = torch.empty_like(weight).copy_(mine)
        if reference is not None:
            put = operation.product(_like(reference, x, operation), weight * (1 - kept), bias=False)
        if known is not None:
            known[operation.index] = mine, put
        out = operation.product(x, mine, bias=True)
        return out if put is None else out + put
    out = operation.products(x, weight * kept, bias=True)
    if reference is None:
        return out
    whole = _like(reference, x, operation).expand(x.shape)
    return out + operation.products(whole, weight * (1 - kept), bias=False)


def _arm(operation: Operation, x: Tensor, part: _Part, reference: Tensor | None) -> Tensor:
    """M x + (1 - M) r, unit by unit, written so that M = 1 changes no bit."""
    kept = x.new_ones(())
    for link, mask in zip(part.links, part.masks, strict=True):
        kept = torch.where(link.units < 0, kept, mask[..., link.units.clamp(min=0)])
    sample = _sample_shape(operation, x)
    kept = kept.reshape(*kept.shape[:-1], *sample[1:])
    rows = x.reshape(sample)
    if kept.dim() == len(sample):  # P masks
        kept = kept.repeat_interleave(len(rows) // len(kept), 0)
    put = torch.zeros_like(rows) if reference is None else reference.to(rows).reshape(-1, *sample[1:])
    return (rows + (1 - kept) * (put - rows)).reshape(x.shape)


def _matrix(part: _Part, weight: Tensor) -> Tensor:
    """`[R, F]` or `[P, R, F]`: the masks of an operand's links, at the rows and columns of the weights; 1 elsewhere."""
    rows, features = weight.shape[0], weight.shape[1]
    single = len(part.links) == 1
    lead = max((m.shape[:-2] for m in part.masks), key=len)
    whole = None if single else weight.new_ones(*lead, rows, features)
    for link, mask in zip(part.links, part.masks, strict=True):
        made, read = (link.rows >= 0).nonzero()[:, 0], (link.units >= 0).nonzero()[:, 0]
        block = mask.index_select(-2, link.rows[made]).index_select(-1, link.units[read])
        if single and len(made) == rows and len(read) == features:
            return block
        base = weight.new_ones(*lead, rows, features) if whole is None else whole
        whole = base.index_put((*(_all(base, i, len(lead)) for i in range(len(lead))), made[:, None], read), block)
    assert whole is not None
    return whole


def _all(base: Tensor, axis: int, lead: int) -> Tensor:
    return torch.arange(base.shape[axis]).reshape(-1, *(1,) * (lead - axis + 1))


def _like(reference: Tensor, x: Tensor, operation: Operation) -> Tensor:
    """A reference in the form of what is read: with a batch axis, of one sample if it is the same for all."""
    sample = _sample_shape(operation, x)
    rows = reference.to(x).reshape(-1, *sample[1:])
    if len(rows) == sample[0]:
        return rows.reshape(x.shape)
    return rows.reshape(*(1,) * (x.dim() - len(sample)), *rows.shape)


def _by_sample(operation: Operation, x: Tensor) -> Tensor:
    """`[B, ...]`: an operand without a time axis of one step."""
    return x.reshape(_sample_shape(operation, x))


def _sample_shape(operation: Operation, x: Tensor) -> tuple[int, ...]:
    """Shape of an operand as `[B, ...]`: matrices read rows, whatever axes these lie along."""
    return (x[..., 0].numel(), x.shape[-1]) if operation.kind == "linear" else tuple(x.shape)


def _check(count: int, graph: Graph, grad: bool) -> None:
    if count != graph.calls[grad]:
        raise HookError(
            f"the agent computed in {count} operations what took {graph.calls[grad]} when its graph was traced; trace "
            "it again in the way it is used now."
        )
