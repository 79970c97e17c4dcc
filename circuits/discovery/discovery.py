"""What every method of discovery gives: edges in the order in which they matter, and what it cost to tell."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Values, counted
from rl_interp.core.errors import UserError

Report = Callable[[float], None]
"""Told how much of the work, from 0 to 1, is done."""


@dataclass
class Cost:
    """Passes, of one state each, and seconds."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Discovery:
    """Edges that a method has scored, and the circuit that it chose of them, if it chooses one."""

    method: str
    graph: Graph
    scores: Tensor = field(repr=False)
    """float32 `[edges]`, in the order of the graph's links: the higher, the sooner an edge belongs to the circuit."""
    reference: Values = field(repr=False)
    """What is put in the place of edges that are cut."""
    mask: Mask | None = field(default=None, repr=False)
    """The circuit; None of methods that only score, of which `top` takes as many edges as one likes."""
    cost: Cost = field(default_factory=Cost)
    details: Mapping[str, Any] = field(default_factory=dict)
    """Settings and figures of its own, ready for JSON."""

    def circuit(self, count: int | None = None) -> Mask:
        """The `count` edges of the highest scores, without those that lead nowhere or come from nowhere; or the
        circuit that the method chose.

        Raises:
            UserError: fewer than 1 edge, or more than the graph has; a method that chooses none, and no count.
        """
        if count is not None:
            return top(self.graph, self.scores, count).without_dangling()
        if self.mask is None:
            raise UserError(f"{self.method!r} scores edges and chooses no circuit; say how many edges it is to have.")
        return self.mask


def top(graph: Graph, scores: Tensor, count: int) -> Mask:
    """The `count` edges of the highest scores `[edges]`; of equal ones the first.

    Raises:
        UserError: fewer than 1 edge, or more than the graph has.
    """
    if not 1 <= count <= graph.edges:
        raise UserError(f"a circuit of {count} edges asked for; the agent has {graph.edges}, so give 1 to that many.")
    vector = torch.zeros(graph.edges)
    vector[scores.argsort(descending=True, stable=True)[:count]] = 1.0
    return Mask.of_vector(graph, vector)


@contextmanager
def measured() -> Iterator[Cost]:
    """What is computed within the `with` block: a `Cost`, whole when the block has ended."""
    cost, start = Cost(), time.perf_counter()
    with counted() as passes:
        yield cost
    cost.forwards, cost.backwards = passes.forward, passes.backward
    cost.seconds = time.perf_counter() - start
