"""Demonstrations of both ways round the post, and what is known of their actions."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.envs.two_ways.config import NEAR, POINTS, ROUTES, TwoWaysConfig
from rl_interp.core.envs.two_ways.game import TwoWaysGame

PACE, WAVER = 0.2, 0.03
"""Mean length of a demonstrated step, unless it is the last on the way, and the standard deviation of its noise in x
and in y."""


def demonstrate(
    config: TwoWaysConfig, episodes: int, seed: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """States `[T + 1, 2]` and actions `[T, 2]` of each episode, which go above or below with the same probability,
    whatever is asked, and from there to the end."""
    game, found = TwoWaysGame(replace(config, asked=("end",), max_steps=10 * config.max_steps)), []
    for episode in range(episodes):
        number = episode_seed(seed, 0, episode)
        rng = np.random.default_rng([number, 1])
        game.reset(number)
        route, actions, ended = list(ROUTES["above" if rng.random() < 0.5 else "below"]), [], False
        while not ended:
            if len(route) > 1 and np.hypot(*(game.at - POINTS[route[0]])) < NEAR:
                route.pop(0)
            actions.append(heading(game.at, route[0]) + WAVER * rng.standard_normal(2))
            ended = any(game.step(actions[-1])[1:])
        found.append((np.array(game.trail), np.array(actions)))
    return found


def heading(at: NDArray[np.floating], towards: str) -> NDArray[np.float64]:
    """The mean of the action that is demonstrated at a place, on the way to a point of `POINTS`. At the start there are
    two such, of equal probability, unless the goal says which: their mixture of Gaussians is all that is known
    there."""
    way = np.asarray(POINTS[towards] - at, np.float64)
    return way * min(1.0, PACE / np.hypot(*way))
