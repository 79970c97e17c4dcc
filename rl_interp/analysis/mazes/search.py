"""A search for the units of a layer (channels, or features of an autoencoder) that make a maze agent choose the cheese:
found on some mazes by editing one after another, tested on others beside sets of random units.

After Turner et al. 2023, arXiv 2310.08043, §3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.analysis.mazes.choices import (
    Choices,
    Effect,
    activations,
    at_decision_square,
    choices_of,
    towards,
)
from rl_interp.core.agent import Agent
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError
from rl_interp.core.partial_forward import PartialForward
from rl_interp.sae import SAE

Edit = Callable[[Tensor, NDArray[np.integer], Sequence[int]], Tensor]
"""`edit(values, rows, units)`: the values `[n, ...]` of some mazes, which are `rows [n]` of all, with units changed."""


RANDOM = 20
"""Sets of random units: one alone may be lucky."""


@dataclass(frozen=True)
class Search:
    """Units of a layer (channels, or features of an autoencoder) that make the policy choose the cheese, found on some
    mazes and tested on others."""

    scores: NDArray[np.float64]
    """`[U]`: on the mazes searched, the mean change of P(step towards the cheese) when the unit is edited; negative
    where it leads to the cheese."""
    found: list[int]
    """The units whose score is lowest, best first."""
    held_out: Mapping[str, Effect]
    """On held-out mazes, by edit: of the units `found`, of as many `random` others, and of `all` of them. Of random
    ones the mean of `RANDOM` sets, with the middle 95% of the sets for an interval."""

    @property
    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        scores = [round(float(score), 5) for score in self.scores]
        held_out = {name: vars(effect) for name, effect in self.held_out.items()}
        return {"found": self.found, "scores": scores, "held_out": held_out}


def search(
    agent: Agent,
    mazes: Mazes,
    at: str,
    edits: Mapping[str, Edit],
    units: int,
    count: int,
    seed: int = 0,
    update: Callable[[int], None] = lambda done: None,
) -> Search:
    """Edit one unit of the point `at` after another, the mice being at their decision squares, on the first half of the
    mazes; test the `count` units that matter most on the second half.

    Args:
        edits: what is done to units, by name; the search uses the first, the test all of them.
        units: how many there are.
        count: how many to find.
        update: called with the number of units that have been edited.

    Raises:
        UserError: fewer than 4 mazes, or a count that is not below half of the units.
    """
    if len(mazes) < 4:
        raise UserError(f"{len(mazes)} mazes given; a search needs at least 4, to search half and test on half.")
    if not 1 <= count < units / 2:
        raise UserError(f"count={count} asked of {units} units of {at!r}; it must be at least 1 and below half.")
    there, half = at_decision_square(mazes), len(mazes) // 2
    searched, tested = (_Editor(agent, there, rows, at) for rows in np.split(np.arange(len(mazes)), [half]))
    first, scores = next(iter(edits.values())), np.empty(units)
    # The best of many units are partly the luckiest ones; so the other half of the mazes tests them.
    for unit in range(units):
        scores[unit] = searched(first, [unit]).cheese
        update(unit + 1)
    order = np.argsort(scores, kind="stable")
    found, rng = order[:count].tolist(), np.random.default_rng(seed)
    random = [rng.choice(order[count:], count, replace=False).tolist() for _ in range(RANDOM)]
    held_out = {}
    for name, edit in edits.items():
        held_out[f"found, {name}"] = tested(edit, found)
        held_out[f"random, {name}"] = _over_sets([tested(edit, chosen) for chosen in random])
        held_out[f"all, {name}"] = tested(edit, range(units))
    return Search(scores, found, held_out)


def _over_sets(effects: Sequence[Effect]) -> Effect:
    """The mean of the effects of sets of units, with the middle 95% of the sets for an interval."""
    cheese = [effect.cheese for effect in effects]
    low, high = np.percentile(cheese, [2.5, 97.5]).tolist()
    ends = (low, high) if low < high else (None, None)  # one of no width would read as certainty
    return Effect(float(np.mean(cheese)), *ends, float(np.mean([effect.corner for effect in effects])))


def elsewhere(agent: Agent, mazes: Mazes, at: str, seed: int = 0) -> Edit:
    """Channels get the values that they have in the same maze with the cheese somewhere else: resampling that changes
    what they say about the cheese and nothing else."""
    other = activations(agent, move_cheese(mazes, seed).edit(mouse=mazes.decision), at)

    def edit(values: Tensor, rows: NDArray[np.integer], units: Sequence[int]) -> Tensor:
        mixed = values.clone()
        mixed[:, list(units)] = other[torch.from_numpy(rows)][:, list(units)]
        return mixed

    return edit


def at_mean(agent: Agent, mazes: Mazes, at: str) -> Edit:
    """Channels get their mean over the mazes, position by position."""
    mean = activations(agent, at_decision_square(mazes), at).mean(0)

    def edit(values: Tensor, rows: NDArray[np.integer], units: Sequence[int]) -> Tensor:
        mixed = values.clone()
        mixed[:, list(units)] = mean[list(units)]
        return mixed

    return edit


def ablated(sae: SAE) -> Edit:
    """Features are subtracted; everything else, the autoencoder's error included, stays."""

    @torch.no_grad()
    def edit(values: Tensor, rows: NDArray[np.integer], units: Sequence[int]) -> Tensor:
        last = values.movedim(1, -1)
        active = sae.encode(last.reshape(-1, sae.d_in))[:, list(units)]
        return (last - (active @ sae.W_dec[list(units)]).reshape(last.shape)).movedim(-1, 1)

    return edit


def move_cheese(mazes: Mazes, seed: int = 0) -> Mazes:
    """The same mazes, each with its cheese in a different free cell, not on the mouse's way to where it was."""
    rng = np.random.default_rng(seed)
    from_mouse, from_cheese = mazes.distances(mazes.mouse), mazes.distances(mazes.cheese)
    new = []
    for i in range(len(mazes)):
        whole = from_mouse[i][tuple(mazes.cheese[i])]
        off = (from_mouse[i] > 0) & (from_mouse[i] + from_cheese[i] != whole)  # a detour to the old cheese
        cells = np.argwhere(off)
        new.append(cells[rng.integers(len(cells))] if len(cells) else mazes.cheese[i])
    return mazes.edit(cheese=np.array(new))


class _Editor:
    """Effects of edits at a point in some of the mazes, whose mice are at their decision squares. The layers before the
    point are run once."""

    def __init__(self, agent: Agent, mazes: Mazes, rows: NDArray[np.integer], at: str):
        chosen, self._rows = mazes[rows], rows
        self._after_edit = PartialForward(agent, torch.from_numpy(chosen.observations()).to(agent.device), at)
        self._steps = towards(chosen)
        self._before = self._choices(self._after_edit.values)

    def __call__(self, edit: Edit, units: Sequence[int]) -> Effect:
        return Effect.between(self._before, self._choices(edit(self._after_edit.values, self._rows, units)))

    def _choices(self, values: Tensor) -> Choices:
        return choices_of(self._after_edit(values), self._steps)
