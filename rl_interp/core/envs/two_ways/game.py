"""Two ways round a post, as a game."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import GameVector, LabelledGame
from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.two_ways.config import BOUND, NEAR, POINTS, POST, REACH, ROUTES, TwoWaysConfig
from rl_interp.core.envs.two_ways.draw import drawn

_SIGNS = {"above": 1, "below": -1, "end": 0}


class TwoWaysGame:
    """One point as a `Game`."""

    def __init__(self, config: TwoWaysConfig):
        self.config = config

    def reset(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.asked = self.config.asked[rng.integers(len(self.config.asked))]
        self.at = np.array([self.config.start, 0.0]) + rng.uniform(-1, 1, 2) * self.config.spread
        self.trail = [self.at]
        self.steps = self.reached = self.way = 0

    @property
    def goal(self) -> NDArray[np.float64]:
        """Where the point is to go next."""
        route = ROUTES[self.asked]
        return POINTS[route[min(self.reached, len(route) - 1)]]

    def step(self, action: NDArray[np.floating]) -> tuple[float, bool, bool]:
        moved = np.asarray(action, np.float64)
        after = np.clip(self.at + moved * min(1.0, REACH / max(1e-9, float(np.hypot(*moved)))), -BOUND, BOUND)
        if float(np.hypot(*after)) > POST:
            if self.way == 0 and self.at[0] < 0 <= after[0]:
                self.way = 1 if after[1] > 0 else -1
            self.at = after
        self.trail.append(self.at)
        self.steps += 1
        there = float(np.hypot(*(self.at - self.goal))) < NEAR
        self.reached += there
        done = self.reached == len(ROUTES[self.asked])
        return float(there), done, not done and self.steps >= self.config.max_steps

    def observe(self, out: NDArray[np.float32]) -> None:
        out[:2], out[2:] = self.at, self.goal

    def scene(self, out: NDArray[np.float32]) -> None:
        self.observe(out)

    def info(self) -> Mapping[str, Any]:
        """Goals reached and asked for, and the way taken and asked for: 1 above, -1 below, 0 none."""
        return {
            "reached": self.reached, "goals": len(ROUTES[self.asked]), "way": self.way, "asked": _SIGNS[self.asked],
        }  # fmt: skip


def make_vector(config: TwoWaysConfig, num_envs: int, workers: int = 0) -> GameVector:
    """In this process whatever `workers` says: a step takes microseconds."""
    return GameVector(config, [TwoWaysGame(config) for _ in range(num_envs)])


class TwoWaysLabelled(LabelledGame):
    """One point, equal to its vector form."""

    config: TwoWaysConfig
    game: TwoWaysGame
    concepts = {
        "goal_above": Concept("the goal is the place above the post"),
        "goal_below": Concept("the goal is the place below the post"),
        "x": Concept("how far right the point is", "number"),
        "y": Concept("how high the point is", "number"),
        "passes_above": Concept("the point passes above the post in this episode, has done so, or will"),
    }

    def __init__(self, config: TwoWaysConfig):
        super().__init__(config, TwoWaysGame(config))

    def labels(self) -> dict[str, float]:
        goal, (x, y) = self.game.goal, self.game.at
        return {
            "goal_above": float(goal is POINTS["above"]),
            "goal_below": float(goal is POINTS["below"]),
            "x": float(x),
            "y": float(y),
            "passes_above": float(self.game.way > 0),
        }

    def hindsight(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """`passes_above`, from the way that the episode took in the end."""
        return {"passes_above": np.full(len(columns["way"]), float(columns["way"][-1] > 0))}

    def cells(self) -> Cells:
        return {}

    def render(self) -> NDArray[np.uint8]:
        """The plane with the post, the goal, where the point is and where it was."""
        return drawn(self.game.trail, self.game.goal)
