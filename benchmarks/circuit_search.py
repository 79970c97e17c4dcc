"""Which of ten candidates a behaviour needs: a policy that learned to prune, beside other searches after equally many
masks, on behaviours of planted agents and of the reference runs, of which all masks are scored beforehand.

    python -m benchmarks.circuit_search tabulate     # runs the agents: every mask of every behaviour, half an hour
    python -m benchmarks.circuit_search search       # trains and compares, on the tables alone

Candidates are the ten edges of greatest integrated attribution; all others stay. What is cut is
replaced by what it is in another state. Tables and results are written to `docs/results/circuits-rl/`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.mazes.choices import at_decision_square
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.rl.baselines import BASELINES, oracle, run
from rl_interp.circuits.discovery.rl.candidates import edges_by_attribution
from rl_interp.circuits.discovery.rl.task import (
    BehaviourScorer,
    BudgetSpent,
    Ledger,
    Task,
    load_task,
    save_task,
    tabulated,
)
from rl_interp.circuits.discovery.rl.training import RLConfig, follow, train
from rl_interp.circuits.planted import PLANTED
from rl_interp.circuits.states import States
from rl_interp.core.envs import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.files import write_json
from rl_interp.core.read import read_json
from rl_interp.core.stats import bootstrap, mean
from rl_interp.core.tables import markdown

ROOT = Path(__file__).parent.parent
OUT = ROOT / "docs" / "results" / "circuits-rl"
STEPS = 5
"""Of integrated attribution."""
BANK = 64
"""Recorded states, of any kind, that what is cut is taken from."""
SPREAD = 4
"""One of so many states is used, so that they are of several episodes."""
BUDGETS = (11, 56, 200)
"""Masks: as many as attribution's order has prefixes, as greedy cutting to the end may need, and a fifth of all."""
MOST = 200
ALONE = (*BASELINES, "rl")
OTHERS = {
    "rl, others' policy": RLConfig(updates=40),
    "rl, others' policy paid for its best moment": RLConfig(updates=30, episodes=8, keep_best=True),
}
"""Of policies that learned from other behaviours."""


@dataclass(frozen=True)
class Case:
    """A behaviour: what an agent does where a concept holds."""

    name: str
    run: str
    when: str
    states: int
    candidates: int = 10
    seen: bool = True
    """Whether policies are trained on it; else they are tested on it."""


CASES = (
    Case("unlock: sees the key", "impala-unlock", "key_seen", 16),
    Case("unlock: before the key", "impala-unlock", "key_ahead", 16),
    Case("unlock: carries the key", "impala-unlock", "carries_key", 16),
    Case("unlock: before the door", "impala-unlock", "door_ahead", 16, seen=False),
    Case("maze region 5: cheese or corner", "impala-maze-region5", "parting", 4, 8),
    Case("maze region 5: no junction", "impala-maze-region5", "not junction", 4, 8),
    Case("maze anywhere: cheese or corner", "impala-maze-anywhere", "parting", 4, 8, seen=False),
    Case("Ms. Pac-Man: no ghost near", "dqn-mspacman", "not ghost_near", 4),
    Case("Ms. Pac-Man: in the upper half", "dqn-mspacman", "top_half", 4),
    Case("Ms. Pac-Man: moves left", "dqn-mspacman", "moving_left", 4, seen=False),
)


def behaviour_of(case: Case, seed: int = 0) -> Behaviour:
    loaded = load_agent(ROOT / "runs" / case.run)
    bank = play_states(loaded, BANK, seed + 1000)
    return Behaviour.of(loaded.agent, states_of(loaded, case, seed), "resample", bank=bank)


def states_of(loaded: Loaded, case: Case, seed: int) -> States:
    if isinstance(loaded.env, MazeConfig) and case.when == "parting":
        obs = at_decision_square(
            Mazes.draw(replace(loaded.env, decision=True), range(seed, seed + case.states))
        ).observations()
        return States(torch.from_numpy(obs))
    many = play_states(loaded, SPREAD * case.states, seed, when=case.when)
    return many[torch.arange(0, len(many), SPREAD)]


def tabulate(case: Case) -> Task:
    """Every mask of a behaviour's candidates, scored."""
    behaviour = behaviour_of(case)
    selection = edges_by_attribution(behaviour.graph, attribute(behaviour, STEPS).scores, case.candidates)
    return tabulated(Task(case.name, selection.candidates, BehaviourScorer(behaviour, selection)))


def planted_tasks(seed: int) -> list[Task]:
    tasks = []
    for name, make in PLANTED.items():
        planted = make(seed, 32)
        behaviour = Behaviour.of(planted.agent, planted.states, "resample", graph=planted.graph)
        selection = edges_by_attribution(behaviour.graph, attribute(behaviour, STEPS).scores, 10)
        scorer = BehaviourScorer(behaviour, selection)
        tasks.append(tabulated(Task(f"planted {name} {seed}", selection.candidates, scorer)))
    return tasks


def write_tables(only: str) -> None:
    made: list[tuple[str, Callable[[], list[Task]]]] = [(f"planted {i}", partial(planted_tasks, i)) for i in range(1)]
    made += [(case.name, lambda case=case: [tabulate(case)]) for case in CASES]
    for name, make in made:
        if only not in name or table_of(name).exists():
            continue
        start = time.perf_counter()
        for task in make():
            save_task(task, table_of(task.name))
            print(f"{task.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def table_of(name: str) -> Path:
    plain = "".join(letter if letter.isalnum() else " " for letter in name.lower())
    return OUT / "tables" / f"{'-'.join(plain.split())}.json"


def read_tasks() -> tuple[list[Task], list[Task]]:
    """Those that policies are trained on, planted ones among them, and those that they are tested on."""
    unseen = {case.name for case in CASES if not case.seen}
    tasks = [load_task(path) for path in sorted((OUT / "tables").glob("*.json"))]
    return [each for each in tasks if each.name not in unseen], [each for each in tasks if each.name in unseen]


@dataclass(frozen=True)
class Row:
    """What one search found in one task with one seed."""

    task: str
    search: str
    seed: int
    regret: dict[int, float]
    """By how much the best mask's potential is above that of the best found, by masks scored."""
    scored: int
    seconds: float


def row_of(ledger: Ledger, best: float, search: str, seed: int, seconds: float) -> Row:
    budgets = (*BUDGETS, ledger.scored)
    regret = {budget: best - ledger.best(budget).potential for budget in budgets}
    return Row(ledger.task.name, search, seed, regret, ledger.scored, seconds)


def search_one(task: Task, seed: int) -> list[Row]:
    """Every search, on this task alone."""
    best, rows = oracle(task).potential, []
    for name, search in BASELINES.items():
        if seed and name != "random":
            continue
        start, ledger = time.perf_counter(), Ledger(task, MOST)
        run(search, ledger, seed)
        rows.append(row_of(ledger, best, name, seed, time.perf_counter() - start))
    start, ledger = time.perf_counter(), Ledger(task)
    policy = train([ledger], RLConfig(), seed)
    seconds = time.perf_counter() - start
    rows.append(row_of(ledger, best, "rl", seed, seconds))
    rows.append(Row(task.name, "rl, its last policy", seed, {ledger.scored: best - follow(policy, ledger).potential},
                    ledger.scored, seconds))  # fmt: skip
    return rows


def search_unseen(name: str, seen: list[Task], unseen: list[Task], seed: int) -> list[Row]:
    """One policy that learned from all tasks of the first kind, on the second, without learning from these."""
    start = time.perf_counter()
    policy = train([Ledger(task) for task in seen], OTHERS[name], seed)
    seconds, rows = time.perf_counter() - start, []
    for task in unseen:
        ledger, best = Ledger(task, MOST), oracle(task).potential
        generator = torch.Generator().manual_seed(seed)
        follow(policy, ledger)
        first = {ledger.scored: best - ledger.best().potential}
        rows.append(Row(task.name, f"{name}: one episode", seed, first, ledger.scored, 0.0))
        with suppress(BudgetSpent):
            for _ in range(MOST):
                follow(policy, ledger, 1, generator)
        rows.append(row_of(ledger, best, name, seed, seconds))
    return rows


def search(only: str, seeds: Sequence[int]) -> None:
    seen, unseen = read_tasks()
    for seed in seeds:
        parts = {task.name: partial(search_one, task, seed) for task in (*seen, *unseen)}
        parts |= {name: partial(search_unseen, name, seen, unseen, seed) for name in OTHERS}
        for name, part in parts.items():
            path = OUT / "searches" / f"{table_of(name).stem}-seed{seed}.json"
            if only in name and not path.exists():
                write_json(path, {"rows": [asdict(row) for row in part()]})
                print(f"seed {seed}, {name}", file=sys.stderr, flush=True)


def report() -> str:
    """Tables of all that was searched, in Markdown."""
    rows = [row for path in sorted((OUT / "searches").glob("*.json")) for row in read_json(path)["rows"]]
    unseen = [case.name for case in CASES if not case.seen]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    parts = ["All behaviours: regret after equally many masks\n", budgets_of(rows, tasks, ALONE)]
    parts += ["Behaviours that no policy was trained on\n", budgets_of(rows, unseen, (*ALONE, *OTHERS))]
    parts += ["Each behaviour\n", _by_task(rows, tasks)]
    return "\n".join(parts)


def budgets_of(rows: list[dict], tasks: list[str], searches: Sequence[str]) -> str:
    """Mean regret over tasks, with its interval over tasks, and the best seed's mean."""
    body = []
    for search in searches:
        cells = []
        for budget in BUDGETS:
            by_task = [_regrets(rows, task, search, budget) for task in tasks]
            if not all(by_task):
                cells.append("")
                continue
            found = bootstrap([[mean(each) for each in by_task]], mean)
            lowest = mean([min(each) for each in by_task])
            cells.append(found.shown(".3f") + (f", best {lowest:.3f}" if max(map(len, by_task)) > 1 else ""))
        body.append([search, *cells])
    return markdown(["search", *(f"{budget} masks" for budget in BUDGETS)], body)


def _by_task(rows: list[dict], tasks: list[str]) -> str:
    """The oracle, and the potential that each search found after the middle budget."""
    body = []
    for name in tasks:
        task = load_task(table_of(name))
        best = oracle(task)
        cells = []
        for search in (*ALONE, *OTHERS):
            regrets = _regrets(rows, name, search, BUDGETS[1])
            cells.append(f"{best.potential - mean(regrets):.3f}" if regrets else "")
        body.append([name, f"{best.potential:.3f} ({int(best.kept.sum())} kept, f {best.faithfulness:.2f})", *cells])
    return markdown(["behaviour", "oracle", *ALONE, *OTHERS], body)


def _regrets(rows: list[dict], task: str, search: str, budget: int) -> list[float]:
    return [
        row["regret"][str(budget)]
        for row in rows
        if row["task"] == task and row["search"] == search and str(budget) in row["regret"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tabulate", "search", "report"))
    parser.add_argument("--only", default="", help="part of a behaviour's name")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), help="seeds of what is random")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "tabulate":
        write_tables(arguments.only)
    elif arguments.what == "search":
        search(arguments.only, arguments.seeds)
    else:
        print(report())


if __name__ == "__main__":
    main()
