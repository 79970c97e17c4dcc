"""How much each thing on the screen matters: Shapley values of entities, known from the ground truth.

An entity that is absent is exchanged with the same entity of another state: wherever it is in either of the two, the
pixels are the other state's. So what the agent is shown is put together from what the game draws, and entities that
work together share what they do (Shapley 1953; Lundberg & Lee 2017, arXiv 1705.07874, with the other states as the
background).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.agent import Agent, State, tree_map
from rl_interp.core.errors import UserError
from rl_interp.core.stats import Estimate
from rl_interp.saliency.methods.perturbation import Exchanged, drops
from rl_interp.saliency.targets import Target

EXACT = 10
"""Entities up to which all subsets are asked; with more, permutations are drawn."""
PERMUTATIONS = 64

Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""The worth `[P]` of coalitions `[P, E]`."""


@dataclass(frozen=True)
class Scene:
    """A state with the ground truth of what is where."""

    obs: NDArray[np.generic]
    """`[C, H, W]`."""
    masks: Mapping[str, NDArray[np.bool_]]
    """Entity to where it is, `[C, H, W]`: in each channel, since the frames of a stack differ."""


@dataclass(frozen=True, eq=False)
class Entities:
    """A method for observations whose entities are known."""

    scenes: Sequence[Scene]
    """One an observation, in their order."""
    others: Sequence[Scene]
    """States to exchange entities with; the interval is over them (or, with many entities, over permutations)."""
    seed: int = 0
    signed: ClassVar[bool] = True

    @torch.no_grad()
    def values(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> list[dict[str, Estimate]]:
        """Of each observation the entities in it, with their Shapley values in the target's unit.

        Raises:
            UserError: not one scene for each observation, or no others.
        """
        if len(obs) != len(self.scenes) or not self.others:
            raise UserError(
                f"{len(self.scenes)} scenes and {len(self.others)} others given for {len(obs)} observations; give a "
                "scene of each and at least one other."
            )
        found = []
        for i, scene in enumerate(self.scenes):
            own = None if state is None else tree_map(lambda leaf, i=i: leaf[i : i + 1], state)
            names = list(scene.masks)
            games = [self._game(agent, obs[i : i + 1], scene, other, target, own) for other in self.others]
            draws = shapley_draws(games, len(names), np.random.default_rng(self.seed))
            found.append(dict(zip(names, _estimates(draws), strict=True)))
        return found

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32: each entity's value where it is in the newest frame; 0 where there is none."""
        maps = np.zeros((len(obs), *obs.shape[-2:]), np.float32)
        for drawn, scene, values in zip(maps, self.scenes, self.values(agent, obs, target, state), strict=True):
            for name, estimate in sorted(values.items(), key=lambda each: abs(each[1].value)):
                drawn[scene.masks[name][-1]] = estimate.value
        return maps

    def _game(self, agent: Agent, obs: Tensor, scene: Scene, other: Scene, target: Target, state: State) -> Game:
        there = torch.from_numpy(np.asarray(other.obs))[None].to(obs)
        nowhere = np.zeros(scene.obs.shape, bool)
        unions = [mask | other.masks.get(name, nowhere) for name, mask in scene.masks.items()]
        where = (
            torch.from_numpy(np.stack(unions)).to(obs.device)
            if unions
            else torch.zeros(0, *obs.shape[1:], dtype=torch.bool)
        )
        fed = obs if agent.observation == "symbols" or obs.is_floating_point() else obs.float()

        def worth(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
            exchanged = Exchanged(there, where, torch.from_numpy(~coalitions).to(obs.device))
            return -drops(agent, obs, fed, target, state, exchanged)[0].double().numpy()

        return worth


def shapley_draws(games: Sequence[Game], players: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`[draws, E]`: Shapley values of E players, whose mean over draws is unbiased. Up to `EXACT` players a draw is a
    game, worked out over all 2^E coalitions; with more it is a permutation and its reverse (Mitchell et al. 2022, arXiv
    2104.12199), on one of the games in turn."""
    if not players:
        return np.zeros((len(games), 0))
    if players <= EXACT:
        return np.stack([_exact(game, players) for game in games])
    return np.stack([_sampled(games[k % len(games)], rng.permutation(players)) for k in range(PERMUTATIONS)])


def _exact(game: Game, players: int) -> NDArray[np.float64]:
    numbers = np.arange(2**players)
    coalitions = (numbers[:, None] >> np.arange(players) & 1).astype(bool)
    worth, size = game(coalitions), coalitions.sum(1)
    # Of the orders in which player i joins, the share in which exactly these come before it.
    share = np.array([1 / (players * comb(players - 1, k)) for k in range(players)])
    found = np.empty(players)
    for i in range(players):
        without = numbers[~coalitions[:, i]]
        found[i] = (share[size[without]] * (worth[without | 1 << i] - worth[without])).sum()
    return found


def _sampled(game: Game, order: NDArray[np.int64]) -> NDArray[np.float64]:
    found = np.zeros(len(order))
    for each in (order, order[::-1]):
        coalitions = np.tril(np.ones((len(each) + 1, len(each)), bool), -1)
        joined = np.empty_like(coalitions)
        joined[:, each] = coalitions
        found[each] += np.diff(game(joined)) / 2
    return found


def _estimates(draws: NDArray[np.float64]) -> list[Estimate]:
    """Means with 95% intervals of Student's t; none of a single draw."""
    from scipy.stats import t

    means = draws.mean(0)
    if len(draws) < 2:
        return [Estimate(float(value)) for value in means]
    wide = t.ppf(0.975, len(draws) - 1) * draws.std(0, ddof=1) / np.sqrt(len(draws))
    return [Estimate(float(m), float(m - w), float(m + w)) for m, w in zip(means, wide, strict=True)]
