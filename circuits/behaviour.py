"""What a circuit is to compute: an agent's decisions in some states, beside what they become when edges are cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rl_interp.circuits.distance import Distance
from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Values, is_constant, operands, run_masked
from rl_interp.circuits.replacement import Recorded, replacement
from rl_interp.circuits.states import States
from rl_interp.circuits.trace import trace
from rl_interp.core.agent import Agent, PolicyOutput, tree_map
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.gradients import NoGradientError, through_numpy

_AT_ONCE = 256
"""Samples that are run at once: a mask on a state each."""


@dataclass(frozen=True)
class Behaviour:
    """Decisions of an agent in N states, and what is put in the place of what an edge carries when it is cut.

    Attributes:
        preferences: `[N, A]`, the agent's own.
        reference: by operand, `[N, ...]`, or `[1, ...]` where it is the same in all states.
        distance: between the decisions of the agent and those of a circuit, in nats.
    """

    agent: Agent
    graph: Graph
    states: States
    preferences: Tensor = field(repr=False)
    reference: Values = field(repr=False)
    distance: Distance
    replace: str = "mean"

    @classmethod
    @torch.no_grad()
    def of(
        cls, agent: Agent, states: States, replace: str = "mean", *, bank: States | None = None,
        graph: Graph | None = None, distance: Distance | None = None, seed: int = 0,
    ) -> "Behaviour":  # fmt: skip
        """The behaviour in some states.

        Args:
            replace: a kind of `circuits.replacement`, of what each reader reads; `optimal` ones are fitted with a
                circuit, and begin as means.
            bank: states from which means and samples are taken; these themselves by default.

        Raises:
            UserError: no such kind, or one that these states don't allow.
        """
        replacement(replace)
        graph = trace(agent, states.obs, states.memory) if graph is None else graph
        preferences, here = _read(agent, graph, states)
        there = here if bank is None else _read(agent, graph, bank)[1]
        other = None if states.counterfactual is None else _read(agent, graph, states.counterfactual)[1]
        put = replacement("mean-position" if replace == "optimal" else replace)
        reference = {}
        for key, read in here.items():
            # The same states are drawn for all operands, so that a sample is a whole other state and no patchwork.
            generator = torch.Generator().manual_seed(seed)
            recorded = _recorded(graph, key, read, states, other)
            value = put(recorded, _recorded(graph, key, there[key], bank or states, None), generator)
            reference[key] = value.reshape(-1, *read.shape[1:])
        distance = Distance.of(agent, preferences) if distance is None else distance
        return cls(agent, graph, states, preferences, reference, distance, replace)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Tensor | slice) -> "Behaviour":
        """The behaviour in some of the states."""
        reference = {key: value if len(value) == 1 else value[rows] for key, value in self.reference.items()}
        return Behaviour(
            self.agent, self.graph, self.states[rows], self.preferences[rows], reference, self.distance, self.replace
        )

    def with_reference(self, reference: Values) -> "Behaviour":
        """The behaviour with something else put in the place of what is cut."""
        return replace(self, reference=reference)

    def with_constants(self, reference: Values) -> "Behaviour":
        """The behaviour with what was put in place elsewhere, if that is the same in all states and so holds in these
        too; else with what these states put in place themselves."""
        return self.with_reference(reference) if is_constant(reference) else self

    def decisions(self, mask: Mask, reference: Values | None = None) -> Tensor:
        """`[N, A]`, or `[P, N, A]` of P masks: preferences of the agent under a mask. Differentiable; all states at
        once. Raises `NoGradientError` where the mask requires a gradient and the agent passes none on."""
        with through_numpy():
            out = self.outputs(mask, reference).preferences
        if mask.vector.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
            raise NoGradientError
        lead = mask.vector.shape[:-1]
        return out.unflatten(0, (lead[0], len(self))) if lead else out

    def outputs(self, mask: Mask, reference: Values | None = None) -> PolicyOutput:
        """All that the agent gives under a mask, in all states, or under each of P masks in all, `[P * N, ...]`."""
        lead = mask.vector.shape[:-1]
        copies = lead[0] if lead else 1
        obs, memory = (
            tree_map(lambda leaf: leaf.repeat(copies, *(1,) * (leaf.dim() - 1)), tree)
            for tree in (self.states.obs, self.states.memory)
        )
        put = {
            key: value if len(value) == 1 else value.repeat(copies, *(1,) * (value.dim() - 1))
            for key, value in (self.reference if reference is None else reference).items()
        }
        return run_masked(self.agent, mask, obs, memory or None, reference=put)

    def distances(self, mask: Mask, reference: Values | None = None) -> Tensor:
        """`[N]`, or `[P, N]` of P masks: how far the decisions are from the agent's own, in nats. Differentiable."""
        return self.distance(self.preferences, self.decisions(mask, reference))

    @torch.no_grad()
    def mean_distances(self, masks: Mask | Sequence[Mask]) -> Tensor:
        """`[P]`: the mean over the states for each of many masks, one after the other."""
        vectors = (
            torch.stack([mask.vector for mask in masks]) if not isinstance(masks, Mask) else _two_axes(masks.vector)
        )
        found = []
        for vector in vectors:  # products with one matrix each: many masks at once would be products with many
            mask = Mask.of_vector(self.graph, vector)
            parts = (self[i : i + _AT_ONCE] for i in range(0, len(self), _AT_ONCE))
            found.append(torch.cat([part.distances(mask) for part in parts]).mean())
        return torch.stack(found)

    @torch.no_grad()
    def faithfulness(self, mask: Mask) -> float:
        """1 − D(circuit) / D(no edges): 1 where the circuit decides as the agent does, 0 as without any edge."""
        return 1 - float(self.mean_distances(mask)) / self.require(1e-12)

    def require(self, least: float = 1e-3) -> float:
        """The distance without any edge, in nats.

        Raises:
            UserError: it is below `least`: what is put in place changes no decision, so there is nothing to explain.
        """
        at_least_one(states=len(self))
        nothing = float(self.mean_distances(Mask.full(self.graph, 0.0)))
        if not nothing >= least:
            raise UserError(
                f"with every edge replaced ({self.replace}) the agent decides within {nothing:.2g} nats of itself, so "
                "there is no behaviour to find a circuit of; choose other states or another replacement."
            )
        return nothing


def _read(agent: Agent, graph: Graph, states: States) -> tuple[Tensor, dict[str, Tensor]]:
    """Preferences `[N, A]` in some states, and what is read there, `[N, ...]` each."""
    preferences, read = [], {}
    for some in states.split(_AT_ONCE):
        out, found = operands(agent, graph, some.obs, some.memory or None)
        preferences.append(out.preferences)
        for key, value in found.items():
            read.setdefault(key, []).append(value)
    return torch.cat(preferences), {key: torch.cat(values) for key, values in read.items()}


def _recorded(graph: Graph, key: str, read: Tensor, states: States, other: Mapping[str, Tensor] | None) -> Recorded:
    """What is read of an operand, with an axis of units, so that kinds of replacement know what a unit's mean is."""
    units = torch.stack([link.units for link in graph.keys[key]]).amax(0)
    axis, shape, width_axis = -1, read.shape, None
    if read.dim() > 2:
        axis = 1 - read.dim()
        width_axis = -1 if any(graph.nodes[link.source].width > 1 for link in graph.keys[key]) else None
    elif len(graph.keys[key]) == 1 and (count := int(units.max()) + 1) < len(units):
        if torch.equal(units, torch.arange(count).repeat_interleave(len(units) // count)):  # flattened by unit
            axis, shape = -2, (len(read), count, -1)
        elif torch.equal(units, torch.arange(count).repeat(len(units) // count)):  # or by position
            axis, shape = -1, (len(read), -1, count)
    changed = None if other is None else other[key].reshape(shape)
    return Recorded(key, axis, read.reshape(shape), states.steps, changed, width_axis=width_axis)


def _two_axes(vector: Tensor) -> Tensor:
    return vector if vector.dim() == 2 else vector[None]
