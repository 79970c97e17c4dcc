"""What a page of a circuit shows: its units and edges, and where, when and with which concepts units are active."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.picture import leading
from rl_interp.analysis.circuits.states import STRIDE
from rl_interp.analysis.circuits.steps import Step, play_steps
from rl_interp.analysis.circuits.stored import StoredCircuit, graph_of
from rl_interp.circuits.discovery.discovery import top
from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.core.agent import evaluating
from rl_interp.core.envs import LabelledEnv, make_labelled
from rl_interp.core.errors import at_least_one
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import auroc

_EDGES = 400
"""Edges that are shown at most."""
_STRONGEST = 6
"""States that are shown of a unit, each of another episode if there are enough."""
_CONCEPTS = 5


@dataclass(frozen=True)
class _Seen:
    """A state of an episode."""

    step: Step
    screen: NDArray[np.uint8]


def circuit_report(
    loaded: Loaded, circuit: StoredCircuit, states: int = 300, seed: int = 0, progress: Progress = SILENT
) -> dict[str, Any]:
    """Everything that the page of a circuit shows, ready for JSON.

    Args:
        states: in which units are looked at, of episodes that the agent plays, at every seventh step.

    Raises:
        UserError: no states.
    """
    at_least_one(states=states)
    graph = graph_of(loaded)
    shown = _shown(circuit)
    columns = _columns(graph, shown)
    env = make_labelled(loaded.env)
    with progress.bar("Playing", states, "states") as update:
        seen = []
        for state in _states(loaded, env, states, seed):
            seen.append(state)
            update(len(seen))
    concepts = [name for name, concept in env.concepts.items() if concept.kind == "boolean" and name != "controllable"]
    labels = np.array([[float(state.step.labels.get(name, np.nan)) for name in concepts] for state in seen])
    activations = _activations(loaded, graph, list(columns), seen)
    pictures = _Pictures(seen)
    importance = _importance(circuit)
    nodes = []
    for node, units in columns.items():
        values = activations.get(node)
        nodes.append(
            {
                "node": node,
                "of": graph.nodes[node].units,
                "units": [
                    _unit(unit, importance[node][unit], values, seen, concepts, labels, pictures) for unit in units
                ],
            }
        )
    return {
        "circuit": circuit.name,
        "run": str(loaded.run.path),
        "settings": {k: v for k, v in circuit.described["settings"].items() if not isinstance(v, dict)},
        "result": {k: v for k, v in circuit.described["result"].items() if isinstance(v, str | int | float)},
        "edges_kept": circuit.mask.kept,
        "edges_total": graph.edges,
        "edges_shown": shown.kept,
        "cut": _is_cut(circuit),
        "states": len(seen),
        "actions": list(loaded.env.action_names),
        "outputs": {node: head for head, node in graph.outputs.items()},
        "nodes": nodes,
        "edges": _edges(circuit, shown, columns),
        "pictures": pictures.encoded,
    }


def _shown(circuit: StoredCircuit) -> Mask:
    """The strongest edges that lead to a decision; of a cut that breaks a habit, the edges that are cut."""
    cut = circuit.mask.vector == 0
    if not _is_cut(circuit):
        return leading(circuit.mask, circuit.scores, _EDGES)
    return top(circuit.mask.graph, cut.float(), min(_EDGES, int(cut.sum())))


def _is_cut(circuit: StoredCircuit) -> bool:
    """Whether it is what `circuit break` left of an agent, with some edges cut."""
    return "habit" in circuit.described["result"] and circuit.mask.kept < circuit.mask.graph.edges


def _columns(graph: Graph, shown: Mask) -> dict[str, list[int]]:
    """The units that edges are shown of, by node."""
    units: dict[str, set[int]] = {}
    for name, dest, source in shown.edges:
        link = graph.link(name)
        units.setdefault(link.source, set()).add(source)
        units.setdefault(link.dest, set()).add(dest)
    return {node: sorted(units[node]) for node in graph.nodes if node in units}


def _edges(circuit: StoredCircuit, shown: Mask, columns: Mapping[str, Sequence[int]]) -> list[list[float]]:
    """`[column, unit, column, unit, score]` of each edge that is shown, by places in the columns; of those that are
    cut the score is -1."""
    graph, place = circuit.mask.graph, {node: i for i, node in enumerate(columns)}
    scores = Mask.of_vector(graph, torch.where(circuit.mask.vector > 0, circuit.scores, -1.0))
    found = []
    for name, dest, source in shown.edges:
        link = graph.link(name)
        score = float(scores.values[name][(dest, source) if link.dense else source])
        ends = (link.source, source), (link.dest, dest)
        found.append([*(x for node, unit in ends for x in (place[node], columns[node].index(unit))), round(score, 6)])
    return found


def _importance(circuit: StoredCircuit) -> dict[str, Tensor]:
    """For each node, the sum of the sizes of its units' scores, over kept edges out of them, or into an output's."""
    graph = circuit.mask.graph
    weighed = Mask.of_vector(graph, circuit.scores.abs() * (circuit.mask.vector > 0))
    found = {name: torch.zeros(node.units) for name, node in graph.nodes.items()}
    for link in graph.links:
        values = weighed.values[link.name]
        found[link.source] += values.sum(0) if link.dense else values
        if not graph.out_of(link.dest):
            found[link.dest] += values.sum(1) if link.dense else values
    return found


def _states(loaded: Loaded, env: LabelledEnv, count: int, seed: int) -> Iterator[_Seen]:
    """Every seventh step of episode after episode."""
    kept = 0
    with evaluating(loaded.agent):
        for step in play_steps(loaded.agent, env, seed, np.random.default_rng(seed)):
            if kept == count:
                return
            if step.number % STRIDE == 0 and step.labels.get("controllable", True):
                yield _Seen(step, env.render())
                kept += 1


@torch.no_grad()
def _activations(loaded: Loaded, graph: Graph, nodes: Sequence[str], seen: Sequence[_Seen]) -> dict[str, Tensor]:
    """Of each node that is a hook point, its value in each state: `[N, units]` or `[N, units, H, W]`; of units that are
    vectors, such as heads, the lengths, position by position."""
    agent, points = loaded.agent, {}
    for node in nodes:
        # The first face has the node's units; the last is what others read. Where they differ, a channel is flattened.
        faces = [face for face in graph.nodes[node].faces if face in agent.hook_points]
        if faces:
            points[node] = faces
    if not points:
        return {}
    names = list(dict.fromkeys(face for faces in points.values() for face in faces))
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for state in seen:
        obs = torch.from_numpy(state.step.obs[None]).to(agent.device)
        _, cache = run_with_cache(agent, obs, state.step.memory or None, names=names)
        for name in names:
            value = cache[name]
            found[name].append((value[-1] if agent.hook_points[name].kind == "recurrent" else value).float().cpu())
    stacked = {name: torch.cat(values) for name, values in found.items()}
    chosen = {}
    for node, faces in points.items():
        fitting = [face for face in faces if stacked[face].shape[1] == graph.nodes[node].units]
        if fitting:
            value = stacked[fitting[-1]]
            chosen[node] = value.norm(dim=-1) if graph.nodes[node].width > 1 else value
    return chosen


class _Pictures:
    """Screens of states, each encoded once."""

    def __init__(self, seen: Sequence[_Seen]):
        self._seen, self._places = seen, {}
        self.encoded: list[str] = []
        """WebPs in base64."""

    def place(self, state: int) -> int:
        if state not in self._places:
            file = io.BytesIO()
            Image.fromarray(self._seen[state].screen).save(file, "WEBP", quality=60)
            self._places[state] = len(self.encoded)
            self.encoded.append(base64.b64encode(file.getvalue()).decode())
        return self._places[state]


def _unit(
    unit: int, importance: Tensor, values: Tensor | None, seen: Sequence[_Seen], concepts: Sequence[str],
    labels: NDArray[np.float64], pictures: _Pictures,
) -> dict[str, Any]:  # fmt: skip
    """What is shown of a unit."""
    shown: dict[str, Any] = {"unit": unit, "importance": round(float(importance), 6)}
    if values is None:
        return shown
    own = values[:, unit].reshape(len(values), -1)
    strength = own.amax(1)
    order = strength.argsort(descending=True, stable=True).tolist()
    episodes, first, others = set(), [], []
    for state in order:
        (others if seen[state].step.episode in episodes else first).append(state)
        episodes.add(seen[state].step.episode)
    strongest = (first + others)[:_STRONGEST]
    shown["mean"] = round(float(own.mean()), 5)
    shown["active"] = round(float((strength > 0).double().mean()), 4)
    shown["top"] = [
        {
            "picture": pictures.place(state), "value": round(float(strength[state]), 4), "episode": step.episode,
            "step": step.number, "action": step.action, "map": _map(values[state, unit]),
        }
        for state, step in ((state, seen[state].step) for state in strongest)
    ]  # fmt: skip
    shown["concepts"] = _concepts(strength.double().numpy(), concepts, labels)
    return shown


def _map(value: Tensor) -> dict[str, Any] | None:
    """Where a channel is active: values from 0 to 255, row by row, in base64."""
    if value.dim() != 2 or value.numel() < 2:
        return None
    positive = value.clamp(min=0)
    scaled = (255 * positive / positive.amax().clamp(min=1e-9)).round().to(torch.uint8)
    rows, columns = value.shape
    return {"rows": rows, "columns": columns, "values": base64.b64encode(scaled.numpy().tobytes()).decode()}


def _concepts(strength: NDArray[np.float64], concepts: Sequence[str], labels: NDArray[np.float64]) -> list[Any]:
    """`[concept, AUROC]` of the concepts that a unit's strength tells best."""
    found = []
    for i, name in enumerate(concepts):
        known = ~np.isnan(labels[:, i])
        truth = labels[known, i]
        if 0 < truth.sum() < len(truth):
            found.append([name, round(float(auroc(truth, strength[known], np.ones((1, len(truth))))[0]), 3)])
    return sorted(found, key=lambda each: -abs(each[1] - 0.5))[:_CONCEPTS]
