"""A circuit as a layered drawing: columns of units, and lines that are wider the more an edge matters."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.core.pictures import new_figure, save_figure

_MOST = 600
"""Edges that are drawn at most."""
_BEND = 0.05
"""How far a line is bent for each column that it passes, as a share of the height."""
_LABELLED = 24
"""Units of a column that are numbered."""


def circuit_picture(mask: Mask, scores: Tensor, path: Path) -> Path:
    """Draw the edges of a circuit, or the most important of them."""
    graph, shown = mask.graph, leading(mask, scores, _MOST)
    chosen = shown.vector.nonzero()[:, 0]
    strength = Mask.of_vector(graph, _ranked(scores, chosen))
    columns = _columns(graph, shown)
    heights = {node: _heights(units) for node, units in columns.items()}
    depth = {node: x for x, node in enumerate(columns)}
    figure, axes = new_figure(1, 1, max(6.0, 1.7 * len(columns)), 7.5)
    (axis,) = axes.flat
    for link, to, source in shown.edges:
        found = graph.link(link)
        width = float(strength.values[link][(to, source) if found.dense else source])
        ends = (depth[found.source], heights[found.source][source]), (depth[found.dest], heights[found.dest][to])
        axis.plot(*_line(*ends), color=_colour(0.25 + 0.7 * width), linewidth=0.3 + 2.7 * width, zorder=1 + width)
    for node, units in columns.items():
        x, y = depth[node], [heights[node][unit] for unit in units]
        axis.scatter([x] * len(y), y, s=14, color="white", edgecolors="black", linewidths=0.7, zorder=3)
        if len(units) <= _LABELLED:
            for unit, height in zip(units, y, strict=True):
                axis.annotate(str(unit), (x, height), (4, 2), textcoords="offset points", fontsize=7, zorder=4)
    whole = _columns(graph, mask)
    labels = [_label(graph, node, len(whole[node]), len(units)) for node, units in columns.items()]
    axis.set_xticks(range(len(columns)), labels, fontsize=8)
    axis.tick_params(axis="x", rotation=35 if len(columns) > 8 else 0, length=0)
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    drawn = "" if len(chosen) == mask.kept else f"; {len(chosen)} are drawn, the strongest that lead to a decision"
    axis.set_title(f"{mask.kept:,} of {graph.edges:,} edges{drawn}; wider where they matter more", fontsize=10)
    return save_figure(figure, path)


def leading(mask: Mask, scores: Tensor, most: int) -> Mask:
    """All edges of a circuit if they are few; else, from the decision backwards, as many of each link as are its share
    of `most`: the strongest by `scores [edges]` that lead into a unit from which one goes on."""
    graph = mask.graph
    if mask.kept <= most:
        return mask
    ranked = Mask.of_vector(graph, torch.where(mask.vector > 0, scores, -torch.inf))
    share = most // sum(bool((values > 0).any()) for values in mask.values.values())
    shown = Mask.full(graph, 0.0)
    # A unit's next node is computed after it, but for what is remembered.
    links = sorted(graph.links, key=lambda link: -list(graph.nodes).index(link.dest))
    for link in links:
        leads_on = shown.connected()[1][link.dest]
        values = ranked.values[link.name]
        values = torch.where(leads_on[:, None] if link.dense else leads_on, values, -torch.inf).flatten()
        best = values.topk(min(share, int(values.isfinite().sum()))).indices
        shown.values[link.name].view(-1)[best] = 1.0
    return shown


def _line(start: tuple[int, float], end: tuple[int, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A straight line; one past other columns is bent, so that it does not lie upon those between them."""
    along = np.linspace(0, 1, 2 if end[0] - start[0] <= 1 else 24)
    bend = _BEND * (end[0] - start[0] - 1) * 4 * along * (1 - along)
    return start[0] + along * (end[0] - start[0]), start[1] + along * (end[1] - start[1]) + bend


def _colour(share: float) -> tuple[float, float, float]:
    """From pale to dark blue."""
    return (0.75 * (1 - share), 0.85 - 0.55 * share, 0.95 - 0.3 * share)


def _ranked(scores: Tensor, chosen: Tensor) -> Tensor:
    """Scores of the chosen edges from 0 to 1, by the square root of their size, so that the weaker are seen too."""
    found = scores.new_zeros(scores.shape)
    values = scores[chosen]
    low, high = values.min(), values.max()
    found[chosen] = ((values - low) / (high - low).clamp(min=1e-12)).sqrt()
    return found


def _columns(graph: Graph, shown: Mask) -> dict[str, list[int]]:
    """The units with edges, by node, in the order in which nodes are computed."""
    units: dict[str, set[int]] = {node: set() for node in graph.nodes}
    for link, to, source in shown.edges:
        found = graph.link(link)
        units[found.source].add(source)
        units[found.dest].add(to)
    return {node: sorted(found) for node, found in units.items() if found}


def _heights(units: list[int]) -> dict[int, float]:
    """Spread over the height, the first above."""
    return {unit: 1 - (i + 0.5) / len(units) for i, unit in enumerate(units)}


def _label(graph: Graph, node: str, units: int, drawn: int) -> str:
    """How many of its units the circuit has, and how many of those are drawn."""
    return f"{node}\n{units} of {graph.nodes[node].units}{f' ({drawn} drawn)' * (drawn < units)}"
