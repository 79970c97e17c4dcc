"""The graph of an agent: units at hook points, and edges, each of which is one unit's term in another's sum.

A *reader* is an operation at which terms are added up or multiplied: a product with weights (a convolution, a matrix),
a sum of two arms, a product of two gates. What it reads is an *operand*. An edge goes from a unit of the node whose
value the operand holds to the unit that the reader's result makes: an input channel to an output channel of a
convolution, a column of a matrix to a row, an arm of a residual sum to the same unit of the sum, a gate to the state
that it scales. `trace` finds all of them by running the agent once; nothing is declared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rl_interp.core.errors import UserError, unknown

Kind = Literal["linear", "conv", "sum", "product"]
"""What a reader does: multiply with a matrix, convolve, add two arms, multiply two values."""


@dataclass(frozen=True)
class Node:
    """Units that are one thing to the graph: a layer's channels or neurons, before and after their nonlinearity.

    `faces` are the hook points at which the node's value can be seen, in the order in which they are computed; the
    node has the name of the last and the units of the first (channels, where a later one is the same, flattened).
    `memory` names the node whose value of the step before this one is: `lstm.h[-1]` is the memory of `lstm.h`.
    `width` is how many numbers a unit has at a place: 1 but for units that are vectors, such as attention heads.
    """

    name: str
    units: int
    faces: tuple[str, ...] = ()
    memory: str | None = None
    width: int = 1


@dataclass(frozen=True)
class Link:
    """All edges between two nodes through one reader.

    Attributes:
        reader: which of the graph's readers, from 0.
        operand: which of its operands is read, 0 or 1.
        key: of the operand among a reference's values; operands that are one tensor share it.
        dense: whether every unit of the source has a term in every unit of the destination (weights), or only in its
            own (sums and products unit by unit).
        units: int64 `[features]`, the source's unit at each feature of the operand: at its channels or columns where
            the reader has weights, else at its entries, flattened; -1 where another node's value is.
        rows: int64 `[R]`, the destination's unit that each row of the weights makes, -1 where it is none of this
            destination's; empty if not `dense`.
        shape: of a mask, `(units of the destination, units of the source)` or `(units,)`.
    """

    source: str
    dest: str
    reader: int
    operand: int
    key: str
    dense: bool
    units: Tensor = field(repr=False, compare=False)
    rows: Tensor = field(repr=False, compare=False)
    shape: tuple[int, ...]
    name: str = ""

    @property
    def edges(self) -> int:
        """How many there are."""
        return self.shape[0] * self.shape[1] if self.dense else self.shape[0]


@dataclass(frozen=True)
class Reader:
    """An operation of the step: its index among those that can read, without gradients and with them (agents compute
    some things only then), its kind, and what it read when it was traced."""

    calls: tuple[int, int]
    kind: Kind
    function: str
    operands: Mapping[int, str]
    """The operand's key, by its index."""


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they are computed, links between them, and the readers that make these.

    Attributes:
        outputs: the node that each head of the agent (`logits`, `q_values`, `value`, `mean`) is.
        paths: of the modules that were watched while it was traced, so that a run under a mask takes the same way
            through the agent's code.
        calls: how many operations of a step can read, without gradients and with them.
        unread: products with weights of a form that is not known, such as a whole `nn.LSTM`'s; what they give is taken
            as it is, and edges begin after it.
    """

    nodes: Mapping[str, Node]
    links: tuple[Link, ...]
    readers: tuple[Reader, ...]
    outputs: Mapping[str, str]
    paths: tuple[str, ...] = ()
    calls: tuple[int, int] = (0, 0)
    unread: tuple[str, ...] = ()

    @property
    def edges(self) -> int:
        """How many there are."""
        return sum(link.edges for link in self.links)

    def at(self, grad: bool) -> dict[int, int]:
        """The index of each reader by that of its operation in a step, without gradients or with them."""
        return {reader.calls[grad]: i for i, reader in enumerate(self.readers)}

    def link(self, name: str) -> Link:
        """The link of that name.

        Raises:
            UserError: there is none; the known ones are listed.
        """
        for link in self.links:
            if link.name == name:
                return link
        raise UserError(unknown("link", name, [link.name for link in self.links]))

    def into(self, node: str) -> tuple[Link, ...]:
        """The links that end at a node."""
        return tuple(link for link in self.links if link.dest == node)

    def out_of(self, node: str) -> tuple[Link, ...]:
        """The links that begin at a node."""
        return tuple(link for link in self.links if link.source == node)

    @property
    def joined(self) -> list[list[str]]:
        """All nodes, in groups of which each unit belongs to one unit of the others: joined unit by unit, or the memory
        of one another."""
        group = {name: name for name in self.nodes}

        def first(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        pairs = [(link.source, link.dest) for link in self.links if not link.dense]
        pairs += [(name, of) for name, node in self.nodes.items() if (of := node.memory) is not None and of in group]
        for a, b in pairs:
            group[first(a)] = first(b)
        found: dict[str, list[str]] = {}
        for name in self.nodes:
            found.setdefault(first(name), []).append(name)
        return list(found.values())

    def has_fixed(self, group: Iterable[str]) -> bool:
        """Whether some of the nodes are given, as what is seen is, or decide: then their units can't change places."""
        given = (name for name in group if not self.into(name) and self.nodes[name].memory is None)
        return any(given) or any(name in self.outputs.values() for name in group)

    @property
    def keys(self) -> dict[str, tuple[Link, ...]]:
        """The links that read each operand, by its key."""
        found: dict[str, tuple[Link, ...]] = {}
        for link in self.links:
            found[link.key] = (*found.get(link.key, ()), link)
        return found

    def spread(self, key: str, values: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """A number for each unit, `{node: [units]}` (of vectors `[units, width]`), as values of an operand
        `like [B, ...]`, without the batch axis; zero where it holds another node. Differentiable."""
        parts = []
        dense = False
        for link in {link.source: link for link in self.keys[key]}.values():
            dense = link.dense
            given = values[link.source][link.units.clamp(min=0)]
            absent = (link.units < 0).reshape(-1, *(1,) * (given.dim() - 1))
            parts.append(torch.where(absent, torch.zeros_like(given), given))
        total = torch.stack(parts).sum(0)
        if not dense:
            return total.reshape(like.shape[1:])
        if self.readers[self.keys[key][0].reader].kind == "conv":
            places = (1,) * (like.dim() - 1 - total.dim())  # a vector's own axis is the last
            return total.reshape(len(total), *places, *total.shape[1:]).expand(like.shape[1:])
        return total.expand(like.shape[1:])
