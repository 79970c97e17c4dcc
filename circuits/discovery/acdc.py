"""Automatic circuit discovery: from the decision backwards, each edge is cut, and stays so if that changes little.

Conmy et al. 2023, "Towards automated circuit discovery for mechanistic interpretability", arXiv 2304.14997, alg. 1.
That takes a run of the agent for each edge. Here edges into one node that attribution holds for the least important are
cut together at first, and in halves where that makes a difference: a run then decides on many edges, and no more
difference is made than edge by edge, as whatever is cut in one run must make less of it than one edge may. Edges into
units that nothing reads any more are cut without a run.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.discovery import Discovery, Report, measured, top
from rl_interp.circuits.graph import Graph, Link
from rl_interp.circuits.mask import Mask
from rl_interp.core.errors import require_numbers


@dataclass(frozen=True)
class ACDCConfig:
    """Settings of ACDC."""

    threshold: float = 0.003
    """The most by which the distance may rise when an edge is cut, as a share of the distance without any edge."""
    candidates: int | None = None
    """Number of edges, the first by attribution, that are looked at; all others are cut at once. By default all are
    looked at."""
    one_by_one: bool = False
    """Whether every edge is cut alone, as published, at the price of a run each."""
    steps: int = 5
    """Number of steps of the attribution that orders the edges of each node."""

    def __post_init__(self) -> None:
        require_numbers(self, positive=("threshold",), at_least_1=("candidates", "steps"))


def acdc(behaviour: Behaviour, config: ACDCConfig = ACDCConfig(), report: Report = lambda done: None) -> Discovery:
    """The circuit that is left, without dangling edges; scores are how much the distance rose when each edge was tried.

    Raises:
        UserError: more candidates than edges, or no behaviour.
    """
    with measured() as cost:
        search = _Search(behaviour, config)
        nodes = [name for name in reversed(list(behaviour.graph.nodes)) if behaviour.graph.into(name)]
        for done, node in enumerate(nodes, 1):
            search.node(node)
            report(done / len(nodes))
        mask = search.mask.without_dangling()
    details = {**vars(config), "threshold_nats": search.allowed, "tried": search.tried}
    return Discovery("acdc", behaviour.graph, search.scores, behaviour.reference, mask, cost=cost, details=details)


class _Search:
    def __init__(self, behaviour: Behaviour, config: ACDCConfig):
        self.behaviour, self.one_by_one = behaviour, config.one_by_one
        graph = behaviour.graph
        self.allowed = config.threshold * behaviour.require()
        self.attributed = attribute(behaviour, config.steps, absolute=True).scores
        self.kept = torch.ones(graph.edges)
        # Edges that are not looked at come last, in the order of their attributions.
        self.scores = self.attributed / self.attributed.max().clamp(min=1e-12) - 2
        if config.candidates is not None:
            self.kept = top(graph, self.attributed, config.candidates).vector
        self.now = self._distance(self.kept)
        self.tried = 0

    @property
    def mask(self) -> Mask:
        return Mask.of_vector(self.behaviour.graph, self.kept)

    def node(self, name: str) -> None:
        """Cut what can be cut of the edges into a node."""
        graph = self.behaviour.graph
        read = self.mask.connected()[1][name]
        for link in graph.into(name):
            unread = first_edge(graph, link) + torch.arange(link.edges).reshape(link.shape)[~read].flatten()
            self.scores[unread[self.kept[unread] > 0]] = 0.0
            self.kept[unread] = 0.0
        places = torch.cat([first_edge(graph, link) + torch.arange(link.edges) for link in graph.into(name)])
        edges = places[self.kept[places] > 0]
        edges = edges[self.attributed[edges].argsort()]
        for some in edges.split(1 if self.one_by_one else max(1, len(edges))):
            self._cut(some)

    def _cut(self, edges: Tensor) -> None:
        if not len(edges):
            return
        trial = self.kept.clone()
        trial[edges] = 0.0
        distance = self._distance(trial)
        self.tried += 1
        rise = distance - self.now
        if rise < self.allowed:
            self.kept, self.now = trial, distance
        if rise < self.allowed or len(edges) == 1:
            self.scores[edges] = rise / len(edges)
            return
        for half in edges.tensor_split(2):
            self._cut(half)

    def _distance(self, vector: Tensor) -> float:
        return float(self.behaviour.mean_distances(Mask.of_vector(self.behaviour.graph, vector)))


def first_edge(graph: Graph, link: Link) -> int:
    """Where the edges of a link begin in a vector of all."""
    return sum(each.edges for each in graph.links[: graph.links.index(link)])
