"""Circuits under a run: `analyses/circuits/NAME/` with `circuit.json` and `circuit.safetensors`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.coded import Coded, coded
from rl_interp.circuits.graph import Graph
from rl_interp.circuits.judging import played_with
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Circuit, Values
from rl_interp.circuits.trace import trace
from rl_interp.core.config import to_plain
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import atomic_path, write_json
from rl_interp.core.read import read_json
from rl_interp.core.weights import Weights

if TYPE_CHECKING:
    from rl_interp.circuits.discovery.discovery import Discovery

CONFIG, WEIGHTS = "circuit.json", "circuit.safetensors"
_BYTES = 32 << 20
"""What is kept of replacements that differ from state to state, at most."""
_FEWEST = 16
"""States of which they are kept however large they are: what is put in place at play is drawn from them."""
_AGAIN = "find it again by `rl-interp circuit discover`"


@dataclass(frozen=True)
class Stored:
    """A circuit as it is stored."""

    loaded: Loaded
    found: "Discovery"
    mask: Mask
    reference: Values
    config: Any
    """A dataclass: how it was found."""


@dataclass(frozen=True)
class StoredCircuit:
    """A circuit as it is read."""

    name: str
    loaded: Loaded
    """The agent that it is of, with a dictionary's latents where it was found among them."""
    mask: Mask
    scores: Tensor
    reference: Values
    described: Mapping[str, Any]
    """What `circuit.json` says."""

    def intervention(self, mask: Mask | None = None, label: str = "circuit", seed: int = 0) -> Circuit:
        """The agent with the circuit alone, or with another mask and the same replacements."""
        reference = played_with(self.reference, seed)
        whole = self.loaded.agent if isinstance(self.loaded, Coded) else None
        return Circuit(mask=self.mask if mask is None else mask, reference=reference, coded=whole, label=label)


def circuit_path(loaded: Loaded, name: str) -> Path:
    """Where a run keeps a circuit; a path with a slash is taken as it is."""
    return Path(name) if "/" in name else loaded.run.outputs / "analyses" / "circuits" / name


def free_name(name: str | None, method: str, replace: str, when: str | None) -> str:
    """The name that is given, or one made of what the circuit is."""
    return name or "-".join([method, replace, *([when.replace(" ", "-")] if when else [])])


def save_circuit(folder: Path, stored: Stored, result: Mapping[str, Any]) -> None:
    """Write a circuit, whole or not at all.

    Raises:
        RunError: the folder holds something else.
    """
    graph = stored.mask.graph
    described = {
        "weights_sha256": stored.loaded.weights_sha256,
        "links": {link.name: list(link.shape) for link in graph.links},
        "settings": to_plain(stored.config),
        "details": dict(stored.found.details),
        "result": dict(result),
    }
    kept = {f"reference.{key}": value for key, value in _few(stored.reference).items()}
    tensors = {"mask": (stored.mask.vector > 0).to(torch.uint8), "scores": stored.found.scores.float(), **kept}
    with atomic_path(folder, (CONFIG, WEIGHTS)) as temporary:
        temporary.mkdir()
        write_json(temporary / CONFIG, described)
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary / WEIGHTS)


def read_circuit(loaded: Loaded, folder: Path | str) -> StoredCircuit:
    """Read a circuit of an agent.

    Args:
        folder: its directory, or its name under the run's `analyses/circuits/`.

    Raises:
        RunError: it is missing or damaged.
        UserError: it is of another agent, or of another checkpoint.
    """
    folder = circuit_path(loaded, str(folder))
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder} holds no circuit: {CONFIG} is missing; {_AGAIN}.")
    described = read_json(folder / CONFIG, _AGAIN)
    if described.get("weights_sha256") != loaded.weights_sha256:
        raise UserError(
            f"{folder} is a circuit of another agent or checkpoint than step {loaded.step} of {loaded.run.path}; give "
            "that one, or find a circuit of this one."
        )
    loaded = _with_its_latents(loaded, described.get("result", {}), folder)
    graph = graph_of(loaded)
    if described.get("links") != {link.name: list(link.shape) for link in graph.links}:
        raise RunError(f"{folder} has other links than the agent, so it is damaged or of another version; {_AGAIN}.")
    tensors = Weights(folder / WEIGHTS, _AGAIN).load()
    if any(tuple(tensors[name].shape) != (graph.edges,) if name in tensors else True for name in ("mask", "scores")):
        raise RunError(f"{folder / WEIGHTS} has no mask or scores of {graph.edges} edges; {_AGAIN}.")
    reference = {key: tensors[f"reference.{key}"] for key in graph.keys if f"reference.{key}" in tensors}
    return StoredCircuit(
        folder.name, loaded, Mask.of_vector(graph, tensors["mask"].float()), tensors["scores"], reference, described
    )


def _with_its_latents(loaded: Loaded, result: Mapping[str, Any], folder: Path) -> Loaded:
    if "sae" not in result or isinstance(loaded, Coded):
        return loaded
    found = coded(loaded, result["sae"])
    if found.source["sae_sha256"] != result["sae_sha256"]:
        raise UserError(f"{folder} is a circuit of latents of {result['sae']}, which was fitted anew since; {_AGAIN}.")
    return found


def load_circuit(loaded: Loaded, folder: Path | str) -> Circuit:
    """A stored circuit as an intervention, for `evaluate`, films and saliency: the agent with the circuit alone.

    Raises:
        As `read_circuit`.
    """
    return read_circuit(loaded, folder).intervention()


def graph_of(loaded: Loaded) -> Graph:
    """The graph of a run's agent."""
    obs, _ = make_labelled(loaded.env).reset(seed=0)
    return trace(loaded.agent, torch.from_numpy(obs[None]).to(loaded.agent.device))


def _few(reference: Values) -> dict[str, Tensor]:
    """All of a reference that is the same in all states; else of states as far apart as possible, as many as fit, as
    those that follow each other are much alike."""
    each = sum(value[0].numel() * 4 for value in reference.values() if len(value) > 1)

    def some(value: Tensor) -> Tensor:
        count = min(len(value), max(_FEWEST, _BYTES // max(1, each)))
        return value[torch.linspace(0, len(value) - 1, count).round().long()]

    return {key: value if len(value) == 1 else some(value) for key, value in reference.items()}
