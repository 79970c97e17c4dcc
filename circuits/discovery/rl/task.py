"""Which of K candidates a behaviour needs, as a task to search in: a score for every choice of those that are kept.

What is searched for is the mask of greatest potential (arXiv 2605.26343),

    (1 - kept / K) - 3 max(0, tau - faithfulness).

Searches see masks through a `Ledger` alone, which counts the forward passes of whatever it has not scored before, so
that methods can be compared after equally many.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.rl.candidates import Candidates, Selection
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import write_json
from rl_interp.core.read import read_json, reading

MOST_TABULATED = 16
"""Candidates of which all masks can be scored."""
_PENALTY = 3.0


class Scorer(Protocol):
    """Faithfulness of masks over K candidates."""

    @property
    def states(self) -> int:
        """Forward passes that one mask costs."""
        ...

    def __call__(self, kept: Tensor) -> Tensor:
        """float64 `[P]` from bool `[P, K]`: 1 where all candidates are kept, or decisions are as if they were; 0 where
        these are as far from the agent's as with none kept."""
        ...


class BehaviourScorer:
    """Runs the agent under each mask: 1 − D(mask) / D(no candidate).

    Raises:
        UserError: without any candidate the agent decides as it does, so there is no behaviour in them.
    """

    def __init__(self, behaviour: Behaviour, selection: Selection, least: float = 1e-3):
        self.states = len(behaviour)
        self._behaviour, self._selection = behaviour, selection
        self.nothing = float(behaviour.mean_distances(selection.mask(self._all(False))))
        """D without any candidate, in nats."""
        if not self.nothing >= least:
            raise UserError(
                f"with all {len(selection.candidates)} candidates replaced ({behaviour.replace}) the agent decides "
                f"within {self.nothing:.2g} nats of itself, so there is no behaviour to find among them; give more "
                "candidates, other states or another replacement."
            )

    def __call__(self, kept: Tensor) -> Tensor:
        return torch.stack(
            [1 - self._behaviour.mean_distances(self._selection.mask(one))[0] / self.nothing for one in kept]
        )

    def _all(self, value: bool) -> Tensor:
        return torch.full((len(self._selection.candidates),), value)


@dataclass(frozen=True)
class Table:
    """Scores of all masks, so that the best is known."""

    values: Tensor
    """float64 `[2^K]`: faithfulness; candidate i adds 2^i to the index of a mask that keeps it."""
    states: int = 1

    def __call__(self, kept: Tensor) -> Tensor:
        return self.values[(kept.long() << torch.arange(kept.shape[-1])).sum(-1)]


@dataclass(frozen=True)
class Task:
    """A behaviour to search for the fewest candidates that it needs.

    Attributes:
        tau: faithfulness below which the potential falls.
    """

    name: str
    candidates: Candidates
    scorer: Scorer
    tau: float = 0.9

    def potential(self, kept: Tensor, faithfulness: Tensor) -> Tensor:
        """float64 `[P]` of masks bool `[P, K]`."""
        return 1 - kept.double().mean(-1) - _PENALTY * (self.tau - faithfulness).clamp(min=0)

    def all_kept(self, count: int) -> Tensor:
        """bool `[count, K]`."""
        return torch.ones(count, len(self.candidates), dtype=torch.bool)


def every_mask(count: int) -> Tensor:
    """bool `[2^K, K]`, in the order of a `Table`.

    Raises:
        UserError: too many to be scored.
    """
    if count > MOST_TABULATED:
        raise UserError(
            f"{count} candidates have {2.0**count:.2g} masks; at most {MOST_TABULATED} can be tabulated: give fewer."
        )
    return (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1 == 1


def tabulated(task: Task, progress: Callable[[int], None] = lambda done: None) -> Task:
    """The same task with all masks scored beforehand."""
    masks, values = every_mask(len(task.candidates)), []
    for start in range(0, len(masks), 64):
        values.append(task.scorer(masks[start : start + 64]))
        progress(min(start + 64, len(masks)))
    return replace(task, scorer=Table(torch.cat(values), task.scorer.states))


def save_task(task: Task, path: Path) -> None:
    """Write a tabulated task, as JSON."""
    if not isinstance(task.scorer, Table):
        raise UserError(f"{task.name!r} is not tabulated, so it can't be written; call `tabulated` first.")
    candidates = task.candidates
    rows = [
        {"name": name, "attribution": score, "source": source, "dest": dest, "depths": depths}
        for name, score, source, dest, depths in zip(
            candidates.names, *(getattr(candidates, of).tolist() for of in ("scores", "sources", "dests", "depths")),
            strict=True,
        )
    ]  # fmt: skip
    values = [round(value, 5) for value in task.scorer.values.tolist()]
    whole = {"name": task.name, "tau": task.tau, "states": task.scorer.states, "candidates": rows}
    write_json(path, whole | {"faithfulness": values})


def load_task(path: Path) -> Task:
    """Read a task that `save_task` wrote."""
    with reading(path):
        read = read_json(path)
        rows = read["candidates"]
        columns = (torch.tensor([row[of] for row in rows]) for of in ("attribution", "source", "dest", "depths"))
        scores, sources, dests, depths = columns
        names = tuple(str(row["name"]) for row in rows)
        candidates = Candidates(names, scores.double(), sources, dests, depths.double())
        table = Table(torch.tensor(read["faithfulness"], dtype=torch.float64), int(read["states"]))
        if table.values.shape != (2 ** len(rows),):
            raise RunError(
                f"{path} has {len(rows)} candidates and {len(table.values)} masks, not two to their power; "
                "write it again."
            )
        return Task(str(read["name"]), candidates, table, float(read["tau"]))


@dataclass(frozen=True)
class Found:
    """A mask that a search found."""

    kept: Tensor
    """bool `[K]`."""
    faithfulness: float
    potential: float


class BudgetSpent(Exception):
    """A search asked for more masks than it may score."""


class Ledger:
    """What a search has scored, in order: no mask costs anything the second time."""

    def __init__(self, task: Task, budget: int | None = None):
        self.task = task
        self.budget = budget
        """Masks that may be scored; `BudgetSpent` is raised at the next."""
        self._place: dict[bytes, int] = {}
        self._kept: list[Tensor] = []
        self._faithfulness: list[float] = []

    def __call__(self, kept: Tensor) -> Tensor:
        """float64 `[P]`: faithfulness of masks bool `[P, K]`."""
        keys = [row.numpy().tobytes() for row in kept]
        new = {key: row for key, row in zip(keys, kept, strict=True) if key not in self._place}
        allowed = len(new) if self.budget is None else max(0, min(len(new), self.budget - self.scored))
        if allowed:
            rows = torch.stack(list(new.values())[:allowed])
            self._faithfulness += self.task.scorer(rows).tolist()
            for key, row in list(new.items())[:allowed]:
                self._place[key] = len(self._kept)
                self._kept.append(row.clone())
        if allowed < len(new):
            raise BudgetSpent
        return torch.tensor([self._faithfulness[self._place[key]] for key in keys], dtype=torch.float64)

    @property
    def scored(self) -> int:
        """How many different masks."""
        return len(self._kept)

    @property
    def forwards(self) -> int:
        """Forward passes that these cost."""
        return self.scored * self.task.scorer.states

    def best(self, within: int | None = None) -> Found:
        """The mask of greatest potential among the first so many scored, or all."""
        kept = torch.stack(self._kept[:within])
        faithfulness = torch.tensor(self._faithfulness[:within], dtype=torch.float64)
        potential = self.task.potential(kept, faithfulness)
        i = int(potential.argmax())
        return Found(kept[i], float(faithfulness[i]), float(potential[i]))
