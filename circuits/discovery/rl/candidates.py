"""What may be cut: edges, or parts of links, that attribution chooses from those of a graph."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.core.errors import UserError, at_least_one


@dataclass(frozen=True)
class Candidates:
    """K candidates, and where in a graph they are.

    Attributes:
        scores: float64 `[K]`, their attribution.
        sources, dests: int64 `[K]`, the unit, or node, that each comes from and goes to, numbered from 0.
        depths: float64 `[K, 2]`, how late in the step both ends are computed, from 0 to 1.
    """

    names: tuple[str, ...]
    scores: Tensor
    sources: Tensor
    dests: Tensor
    depths: Tensor

    def __post_init__(self) -> None:
        at_least_one(candidates=len(self.names))

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Selection:
    """Candidates among the edges of a graph.

    Attributes:
        owner: int64 `[edges]`, the candidate that each edge belongs to; K where it belongs to none, and is kept.
    """

    graph: Graph
    candidates: Candidates
    owner: Tensor = field(repr=False)

    def total(self, scores: Tensor) -> Tensor:
        """float64 `[K]` from `[edges]`: of the edges of each candidate together."""
        count = len(self.candidates)
        return torch.zeros(count + 1, dtype=torch.float64).index_add_(0, self.owner, scores.double())[:count]

    def mask(self, kept: Tensor) -> Mask:
        """The mask of the graph, or P of them, where the candidates bool `[K]` or `[P, K]` are kept."""
        always = torch.ones(*kept.shape[:-1], 1)
        return Mask.of_vector(self.graph, torch.cat([kept.float(), always], -1)[..., self.owner])


def edges_by_attribution(graph: Graph, scores: Tensor, count: int) -> Selection:
    """The `count` edges of greatest attribution `[edges]`, or those that have any; all others are kept.

    Raises:
        UserError: no edge has any.
    """
    at_least_one(candidates=count)
    order = scores.abs().argsort(descending=True, stable=True)[:count]
    chosen = order[scores[order] != 0].sort().values
    owner = torch.full((graph.edges,), len(chosen))
    owner[chosen] = torch.arange(len(chosen))
    ends = [_ends_of_edge(graph, int(edge)) for edge in chosen]
    return Selection(graph, _located(graph, ends, scores[chosen].double()), owner)


def parts_by_attribution(graph: Graph, scores: Tensor, count: int) -> Selection:
    """`count` parts that cover the links of greatest attribution, finer where there is more of it: the part that has
    the most is split into the half of its units that have most and the other half, again and again.

    Args:
        scores: `[edges]`, of each edge; a unit of a link has the sum of its edges', and a part the absolute ones of its
            units.

    Raises:
        UserError: no edge has any attribution.
    """
    at_least_one(candidates=count)
    parts = [_Part.whole(graph, i, scores) for i in range(len(graph.links))]
    parts = sorted((part for part in parts if part.weight > 0), key=lambda part: -part.weight)[:count]
    while len(parts) < count:
        if not (divisible := [part for part in parts if len(part.units) > 1]):
            break
        largest = max(divisible, key=lambda part: part.weight)
        at = parts.index(largest)
        parts[at : at + 1] = largest.halves()
    parts.sort(key=lambda part: part.link)
    owner = torch.full((graph.edges,), len(parts))
    for i, part in enumerate(parts):
        owner[part.edges(graph)] = i
    ends = [part.ends(graph) for part in parts]
    return Selection(
        graph, _located(graph, ends, torch.tensor([part.weight for part in parts], dtype=torch.float64)), owner
    )


_End = tuple[str, int]
"""A node and its unit; -1 for all of it."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Some units that a link comes from, those of greatest attribution first."""

    link: int
    units: Tensor
    scores: Tensor
    """float64, of the units, absolute."""

    @staticmethod
    def whole(graph: Graph, link: int, scores: Tensor) -> "_Part":
        shape, dense = graph.links[link].shape, graph.links[link].dense
        own = scores.double()[_start(graph, link) :][: graph.links[link].edges].view(shape)
        weights = (own.sum(0) if dense else own).abs()
        order = weights.argsort(descending=True, stable=True)
        return _Part(link, order, weights[order])

    @property
    def weight(self) -> float:
        return float(self.scores.sum())

    def halves(self) -> "list[_Part]":
        middle = len(self.units) // 2
        return [_Part(self.link, self.units[some], self.scores[some]) for some in (slice(middle), slice(middle, None))]

    def edges(self, graph: Graph) -> Tensor:
        """Indices among those of the graph."""
        link = graph.links[self.link]
        numbers = torch.arange(link.edges).view(link.shape)[..., self.units]
        return _start(graph, self.link) + numbers.flatten()

    def ends(self, graph: Graph) -> "tuple[str, _End, _End]":
        link = graph.links[self.link]
        units = "" if len(self.units) == link.shape[-1] else f" from {sorted(self.units.tolist())}"
        return f"{link.name}{units}", (link.source, -1), (link.dest, -1)


def _start(graph: Graph, link: int) -> int:
    return sum(each.edges for each in graph.links[:link])


def _ends_of_edge(graph: Graph, edge: int) -> tuple[str, _End, _End]:
    for link in graph.links:
        if edge < link.edges:
            dest, source = divmod(edge, link.shape[1]) if link.dense else (edge, edge)
            return f"{link.name} {source} to {dest}", (link.source, source), (link.dest, dest)
        edge -= link.edges
    raise IndexError(edge)


def _located(graph: Graph, ends: Sequence[tuple[str, _End, _End]], scores: Tensor) -> Candidates:
    if not ends:
        raise UserError("no edge has any attribution, so there are no candidates; choose other states.")
    depth = {name: i / max(1, len(graph.nodes) - 1) for i, name in enumerate(graph.nodes)}
    known: dict[_End, int] = {}
    numbers = [[known.setdefault(end, len(known)) for end in (source, dest)] for _, source, dest in ends]
    sources, dests = torch.tensor(numbers).unbind(1)
    depths = torch.tensor([[depth[source[0]], depth[dest[0]]] for _, source, dest in ends], dtype=torch.float64)
    return Candidates(tuple(name for name, _, _ in ends), scores, sources, dests, depths)
