"""What self-ablation changes in an agent: its return and its ablated stream's, how well dictionaries of one size fit,
how many edges a circuit of equal faithfulness has, and the leak test, whether the masks alone tell the action.

A mask is made by the agent itself, so it can carry the decision instead of cutting away what the decision does not
need. What can be read from masks is told by probes, fitted on some episodes and scored on others, beside the same
probes on the activations of the same units, each binarised at its median, and beside shuffled labels. What the ablated
stream can live on is tested in closed loop: with the fully connected layer's winners at constants, all that is after
that layer is told which units won, and nothing else.

<study>/<run>.json    the figures of one run
        table.md      all runs, a line for each environment and k
        stores/ dictionaries/
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.impala.self_ablation import ablated, kept, winners
from rl_interp.agents.load import Loaded, load_agent, new_run_path
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.playing import collect_store, score
from rl_interp.analysis.sae.evaluation import metrics_json
from rl_interp.analysis.sae.fitting import fit_runs
from rl_interp.analysis.sae.runs import load_sae
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.acdc import ACDCConfig, acdc
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.discovery import Discovery
from rl_interp.circuits.discovery.ugs import UGSConfig, ugs
from rl_interp.circuits.trace import trace
from rl_interp.core.agent import Agent
from rl_interp.core.config import to_plain
from rl_interp.core.errors import UserError, at_least_one, require_numbers
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import Site, run_with_cache
from rl_interp.core.interventions import Intervention, Mean, as_hooks
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import read_json
from rl_interp.core.replay import replay
from rl_interp.core.stats import bootstrap, mean, plain
from rl_interp.core.store import ActivationStore
from rl_interp.core.tables import markdown
from rl_interp.sae import SAEConfig

FAITHFUL = 0.9
"""Share of the distance without any edge that a circuit makes up for, on states that it was not found on."""
HELD_OUT = 0.3
"""Share of the episodes that probes are scored on."""
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
        behaviour, ACDCConfig(candidates=min(settings.candidates or behaviour.graph.edges, behaviour.graph.edges))
    ),
    "ugs": lambda behaviour, settings: ugs(behaviour, UGSConfig(updates=settings.updates)),
}


@dataclass(frozen=True)
class MostActive(Intervention):
    """Keep the k units with the largest activation, of channels the largest mean, and set the others to zero."""

    k: int = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        return kept(value, winners(_by_unit(value), self.k))


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
        "active": {name: float((units > 0).mean()) for name, units in seen.units.items()},
        "dictionaries": {hook: _dictionaries(loaded, store, folder, settings) for hook, store in stores.items()},
        "circuits": _circuits(loaded, settings, progress),
        "bits": _bits(seen),
        "leak": leak(seen),
    }
    write_json(path, result)
    return result


@dataclass(frozen=True)
class Followed:
    """What an agent and its ablated stream computed along N recorded steps, by layer (`fc`, `conv1`)."""

    episodes: NDArray[np.int64]
    """`[N]`."""
    actions: NDArray[np.int64]
    """`[N]`: the agent's greedy ones."""
    units: dict[str, NDArray[np.float32]]
    """`[N, D]`: the agent's activations; of channels, their mean over positions."""
    masks: dict[str, NDArray[np.bool_]]
    """`[N, D]`: which units won in the ablated stream; none without one."""
    won: dict[str, NDArray[np.float32]]
    """`[D]`: a unit's mean activation in the ablated stream where it won."""


@torch.no_grad()
def follow(loaded: Loaded, store: ActivationStore) -> Followed:
    """The recorded episodes of a store, followed by the agent and by its ablated stream."""
    agent, parts = loaded.agent, []
    k = loaded.run.config.get("self_ablation", 0)
    for number, episode in enumerate(replay(loaded.env, store)):
        obs = torch.from_numpy(episode.obs)[:, None]
        names = list(layers(agent))
        out, cache = run_with_cache(agent, obs, names=[f"{name}.post" for name in names], unroll=True)
        part = {f"units {name}": _by_unit(cache[f"{name}.post"]) for name in names}
        if k:
            stream = ablated(agent)
            points = [point for each in stream for point in (each.at, each.scores)]
            _, cache = run_with_cache(agent, obs, names=points, hooks=as_hooks(stream), unroll=True)
            for each in stream:
                name = each.at.removesuffix(".post")
                part |= {f"masks {name}": winners(cache[each.scores], k), f"cut {name}": _by_unit(cache[each.at])}
        part["actions"] = out.preferences.argmax(-1).flatten()
        parts.append({name: value.numpy() for name, value in part.items()} | {"episodes": np.full(len(obs), number)})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def of(kind: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(kind): whole[name] for name in whole if name.startswith(kind)}

    masks = {name: mask > 0 for name, mask in of("masks ").items()}
    won = {name: cut.sum(0) / np.maximum(masks[name].sum(0), 1) for name, cut in of("cut ").items()}
    return Followed(whole["episodes"], whole["actions"], of("units "), masks, won)


def layers(agent: Agent, wider_than: int = 0) -> Iterator[str]:
    """The layers with a nonlinearity that self-ablation can cut: `conv1`, `block1.res1`, `fc` and so on."""
    for name, point in agent.hook_points.items():
        before = agent.hook_points.get(name.removesuffix(".post") + ".pre")
        if name.endswith(".post") and before is not None:
            width = len(agent.get_submodule(before.path).weight)  # pyright: ignore[reportArgumentType]
            if width > wider_than and point.kind != "recurrent":
                yield name.removesuffix(".post")


def _by_unit(value: Tensor) -> Tensor:
    """`[B, D]`: of channels, the mean over positions."""
    return value.flatten(2).mean(2) if value.dim() > 2 else value


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


def leak(seen: Followed, seed: int = 0) -> dict[str, Any]:
    """Share of held-out steps whose greedy action a probe tells, with its 95% bootstrap interval over episodes, by what
    it is fitted on (`fc` alone, or all layers together) and by probe."""
    held_out = _held_out(seen.episodes, seed)
    sets: dict[str, NDArray[np.bool_]] = {}
    units = {name: seen.units[name] for name in _bits(seen)}
    for name, columns in (("masks", seen.masks), ("units at their medians", _binarised(units, ~held_out))):
        if columns:
            sets |= {f"{name}, fc": columns["fc"], f"{name}, all": np.concatenate(list(columns.values()), 1)}
    most = np.bincount(seen.actions[~held_out]).argmax()
    result = {"most frequent action": _accuracy(seen.actions[held_out] == most, seen.episodes[held_out])}
    shuffled = seen.actions.copy()
    shuffled[~held_out] = np.random.default_rng(seed).permutation(shuffled[~held_out])
    for name, bits in sets.items():
        for labels, suffix in ((seen.actions, ""), (shuffled, ", shuffled labels")):
            for kind in ("linear", "mlp") if name.endswith("all") else ("linear",):
                right = _probe(kind, bits, labels, held_out, seed) == seen.actions[held_out]
                result[f"{kind}: {name}{suffix}"] = _accuracy(right, seen.episodes[held_out])
    return result


def _held_out(episodes: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """`[N]`: whether a step is of the episodes to be scored on; whole ones, as the steps of one are alike."""
    order = np.random.default_rng(seed).permutation(np.unique(episodes))
    if len(order) < 2:
        raise UserError(
            f"the {len(episodes)} recorded steps are of one episode, and probes are scored on other episodes than they "
            "are fitted on; record more (--samples)."
        )
    return np.isin(episodes, order[: max(1, round(HELD_OUT * len(order)))])


def _bits(seen: Followed) -> dict[str, int]:
    """By layer, the units that are masked or, without masks, all: the bits that a probe is given."""
    return {name: bits.shape[1] for name, bits in (seen.masks or seen.units).items()}


def _binarised(units: dict[str, NDArray[np.float32]], fitted: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    return {name: values > np.median(values[fitted], 0) for name, values in units.items()}


def _probe(
    kind: str, bits: NDArray[np.bool_], labels: NDArray[np.int64], held_out: NDArray[np.bool_], seed: int
) -> NDArray[np.int64]:
    """What a probe, fitted on the other steps, says of those held out."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if len(np.unique(labels[~held_out])) == 1:
        return labels[~held_out][:1]
    linear = LogisticRegression(max_iter=100, C=0.1)
    model = linear if kind == "linear" else MLPClassifier((64,), max_iter=20, random_state=seed)
    given = bits.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many steps are all that it is given
        return np.asarray(model.fit(given[~held_out], labels[~held_out]).predict(given[held_out]))


def _accuracy(right: NDArray[np.bool_], episodes: NDArray[np.int64]) -> dict[str, Any]:
    """The share of all steps; its interval is by drawing whole episodes, long ones and short ones."""
    number = np.unique(episodes, return_inverse=True)[1]
    rights, steps = np.bincount(number, right), np.bincount(number)

    def share(drawn: NDArray[np.float64]) -> float:
        rows = drawn.astype(int)
        return rights[rows].sum() / steps[rows].sum()

    found = bootstrap([np.arange(len(steps))], share)
    return {"value": found.value, "interval": plain(found)}


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
