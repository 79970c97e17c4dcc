"""Steering a maze agent: directions, clamps and ablations at one layer, judged by what they do to the choice between
cheese and corner, beside controls.

Turner et al. 2023, arXiv 2310.08043, §3, whose findings these are the tests of. An effect is a change of P(step
towards the cheese) at the decision square, with a 95% interval over mazes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.analysis.mazes.choices import at_decision, choices, towards
from rl_interp.core.agent import Agent
from rl_interp.core.envs.maze.layout import NOWHERE
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hook_point, run_with_cache
from rl_interp.core.interventions import Add, Intervention
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.stats import bootstrap, mean, plain


@dataclass(frozen=True)
class Effect:
    """Of an intervention on N mazes: the mean change of P(step towards the cheese) and towards the corner, with the
    95% interval of the first over mazes; None of too few."""

    cheese: float
    low: float | None
    high: float | None
    corner: float

    @property
    def real(self) -> bool:
        """Whether there is an interval, and it excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def effect(agent: Agent, mazes: Mazes, interventions: Sequence[Intervention]) -> Effect:
    """What interventions do at the decision squares of mazes that have one."""
    return _compare(choices(agent, mazes), choices(agent, mazes, interventions))


def _compare(before: tuple[NDArray, NDArray], after: tuple[NDArray, NDArray]) -> Effect:
    changed = after[0] - before[0]
    low, high = plain(bootstrap([changed], mean)) or (None, None)
    return Effect(float(changed.mean()), low, high, float((after[1] - before[1]).mean()))


@torch.no_grad()
def activations(agent: Agent, mazes: Mazes, at: str) -> Tensor:
    """`[N, ...]` at a hook point, each maze seen first."""
    hook_point(agent, at)
    obs = torch.from_numpy(mazes.observations()).to(agent.device)
    return run_with_cache(agent, obs, names=[at])[1][at]


def cheese_vector(agent: Agent, mazes: Mazes, at: str) -> Tensor:
    """`[N, ...]`: what the cheese adds to the activations, the mouse being where it starts."""
    return activations(agent, mazes, at) - activations(agent, mazes.edit(cheese=(NOWHERE, NOWHERE)), at)


def corner_vector(agent: Agent, mazes: Mazes, at: str) -> Tensor:
    """`[N, ...]`: what a free cell at the top right adds to the activations, in place of a wall there.

    Raises:
        UserError: the cheese or the mouse of a maze is in that corner.
    """
    taken = (mazes.corner[:, None] == np.stack([mazes.cheese, mazes.mouse], 1)).all(-1).any(1)
    if taken.any():
        raise UserError(
            f"maze {int(np.argmax(taken))} has its cheese or mouse in the corner, which is to be walled up."
        )
    walls = mazes.walls.copy()
    walls[np.arange(len(mazes)), mazes.corner[:, 0], mazes.corner[:, 1]] = True
    return activations(agent, mazes, at) - activations(agent, mazes.edit(walls=walls), at)


def steer(
    agent: Agent,
    mazes: Mazes,
    at: str,
    vectors: Tensor,
    scales: Sequence[float] = (-2, -1, -0.5, 0.5, 1, 2),
    seed: int = 0,
) -> dict[str, dict[float, Effect]]:
    """Effects of adding multiples of a vector of its own to each maze, `vectors [N, ...]`, by scale, beside controls.

    Controls: a random direction of the same norm, and the vector of another maze. Multiples of both signs are one
    another's control.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    norms = vectors.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
    random = noise * norms.view(-1, *[1] * (vectors.dim() - 1))
    kinds = {"vector": vectors, "random direction": random, "another maze's": vectors.roll(1, 0)}
    before = choices(agent, mazes)
    return {
        name: {
            scale: _compare(before, choices(agent, mazes, [Add(at, direction=direction, scale=scale)]))
            for scale in scales
        }
        for name, direction in kinds.items()
    }


Edit = Callable[[Tensor, NDArray[np.integer], Sequence[int]], Tensor]
"""`edit(values, rows, units)`: the values `[n, ...]` of some mazes, which are `rows [n]` of all, with units changed."""


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
    """On held-out mazes, by edit: of the units `found`, of as many `random` others, and of `all` of them."""


def search(
    agent: Agent,
    mazes: Mazes,
    at: str,
    edits: Mapping[str, Edit],
    units: int,
    count: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Search:
    """Edit one of the `units` of a spatial point after another, the mice being at their decision squares, on the first
    half of the mazes; test the `count` that matter most on the second half.

    Args:
        edits: what is done to units, by name; the first is searched with, all of them are tested.

    Raises:
        UserError: fewer than 4 mazes, or not so many units.
    """
    if len(mazes) < 4:
        raise UserError(f"{len(mazes)} mazes given; a search needs at least 4, to search half and test on half.")
    if not 1 <= count < units / 2:
        raise UserError(f"count={count} asked of {units} units of {at!r}; it must be at least 1 and below half.")
    there, half = at_decision(mazes), len(mazes) // 2
    searched, tested = (_Editor(agent, there, rows, at) for rows in np.split(np.arange(len(mazes)), [half]))
    first, scores = next(iter(edits.values())), np.empty(units)
    for unit in range(units):
        scores[unit] = searched(first, [unit]).cheese
        progress(unit + 1)
    order = np.argsort(scores, kind="stable")
    random = np.random.default_rng(seed).choice(order[count:], count, replace=False)
    sets = {"found": order[:count], "random": random, "all": np.arange(units)}
    held_out = {
        f"{which}, {name}": tested(edit, chosen.tolist())
        for name, edit in edits.items()
        for which, chosen in sets.items()
    }
    return Search(scores, order[:count].tolist(), held_out)


def elsewhere(agent: Agent, mazes: Mazes, at: str, seed: int = 0) -> Edit:
    """Channels get the values that they have in the same maze with the cheese in another place: resampling that changes
    what they say of the cheese and nothing else."""
    other = activations(agent, move_cheese(mazes, seed).edit(mouse=mazes.decision), at)

    def edit(values: Tensor, rows: NDArray[np.integer], units: Sequence[int]) -> Tensor:
        mixed = values.clone()
        mixed[:, list(units)] = other[torch.from_numpy(rows)][:, list(units)]
        return mixed

    return edit


def at_mean(agent: Agent, mazes: Mazes, at: str) -> Edit:
    """Channels get their mean over the mazes, position by position."""
    mean = activations(agent, at_decision(mazes), at).mean(0)

    def edit(values: Tensor, rows: NDArray[np.integer], units: Sequence[int]) -> Tensor:
        mixed = values.clone()
        mixed[:, list(units)] = mean[list(units)]
        return mixed

    return edit


def move_cheese(mazes: Mazes, seed: int = 0) -> Mazes:
    """The same mazes, each with its cheese in another free cell, but not on the mouse's way to where it was."""
    rng = np.random.default_rng(seed)
    from_mouse, from_cheese = mazes.distances(mazes.mouse), mazes.distances(mazes.cheese)
    new = []
    for i in range(len(mazes)):
        whole = from_mouse[i][tuple(mazes.cheese[i])]
        off = (from_mouse[i] > 0) & (from_mouse[i] + from_cheese[i] != whole)
        cells = np.argwhere(off)
        new.append(cells[rng.integers(len(cells))] if len(cells) else mazes.cheese[i])
    return mazes.edit(cheese=np.array(new))


class _Editor:
    """Effects of edits at a point in some of the mazes, whose mice are at their decision squares."""

    def __init__(self, agent: Agent, mazes: Mazes, rows: NDArray[np.integer], at: str):
        chosen, self._rows = mazes[rows], rows
        self._rerun = PartialForward(agent, torch.from_numpy(chosen.observations()).to(agent.device), at)
        self._steps = towards(chosen)
        self._before = self._choices(self._rerun.values)

    def __call__(self, edit: Edit, units: Sequence[int]) -> Effect:
        return _compare(self._before, self._choices(edit(self._rerun.values, self._rows, units)))

    def _choices(self, values: Tensor) -> tuple[NDArray, NDArray]:
        probabilities = self._rerun(values).preferences.float().softmax(-1).cpu().numpy()
        cheese, corner = ((probabilities[:, :4] * steps).sum(1) for steps in self._steps)
        return cheese, corner
