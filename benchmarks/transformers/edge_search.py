"""Which of ten edges a task of a small transformer needs: a policy that learned to prune, beside other searches after
equally many masks, and on a task that it never saw.

    python -m benchmarks.transformers.edge_search search runs/mixed      # some ten minutes of one core
    python -m benchmarks.transformers.edge_search report

The second version of arXiv 2605.26343, as `benchmarks.circuit_search` measures it of other agents: candidates are
the ten edges of greatest integrated attribution, all masks are scored beforehand, so that the best is known, and what
is cut is replaced by what it is in another text. Policies learn from induction, indirect objects and years; docstrings
are held out.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.circuit_search import ALONE, BUDGETS, OTHERS, STEPS, Row, budgets_of, search_one, search_unseen
from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.circuits.states import play_states
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.rl.baselines import oracle
from rl_interp.circuits.discovery.rl.candidates import edges_by_attribution
from rl_interp.circuits.discovery.rl.task import BehaviourScorer, Found, Task, tabulated
from rl_interp.core.files import write_json
from rl_interp.core.read import read_json
from rl_interp.core.tables import markdown

OUT = Path(__file__).parents[2] / "docs" / "results" / "transformers" / "edge-search.json"
SEEN, HELD_OUT = ("induction", "ioi", "greater-than"), "docstring"
STATES, BANK, CANDIDATES = 16, 64, 10


def task_of(loaded: Loaded, name: str) -> Task:
    """A task of the model, with all masks of its candidates scored."""
    bank = play_states(loaded, BANK, 1000)
    behaviour = Behaviour.of(loaded.agent, play_states(loaded, STATES, 0, when=name), "resample", bank=bank)
    selection = edges_by_attribution(behaviour.graph, attribute(behaviour, STEPS).scores, CANDIDATES)
    return tabulated(Task(name, selection.candidates, BehaviourScorer(behaviour, selection)))


def search(run: str, seeds: Sequence[int]) -> None:
    """Write `edge-search.json`, seed by seed."""
    loaded, start = load_agent(run), time.process_time()
    tasks = {name: task_of(loaded, name) for name in (*SEEN, HELD_OUT)}
    best = {name: oracle(task) for name, task in tasks.items()}
    oracles = {name: _told(tasks[name], found) for name, found in best.items()}
    print(oracles, f"{time.process_time() - start:.0f} s", flush=True)
    rows: list[Row] = []
    for seed in seeds:
        for task in tasks.values():
            rows += search_one(task, seed)
        for others in OTHERS:
            rows += search_unseen(others, [tasks[name] for name in SEEN], [tasks[HELD_OUT]], seed)
        write_json(OUT, {
            "source": loaded.source | {"run": loaded.run.path.name}, "states": STATES, "oracles": oracles,
            "rows": [asdict(row) for row in rows],
        })  # fmt: skip
        print(f"seed {seed}: {time.process_time() - start:.0f} s", flush=True)


def _told(task: Task, found: Found) -> dict[str, Any]:
    kept = [edge for edge, kept in zip(task.candidates.names, found.kept, strict=True) if kept]
    return {"potential": found.potential, "faithfulness": found.faithfulness, "kept": kept}


def report() -> None:
    """Print regret after equally many masks: of all tasks, and of the one held out."""
    found = read_json(OUT)
    rows = [
        row | {"regret": {str(budget): regret for budget, regret in row["regret"].items()}} for row in found["rows"]
    ]
    print(budgets_of(rows, [*SEEN, HELD_OUT], ALONE))
    print(budgets_of(rows, [HELD_OUT], (*ALONE, *OTHERS)))
    for name in (*SEEN, HELD_OUT):
        print(name, found["oracles"][name])
    once = [[row["search"], row["seed"], row["scored"], f"{min(row['regret'].values()):.3f}"]
            for row in rows if "one episode" in row["search"] or "last policy" in row["search"]]  # fmt: skip
    print(markdown(["search", "seed", "masks", "regret"], once), BUDGETS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "report"])
    parser.add_argument("run", nargs="?", default="runs/mixed")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    asked = parser.parse_args(sys.argv[1:])
    search(asked.run, asked.seeds) if asked.what == "search" else report()
