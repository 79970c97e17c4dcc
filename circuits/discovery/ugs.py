"""Uniform gradient sampling: each edge's probability to be in the circuit, learned from circuits drawn by them.

Li & Janson 2024, "Optimal ablation for interpretability", arXiv 2409.09951, section 3.2 and appendix. An edge is in or
out, and in a window of width w = p(1 - p) around its probability p partly in, where alone it has a gradient. Each
edge's gradient is the mean over the draws in which it is in its window, so that edges near 0 and 1 learn as quickly.

What an edge should cost differs a thousandfold between agents. So the price is found as well, unless it is given: it
rises while the circuits that are drawn are more faithful than asked for, and falls while they are less.

Where the probabilities begin matters as much. Published is a logit of 1: a quarter of the edges are missing from the
first circuits. Some agents then decide as with every edge cut, whichever edge is added, so that no edge has a gradient
to go by. So the first circuits are drawn with as many edges as it takes for them to decide half as the agent does.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.constants import Constants, ConstantsConfig, fit_constants
from rl_interp.circuits.discovery.discovery import Discovery, Report, measured, top
from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import count_passes
from rl_interp.core.errors import UserError, require_numbers

_FIRST_PRICE, _PRICE_RATE, _LEAST_ROOM = 1.0, 0.05, 0.01
"""What an edge costs at first, how fast its logarithm changes at most, and the least that faithfulness may lack."""
_STARTS, _HALF, _DRAWN = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 0.5, 48
"""Logits that are tried to start from, the mean faithfulness that is enough, and of how many circuits it is the mean:
circuits differ more in it than states do."""


@dataclass(frozen=True)
class UGSConfig:
    """Settings of uniform gradient sampling."""

    sparsity: float | None = None
    """What an edge costs, as a multiple of the distance without any edge divided by the number of edges; by default
    what leaves the circuits that are drawn as faithful as is asked for."""
    degree: float = 0.0
    """What an edge more at a unit costs that has few, as a multiple of what an edge costs."""
    updates: int = 400
    """Number of steps."""
    masks: int = 12
    """Circuits that are drawn in a step."""
    batch: int = 8
    """States for each of them."""
    rate: float = 0.05
    """Step size of Adam for the edges' logits."""
    constants: ConstantsConfig = field(default_factory=ConstantsConfig)
    """Settings for the constants that `optimal` puts in place, which are trained with the edges and fitted again to the
    circuit that is chosen."""
    start: float | None = None
    """Logit of every edge at the start; by default the first of 1 (as published), 2, ... 6 at which the circuits that
    are drawn decide half as the agent does."""
    threshold: float = 0.5
    """Logit above which an edge is chosen in the end."""
    seed: int = 0
    """Seed of the circuits and the batches that are drawn."""

    def __post_init__(self) -> None:
        require_numbers(
            self, positive=("sparsity", "rate"), at_least_0=("degree",), at_least_1=("updates", "masks", "batch"),
            seed=("seed",),
        )  # fmt: skip


def ugs(
    behaviour: Behaviour,
    config: UGSConfig = UGSConfig(),
    report: Report = lambda done: None,
    faithfulness: float = 0.9,
) -> Discovery:
    """The edges whose logits end above the threshold, without dangling ones; scores are the logits.

    Args:
        faithfulness: that is enough, where edges have no price of their own.

    Raises:
        UserError: no behaviour; a price of edges at which none stays; constants that diverge.
    """
    with measured() as cost:
        graph, generator = behaviour.graph, torch.Generator().manual_seed(config.seed)
        nothing = behaviour.require()
        sparsity = _FIRST_PRICE if config.sparsity is None else config.sparsity
        start = _start(behaviour, config, nothing, generator) if config.start is None else config.start
        logits = torch.full((graph.edges,), start, requires_grad=True)
        constants = Constants(behaviour) if behaviour.replace == "optimal" else None
        groups = [{"params": [logits], "lr": config.rate}]
        if constants is not None:
            groups.append({"params": list(constants.parameters()), "lr": config.constants.rate})
        optimizer = torch.optim.Adam(groups)
        for step in range(config.updates):
            some = behaviour[torch.randint(len(behaviour), (config.batch,), generator=generator)]
            uniform = torch.rand(config.masks, graph.edges, generator=generator)
            with torch.enable_grad():
                mask = connected(graph, draw(logits, uniform))
                reference = None if constants is None else constants()
                distance = some.distances(mask, reference).mean()
                cost_of_edges = size(graph, logits.sigmoid(), config.degree) * nothing / graph.edges
                loss = distance + sparsity * cost_of_edges
            optimizer.zero_grad()
            loss.backward()
            count_passes(backward=config.masks * len(some))
            optimizer.step()
            if config.sparsity is None:
                room = 1 - distance.item() / max(1 - faithfulness, _LEAST_ROOM) / nothing
                sparsity *= math.exp(_PRICE_RATE * min(1.0, max(-1.0, room)))
            report((step + 1) / config.updates)
        logits = logits.detach()
        mask = Mask.of_vector(graph, (logits > config.threshold).float()).without_dangling()
        if not mask.kept:
            raise UserError(
                f"at a sparsity of {sparsity:.3g} no edge stays in the circuit; give a smaller one, so that it is "
                "cheaper to keep them, or train for more updates."
            )
        reference = behaviour.reference
        if constants is not None:
            with torch.no_grad():
                reference = constants()
        if config.sparsity is None:
            mask = _faithful(behaviour.with_reference(reference), logits, mask, faithfulness)
        if constants is not None:
            reference = fit_constants(behaviour, mask, config.constants, constants)
    details = {name: value for name, value in vars(config).items() if name != "constants"}
    details |= {"sparsity": sparsity, "start": start}
    return Discovery("ugs", graph, logits, reference, mask, cost=cost, details=details)


def _start(behaviour: Behaviour, config: UGSConfig, nothing: float, generator: torch.Generator) -> float:
    """The first logit at which circuits drawn by it are faithful enough to learn from; the last if none is."""
    graph = behaviour.graph
    some = behaviour[torch.randperm(len(behaviour), generator=generator)[: config.batch]]
    for start in _STARTS[:-1]:
        kept = torch.rand(_DRAWN, graph.edges, generator=generator) < torch.tensor(start).sigmoid()
        distance = some.mean_distances(connected(graph, kept.float())).mean()
        if 1 - float(distance) / nothing >= _HALF:
            return start
    return _STARTS[-1]


def _faithful(behaviour: Behaviour, logits: Tensor, mask: Mask, faithfulness: float) -> Mask:
    """The circuit, with the next edges by their logits, a quarter more at a time, where it alone is not faithful
    enough: those drawn have edges besides that are in or out by chance."""
    graph, count = behaviour.graph, mask.kept
    while count < graph.edges and behaviour.faithfulness(mask) < faithfulness:
        count = min(math.ceil(1.25 * count), graph.edges)
        mask = top(graph, logits, count).without_dangling()
    return mask


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """`[P, edges]`: P circuits, from uniform numbers `[P, edges]`; differentiable.

    α = clamp(1/2 + (p̂ − u) / w, 0, 1) with w = p(1 − p) and p̂ = w p − (w − 1) p, of which only the first p has a
    gradient. In the window α is uniform and dα/dp = 1; gradients are divided by the share of draws that are in it.
    """
    p = logits.sigmoid()
    window = (p * (1 - p)).detach().clamp(min=1e-6)
    value = window * p - (window - 1) * p.detach()
    drawn = (0.5 + (value - uniform) / window).clamp(0, 1)
    inside = ((drawn > 0) & (drawn < 1)).sum(0)
    weight = torch.where(inside > 0, len(uniform) / inside.clamp(min=1), 0.0)
    return weight * drawn + (1 - weight) * drawn.detach()


def connected(graph: Graph, drawn: Tensor) -> Mask:
    """The circuits `[P, edges]` without their dangling edges; differentiable."""
    kept = Mask.of_vector(graph, drawn.detach()).without_dangling().vector > 0
    return Mask.of_vector(graph, drawn * kept)


def size(graph: Graph, p: Tensor, degree: float) -> Tensor:
    """Σ p of the edges `[edges]`, and `degree` times Σ n/2 tanh(2 d / n) over units, of which d is the expected number
    of edges at a unit of n: whoever has many may have more."""
    total = p.sum()
    if not degree:
        return total
    mask = Mask.of_vector(graph, p)
    for name, node in graph.nodes.items():
        d, n = torch.zeros(node.units), 0
        for link in graph.into(name):
            d = d + (mask.values[link.name].sum(1) if link.dense else mask.values[link.name])
            n += link.shape[-1] if link.dense else 1
        for link in graph.out_of(name):
            d = d + (mask.values[link.name].sum(0) if link.dense else mask.values[link.name])
            n += link.shape[0] if link.dense else 1
        total = total + degree * (n / 2 * (2 * d / n).tanh()).sum()
    return total
