"""How many edges a transformer's circuit needs, by what takes the place of those that are cut, and by how it is found:
distances of circuits of many sizes, on prompts that they were not found on; and what each head and MLP loses.

    python -m benchmarks.transformers.optimal_circuits measure runs/names     # four minutes of one core; resumes
    python -m benchmarks.transformers.optimal_circuits report                 # tables and the picture

Li & Janson 2024 (arXiv 2409.09951) have this of GPT-2, which is not here.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.circuits.layers import ImportanceConfig, measure_layer
from rl_interp.analysis.circuits.states import play_states
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.acdc import ACDCConfig, acdc
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.constants import ConstantsConfig, fit_constants
from rl_interp.circuits.discovery.discovery import Discovery, measured
from rl_interp.circuits.discovery.ugs import UGSConfig, ugs
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.optimal import OptimalConfig
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.read import read_json
from rl_interp.core.tables import markdown

OUT = Path(__file__).parents[2] / "docs" / "results" / "transformers"
KINDS = ("optimal", "mean", "counterfactual", "resample", "zero")
METHODS = ("eap-ig", "acdc", "ugs")
SIZES = (4, 8, 16, 32, 64, 128)
THRESHOLDS = (0.1, 0.02, 0.004)
PRICES = (3.0, 0.7)
"""Of an edge, in UGS."""
STATES, HELD_OUT = 64, 128
_TICKS = (3, 5, 10, 20, 50, 100)
CONSTANTS = ConstantsConfig(updates=60)


def measure(run: str) -> None:
    """Write `optimal.json`, kind by kind."""
    loaded, path = load_agent(run), OUT / "optimal.json"
    source = loaded.source | {"run": loaded.run.path.name}
    found = read_json(path) if path.exists() else {"source": source, "circuits": {}, "parts": {}}
    if not found["parts"]:
        found["parts"] = _parts(loaded)
        write_json(path, found)
    for kind in KINDS:
        circuits = found["circuits"].setdefault(kind, {})
        here, held_out = (_behaviour(loaded, kind, *drawn) for drawn in ((STATES, 0), (HELD_OUT, 100_000)))
        if all(len(value) == 1 for value in here.reference.values()):
            held_out = held_out.with_reference(here.reference)
        for method in METHODS:
            if method not in circuits:
                started = time.process_time()
                circuits[method] = _circuits(method, here, held_out) | {"seconds": time.process_time() - started}
                write_json(path, found)
                print(kind, method, f"{circuits[method]['seconds']:.0f} s", flush=True)


def _behaviour(loaded: Loaded, kind: str, count: int, seed: int) -> Behaviour:
    states = play_states(loaded, count, seed, "corrupted" if kind == "counterfactual" else None)
    return Behaviour.of(loaded.agent, states, kind, seed=seed)


def _circuits(method: str, here: Behaviour, held_out: Behaviour) -> dict[str, Any]:
    """Edges and distance of each circuit, and what it took to find it."""
    rows, nothing = [], held_out.require()
    for setting in {"eap-ig": (0,), "acdc": THRESHOLDS, "ugs": PRICES}[method]:
        try:
            discovery = _found(method, here, setting)
        except UserError as error:  # too high a price of edges
            print(error, flush=True)
            continue
        sizes = SIZES if discovery.mask is None else (None,)
        for size in sizes:
            mask = discovery.circuit(size)
            with measured() as fitted:
                distance = _distance(discovery, mask, here, held_out)
            rows.append({
                "setting": setting, "edges": mask.kept, "kl": distance, "forwards": discovery.cost.forwards,
                "backwards": discovery.cost.backwards, "forwards_of_constants": fitted.forwards,
            })  # fmt: skip
    return {"nothing": nothing, "circuits": rows}


def _found(method: str, here: Behaviour, setting: float) -> Discovery:
    if method == "eap-ig":
        return attribute(here, 5)
    if method == "acdc":
        return acdc(here[:32], ACDCConfig(threshold=setting, steps=2))
    config = UGSConfig(sparsity=setting, updates=100, masks=5, rate=0.06, constants=CONSTANTS)
    return ugs(here, config)


def _distance(discovery: Discovery, mask: Mask, here: Behaviour, held_out: Behaviour) -> float:
    """On the held-out prompts; of optimal constants, with those fitted to this circuit."""
    if here.replace == "optimal":
        of_ugs = discovery.method == "ugs"
        reference = discovery.reference if of_ugs else fit_constants(here, mask, CONSTANTS)
        held_out = held_out.with_reference(reference)
    return float(held_out.mean_distances(mask))


def _parts(loaded: Loaded) -> dict[str, Any]:
    """By kind, the distance without each head and each MLP."""
    kinds = ("zero", "mean", "resample", "counterfactual", "optimal")
    config = ImportanceConfig(kinds=kinds, states=64, optimal=OptimalConfig(updates=40))
    states, bank = play_states(loaded, 64, 0, "corrupted"), play_states(loaded, 128, 100_000)
    found: dict[str, Any] = {"forwards": 0.0}
    for part in ("heads", "mlp"):
        names = [f"terms.block{block}.{part}" for block in range(loaded.run.config["layers"])]
        layers = [measure_layer(loaded.agent, name, states, bank, config) for name in names]
        found[part] = {kind: np.concatenate([layer.kl(kind) for layer in layers]).tolist() for kind in kinds}
        found["forwards"] += sum(layer.passes.count for layer in layers)
    return found


def report() -> None:
    """Print tables and draw the picture."""
    found = read_json(OUT / "optimal.json")
    rows = []
    for kind in KINDS:
        for method in METHODS:
            if (each := found["circuits"].get(kind, {}).get(method)) is None:
                continue
            shown = ", ".join(f"{row['edges']}: {row['kl']:.3f}" for row in _best(each["circuits"]))
            cost = max(row["forwards"] + row["backwards"] for row in each["circuits"])
            rows.append([kind, method, f"{each['nothing']:.2f}", _least(each, 0.1), shown, f"{cost:,}"])
    print(markdown(["in the place of cut edges", "method", "KL without any", "edges for .1 nats", "edges: KL",
                    "passes of one circuit"], rows))  # fmt: skip
    for part in ("heads", "mlp"):
        kl = {kind: np.array(values) for kind, values in found["parts"][part].items()}
        shares = {kind: float(np.median(kl["optimal"] / np.maximum(kl[kind], 1e-9))) for kind in kl}
        print(
            part, len(kl["optimal"]), {kind: round(float(np.median(values)), 5) for kind, values in kl.items()}, shares
        )
    _picture(found)


def _best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["edges"])


def _least(each: dict[str, Any], kl: float) -> str:
    """Edges of the smallest circuit that is so near."""
    enough = [row["edges"] for row in each["circuits"] if row["kl"] <= kl]
    return str(min(enough)) if enough else "none"


def _picture(found: dict[str, Any]) -> None:
    figure, axes = new_figure(1, len(METHODS), 13.5, 4.2, sharex=True, sharey=True)
    for method, axis in zip(METHODS, axes.flat, strict=True):
        for i, kind in enumerate(KINDS):
            if (each := found["circuits"].get(kind, {}).get(method)) is None:
                continue
            rows = [row for row in _best(each["circuits"]) if row["edges"]]
            look: dict[str, Any] = {"color": "black", "zorder": 3} if kind == "optimal" else {"color": f"C{i}"}
            axis.plot([row["edges"] for row in rows], [max(row["kl"], 1e-4) for row in rows], ".-", label=kind, **look)
        axis.axhline(0.1, color="0.8", linewidth=0.8, zorder=0)
        axis.set_xscale("log")
        axis.set_xticks(_TICKS, [str(tick) for tick in _TICKS])
        axis.set_xticks([], minor=True)
        axis.set_yscale("log")
        axis.set_title(method)
        axis.set_xlabel("edges of the circuit, of 262")
    axes.flat[0].set_ylabel("KL on other prompts, nats")
    handles = axes.flat[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", title="in the place\nof cut edges", fontsize=8)
    save_figure(figure, OUT / "optimal.png")


def main(arguments: list[str]) -> None:
    """Measure, or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["measure", "report"])
    parser.add_argument("run", nargs="?", default="runs/names")
    asked = parser.parse_args(arguments)
    measure(asked.run) if asked.what == "measure" else report()


if __name__ == "__main__":
    main(sys.argv[1:])
