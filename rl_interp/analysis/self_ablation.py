"""What self-ablation changes in an agent: its return and its ablated stream's, how well dictionaries of one size fit,
how many edges a circuit of equal faithfulness has, and the leak test, whether the masks alone tell the action.

What the ablated stream can live on is tested in closed loop: with the fully connected layer's winners at constants, all
that is after that layer is told which units won, and nothing else. What masks tell is in `self_ablation_leak`.

<study>/<run>.json    the figures of one run
        table.md      all runs, a line for each environment and k
        stores/ dictionaries/
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.impala.self_ablation import ablated, kept, winners
from rl_interp.agents.load import Loaded, load_agent, new_run_path
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.playing import collect_store, score
from rl_interp.analysis.sae.evaluation import metrics_json
from rl_interp.analysis.sae.fitting import fit_runs
from rl_interp.analysis.sae.runs import load_sae
from rl_interp.analysis.self_ablation_leak import Followed, bits_of, by_unit, follow, information, layers, leak
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.acdc import ACDCConfig, acdc
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.discovery import Discovery
from rl_interp.circuits.discovery.ugs import UGSConfig, ugs
from rl_interp.circuits.trace import trace
from rl_interp.core.config import to_plain
from rl_interp.core.errors import UserError, at_least_one, require_numbers
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import Site
from rl_interp.core.interventions import Intervention, Mean
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import read_json
from rl_interp.core.stats import bootstrap, mean, plain
from rl_interp.core.store import ActivationStore
from rl_interp.core.tables import markdown
from rl_interp.sae import SAEConfig

FAITHFUL = 0.9
"""Share of the distance without any edge that a circuit makes up for, on states that it was not found on."""
KS = (8, 32)
"""Most active units that are kept in the control that needs no training."""
_SEED = 1_000
Method = Literal["eap-ig", "acdc", "ugs"]


@dataclass(frozen=True)
class Settings:
    """What is measured of each run; one measured with other settings is measured anew."""

    episodes: int = 100
    """Whole episodes in each condition."""
    samples: int = 8_000
    """Steps that dictionaries and probes are fitted and scored on."""
    latents: int = 512
    """Width of the dictionaries."""
    ks: tuple[int, ...] = (2, 4, 8)
    """Latents that are active in a sample: a dictionary of each."""
    epochs: float = 8.0
    """Passes over the samples."""
    states: int = 128
    """States that circuits are found on, and as many others that they are measured on."""
    methods: tuple[Method, ...] = ("eap-ig",)
    """How circuits are found."""
    candidates: int | None = None
    """Edges, the first by attribution, that ACDC looks at; by default all."""
    updates: int = UGSConfig.updates
    """Steps of uniform gradient sampling."""

    def __post_init__(self) -> None:
        at_least_1 = ("episodes", "samples", "latents", "ks", "states", "candidates", "updates")
        require_numbers(self, at_least_1=at_least_1, positive=("epochs",))


_METHODS: dict[Method, Callable[[Behaviour, Settings], Discovery]] = {
    "eap-ig": lambda behaviour, settings: attribute(behaviour, steps=5, absolute=True),
    "acdc": lambda behaviour, settings: acdc(
        behaviour, ACDCConfig(candidates=settings.candidates and min(settings.candidates, behaviour.graph.edges))
    ),
    "ugs": lambda behaviour, settings: ugs(behaviour, UGSConfig(updates=settings.updates)),
}


@dataclass(frozen=True)
class MostActive(Intervention):
    """Keep the k units with the largest activation, of channels the largest mean, and set the others to zero."""

    k: int = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        return kept(value, winners(by_unit(value), self.k))


def self_ablation_study(
    runs: Sequence[Path | str], name: str, settings: Settings | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Measure IMPALA runs, trained with and without `--self-ablation`, and write a table.

    A run that was measured already, with the same settings and weights, is not measured again.

    Args:
        name: of the study under `runs/`, or its path.

    Raises:
        UserError, RunError: no runs, or one that holds no IMPALA agent.
    """
    at_least_one(runs=len(runs))
    path = new_run_path(name)
    results = [_measured(_load(run), path, settings or Settings(), progress) for run in runs]
    write_text(path / "table.md", table(results))
    return {"run": str(path), "table": str(path / "table.md"), "result": results}


def _load(run: Path | str) -> Loaded:
    loaded = load_agent(run, device="cpu")
    if (kind := loaded.run.meta["kind"]) != "impala":
        raise UserError(f"{loaded.run.path} is a run of kind {kind!r}; give runs of `rl-interp train impala`.")
    return loaded


def _measured(loaded: Loaded, folder: Path, settings: Settings, progress: Progress) -> dict[str, Any]:
    path, known = folder / f"{loaded.run.path.name}.json", loaded.source | to_plain(settings)
    if path.exists() and (found := read_json(path, "remove the file to measure again")).get("of") == known:
        return found
    hidden = "lstm.h" if "lstm.h" in loaded.agent.hook_points else "fc.post"
    stores = {}
    for hook in dict.fromkeys(("fc.post", hidden)):
        to = folder / "stores" / loaded.run.path.name / hook
        stores[hook] = collect_store(loaded, hook, settings.samples, to, epsilon=0.0, progress=progress)
    seen = follow(loaded, stores["fc.post"])
    result = {
        "of": known,
        "env": loaded.env.id,
        "self_ablation": loaded.run.config.get("self_ablation", 0),
        "seed": loaded.run.meta["seed"],
        "conditions": _conditions(loaded, seen, settings.episodes, progress),
        "state_information": {stream: information(policy) for stream, policy in seen.policies.items()},
        "active": {name: float((units > 0).mean()) for name, units in seen.units.items()},
        "dictionaries": {hook: _dictionaries(loaded, store, folder, settings) for hook, store in stores.items()},
        "circuits": _circuits(loaded, settings, progress),
        "bits": bits_of(seen),
        "leak": leak(seen),
    }
    write_json(path, result)
    return result


def _conditions(loaded: Loaded, seen: Followed, episodes: int, progress: Progress) -> dict[str, Any]:
    """By condition, all on the same episodes: the agent; its ablated stream; that with the fully connected layer's
    winners at constants; and the agent with its most active units kept, whether it was trained for that or not."""
    conditions: dict[str, Sequence[Intervention]] = {"agent": []}
    if seen.masks:
        stream = ablated(loaded.agent)
        constants = Mean("fc.post", mean=torch.from_numpy(seen.won["fc"]))
        conditions |= {"ablated": stream, "ablated, fc.post by its mask alone": [constants, *stream]}
    for k in KS:
        if cut := [MostActive(f"{name}.post", k=k) for name in layers(loaded.agent, k)]:
            conditions[f"{k} most active units kept"] = cut
    found = {}
    for name, changes in conditions.items():
        returns = score(loaded, episodes, _SEED, 0.0, progress, changes).returns
        found[name] = {
            "mean": mean(returns),
            "interval": plain(bootstrap([returns], mean)),
            "returns": returns.tolist(),
        }
    return found


def _dictionaries(
    loaded: Loaded, store: ActivationStore, folder: Path, settings: Settings
) -> dict[str, dict[str, float]]:
    """By latents active in a sample: the figures of a dictionary of that many, on held-out episodes."""
    configs = {
        folder / "dictionaries" / f"{loaded.run.path.name}-{store.hook}-k{k}": SAEConfig(
            latents=settings.latents,
            k=k,
            epochs=settings.epochs,
            policy_weight=0.0,  # it is compared how well activations are explained, of agents with different policies
        )
        for k in settings.ks
    }
    fit_runs(loaded, store, configs)
    found = {}
    for path, config in configs.items():
        figures = metrics_json(load_sae(path, "cpu", [loaded, store]), in_memory=False)
        found[f"k{config.k}"] = {name: float(figures[name]) for name in ("fvu", "l0", "dead_fraction")}
    return found


def _circuits(loaded: Loaded, settings: Settings, progress: Progress) -> dict[str, dict[str, Any]]:
    """By method: the edges of its smallest circuit that is `FAITHFUL`, with what is cut at its mean over states. None
    where the agent decides the same without any edge."""
    agent = loaded.agent
    played = play_states(loaded, 2 * settings.states, _SEED, progress=progress)
    states, others = played[: settings.states], played[settings.states :]
    graph = trace(agent, states.obs, states.memory)
    candidates = sum(link.edges for link in graph.links if not link.dest.endswith(".scores"))  # those lead nowhere
    behaviour, held_out = (Behaviour.of(agent, each, bank=states, graph=graph) for each in (states, others))
    found = {}
    for method in settings.methods:
        try:
            discovery = _METHODS[method](behaviour, settings)
            edges = smallest(held_out, discovery, FAITHFUL)
        except UserError:  # no behaviour to be found
            discovery = edges = None
        found[method] = {
            "edges": edges, "candidates": candidates, "forwards": discovery and discovery.cost.forwards,
        }  # fmt: skip
    return found


def smallest(behaviour: Behaviour, discovery: Discovery, faithful: float) -> int | None:
    """Edges of a discovery's smallest circuit of that faithfulness: of sizes that rise by √2, so that it may be larger
    than need be by that. None where none is."""
    sizes = np.unique(
        np.geomspace(8, discovery.graph.edges, 1 + round(2 * np.log2(discovery.graph.edges / 8))).astype(int)
    )
    for count in sizes.tolist():
        circuit = discovery.circuit(count)
        if behaviour.faithfulness(circuit) >= faithful:
            return circuit.kept
    return None


def table(results: Sequence[dict[str, Any]]) -> str:
    """A line for each environment and k: means over runs, with the lowest and the highest."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["env"], result["self_ablation"]), []).append(result)
    heads = ["environment", "k", "runs", *_COLUMNS]
    rows = [
        [env, k or "none", len(group), *(_over_runs([find(each) for each in group]) for find in _COLUMNS.values())]
        for (env, k), group in groups.items()
    ]
    return markdown(heads, rows)


def _return_of(condition: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda result: result["conditions"].get(condition, {}).get("mean")


def _leak_of(what: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda result: result["leak"].get(what, {}).get("value")


def _fvu(result: dict[str, Any], hook: str, k: int) -> float | None:
    return result["dictionaries"].get(hook, {}).get(f"k{k}", {}).get("fvu")


_COLUMNS: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "return": _return_of("agent"),
    "of the ablated stream": _return_of("ablated"),
    "with fc.post by its mask alone": _return_of("ablated, fc.post by its mask alone"),
    "nats of the state in an action": lambda result: result.get("state_information", {}).get("agent"),
    "in one of the ablated stream": lambda result: result.get("state_information", {}).get("ablated"),
    "8 most active units kept": _return_of("8 most active units kept"),
    "32 most active units kept": _return_of("32 most active units kept"),
    "active in fc.post": lambda result: result["active"]["fc"],
    "FVU of fc.post, 4 latents": lambda result: _fvu(result, "fc.post", 4),
    "FVU of lstm.h, 4 latents": lambda result: _fvu(result, "lstm.h", 4),
    "edges, EAP-IG": lambda result: result["circuits"].get("eap-ig", {}).get("edges"),
    "edges, ACDC": lambda result: result["circuits"].get("acdc", {}).get("edges"),
    "edges, UGS": lambda result: result["circuits"].get("ugs", {}).get("edges"),
    "action from masks, linear": _leak_of("linear: masks, all"),
    "action from units, linear": _leak_of("linear: units at their medians, all"),
    "most frequent action": _leak_of("most frequent action"),
}


def _over_runs(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    form = ".3f" if all(value < 8 for value in known) else ".0f"
    return f"{np.mean(known):{form}} ({min(known):{form}}, {max(known):{form}})" if known else ""
