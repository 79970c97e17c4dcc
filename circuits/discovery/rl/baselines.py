"""What a policy is to be compared with: other searches over the same candidates, after equally many masks."""

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from rl_interp.circuits.discovery.rl.task import BudgetSpent, Found, Ledger, Task, every_mask

Search = Callable[[Ledger, torch.Generator], None]
"""Scores masks of a ledger's task until it is done or the budget is spent; the ledger knows the best."""


def oracle(task: Task) -> Found:
    """The best of all masks.

    Raises:
        UserError: too many candidates.
    """
    ledger = Ledger(task)
    ledger(every_mask(len(task.candidates)))
    return ledger.best()


def by_attribution(ledger: Ledger, generator: torch.Generator) -> None:
    """The candidates of greatest attribution, of every number from all to none."""
    order = ledger.task.candidates.scores.abs().argsort(stable=True)
    kept = ledger.task.all_kept(1)[0]
    _score(ledger, kept)
    for i in order:
        kept[i] = False
        _score(ledger, kept)


def greedy(ledger: Ledger, generator: torch.Generator) -> None:
    """Cuts, again and again, the candidate without which the potential is greatest, until none is left."""
    kept = ledger.task.all_kept(1)[0]
    _score(ledger, kept)
    while kept.any():
        left = kept.nonzero()[:, 0]
        without = kept.repeat(len(left), 1)
        without[torch.arange(len(left)), left] = False
        # One by one, so that a budget that ends in the middle is used up.
        potential = torch.cat([ledger.task.potential(each[None], ledger(each[None])) for each in without])
        kept = without[potential.argmax()]


def acdc(ledger: Ledger, generator: torch.Generator) -> None:
    """From the last to the first in the graph, and within a node from the least attribution to the greatest, a
    candidate is cut for good if faithfulness falls by less than a threshold (ACDC: Conmy et al. 2023, arXiv
    2304.14997), for thresholds from large to small."""
    candidates = ledger.task.candidates
    place = torch.argsort(candidates.scores.abs(), stable=True)
    place = place[torch.argsort(candidates.depths[place, 1], descending=True, stable=True)]
    for threshold in _THRESHOLDS:
        kept = ledger.task.all_kept(1)[0]
        before = float(_score(ledger, kept))
        for i in place:
            kept[i] = False
            after = float(_score(ledger, kept))
            if before - after < threshold:
                before = after
            else:
                kept[i] = True


def at_random(ledger: Ledger, generator: torch.Generator) -> None:
    """Any masks: of a number of candidates that is drawn first, any so many."""
    count = len(ledger.task.candidates)
    _score(ledger, ledger.task.all_kept(1)[0])
    for _ in range(_TRIES * (ledger.budget or 2**count)):
        size = int(torch.randint(count + 1, (), generator=generator))
        kept = torch.zeros(count, dtype=torch.bool)
        kept[torch.randperm(count, generator=generator)[:size]] = True
        _score(ledger, kept)


BASELINES: dict[str, Search] = {
    "attribution": by_attribution, "greedy": greedy, "acdc": acdc, "random": at_random
}  # fmt: skip
_THRESHOLDS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_TRIES = 20


def run(search: Search, ledger: Ledger, seed: int = 0) -> Found:
    """The best mask that a search finds within the ledger's budget."""
    with suppress(BudgetSpent):
        search(ledger, torch.Generator().manual_seed(seed))
    return ledger.best()


def _score(ledger: Ledger, kept: Tensor) -> Tensor:
    return ledger(kept[None])[0]
