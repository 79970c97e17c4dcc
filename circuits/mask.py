"""Masks: how much of each edge is kept, from 0 (what it carries is replaced) to 1 (as it is)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rl_interp.circuits.graph import Graph
from rl_interp.core.errors import UserError

Edge = tuple[str, int, int]
"""A link's name, the unit at its end and the unit at its beginning; the same unit twice where links go unit by unit."""


@dataclass(frozen=True)
class Mask:
    """`values[link]`: float32 of the link's shape, `(units of the destination, units of the source)` or `(units,)`.

    A leading axis P means P masks at once, each for an equal part of the batch that it is run on, in order.
    """

    graph: Graph
    values: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for link in self.graph.links:
            given = self.values.get(link.name)
            if given is None or given.shape[given.dim() - len(link.shape) :] != link.shape:
                raise UserError(
                    f"a mask has {'nothing' if given is None else tuple(given.shape)} for {link.name!r}, which has "
                    f"edges {link.shape}; masks are of one graph alone: make one with Mask.full(graph)."
                )

    @classmethod
    def full(cls, graph: Graph, value: float = 1.0) -> "Mask":
        """Every edge at one value: 1 is the agent, 0 the agent with every edge replaced."""
        return cls(graph, {link.name: torch.full(link.shape, value) for link in graph.links})

    @classmethod
    def of_vector(cls, graph: Graph, vector: Tensor) -> "Mask":
        """From `[edges]` or `[P, edges]`, in the order of the graph's links. Differentiable."""
        values, at = {}, 0
        for link in graph.links:
            values[link.name] = vector[..., at : at + link.edges].unflatten(-1, link.shape)
            at += link.edges
        if at != vector.shape[-1]:
            raise UserError(f"a mask of {vector.shape[-1]} edges was given for a graph of {at}.")
        return cls(graph, values)

    @classmethod
    def of_edges(cls, graph: Graph, edges: Iterable[Edge]) -> "Mask":
        """These edges at 1 and all others at 0."""
        mask = cls.full(graph, 0.0)
        for name, dest, source in edges:
            link = graph.link(name)
            mask.values[name][(dest, source) if link.dense else source] = 1.0
        return mask

    @property
    def vector(self) -> Tensor:
        """`[edges]` or `[P, edges]`, in the order of the graph's links."""
        return torch.cat([self.values[link.name].flatten(-len(link.shape)) for link in self.graph.links], -1)

    @property
    def kept(self) -> int:
        """How many edges are above 0."""
        return int((self.vector > 0).sum())

    @property
    def edges(self) -> list[Edge]:
        """The edges above 0."""
        found: list[Edge] = []
        for link in self.graph.links:
            for place in np.argwhere(self.values[link.name].detach().cpu().numpy() > 0).tolist():
                found.append((link.name, place[0], place[-1]))
        return found

    def without_nodes(self, units: Mapping[str, Iterable[int]]) -> "Mask":
        """Every edge out of these units at 0."""
        values = dict(self.values)
        for node, chosen in units.items():
            for link in self.graph.out_of(node):
                values[link.name] = values[link.name].clone()
                values[link.name][..., list(chosen)] = 0.0
        return Mask(self.graph, values)

    def reordered(self, order: Mapping[str, Tensor]) -> "Mask":
        """The mask in which unit u of each node has the edges of unit `order[node][u]` of this one."""
        values = {}
        for link in self.graph.links:
            value, source = self.values[link.name], order[link.source]
            values[link.name] = value[order[link.dest]][:, source] if link.dense else value[source]
        return Mask(self.graph, values)

    def without_dangling(self) -> "Mask":
        """Edges at 0 that can have no part: those out of units that no kept edge comes into, and those into units that
        no kept edge leaves; inputs, and what is given, need none, outputs and what is remembered lead on."""
        mask = self
        while True:
            pruned = mask._pruned_once()
            if torch.equal(pruned.vector, mask.vector):
                return pruned
            mask = pruned

    def _pruned_once(self) -> "Mask":
        graph = self.graph
        fed, led = self.connected()
        values = {}
        for link in graph.links:
            source, dest = fed[link.source], led[link.dest]
            keep = dest[..., :, None] * source[..., None, :] if link.dense else dest * source
            values[link.name] = self.values[link.name] * keep.to(self.values[link.name])
        return Mask(graph, values)

    def connected(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """For each node bool `[units]`: whether a kept edge comes into each unit, and whether one leaves it. Nodes that
        are given count as fed; outputs, and nodes that are remembered where the memory is read, as leading on."""
        graph = self.graph
        lead = self.vector.shape[:-1]
        fed: dict[str, Tensor] = {}
        led: dict[str, Tensor] = {}
        for name, node in graph.nodes.items():
            ins, outs = graph.into(name), graph.out_of(name)
            fed[name] = (
                torch.zeros(*lead, node.units, dtype=torch.bool)
                if ins
                else torch.ones(*lead, node.units, dtype=torch.bool)
            )
            led[name] = torch.full((*lead, node.units), name in graph.outputs.values())
            for link in ins:
                kept = self.values[link.name] > 0
                fed[name] = fed[name] | (kept.any(-1) if link.dense else kept)
            for link in outs:
                kept = self.values[link.name] > 0
                led[name] = led[name] | (kept.any(-2) if link.dense else kept)
        for name, node in graph.nodes.items():
            if node.memory is not None and node.memory in led:
                led[node.memory] = led[node.memory] | led[name]
                fed[name] = fed[node.memory]
        return fed, led
