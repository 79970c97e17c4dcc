"""Demonstrations of PointMaze (gymnasium-robotics): a seeded controller that goes from cell to cell.

Seen in gymnasium-robotics 1.4.2: a step is 0.01 s, the map's origin is its middle, and, unless made with
continuing_task=False, a reached goal neither ends the episode nor moves, and pays 1 at every step within 0.45 of it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.envs.gym.game import GymGame
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.errors import UserError

_PULL, _BRAKE, _WAVER = 10.0, 2.0, 0.1
"""Force for each unit of distance to the next place, force against each unit of speed, and the standard deviation of
the noise of a force."""
_LONGEST = 2_000
"""Steps in which every goal of the published mazes is reached."""
_NEAR = 0.3
"""How near the middle of a cell counts as in it, in widths of a cell."""
_STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def demonstrate(config: GymConfig, episodes: int, seed: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """States `[T + 1, S]`, as `config.goals` has them, and actions `[T, 2]` of each episode, up to its goal.

    Raises:
        UserError: an episode whose goal is not reached.
    """
    game = GymGame(config)
    maze: Any = game.env.unwrapped.maze  # pyright: ignore[reportAttributeAccessIssue]
    goals, found = config.goals, []
    assert goals is not None
    seen = np.empty(config.observation_shape, np.float32)
    for episode in range(episodes):
        number = episode_seed(seed, 0, episode)
        rng = np.random.default_rng([number, 1])
        game.reset(number)
        driver = _Driver(maze, game.shown, rng)
        states, actions = [], []
        while True:
            game.observe(seen)
            states.append(seen[list(goals.state)].astype(np.float64))
            if driver.arrived(game.shown):
                break
            actions.append(driver.action(game.shown))
            ended = game.step(actions[-1].astype(np.float32))[1]
            if ended:
                game.observe(seen)
                states.append(seen[list(goals.state)].astype(np.float64))
                break
            if len(actions) > _LONGEST:
                raise UserError(f"episode {episode} of {config.id} was not demonstrated in {_LONGEST} steps.")
        found.append((np.array(states), np.array(actions)))
    game.close()
    return [each for each in found if len(each[1])]


class _Driver:
    """A way through the maze, drawn among the shortest, and what force leads along it."""

    def __init__(self, maze: Any, shown: Mapping[str, NDArray[Any]], rng: np.random.Generator):
        self.maze, self.rng = maze, rng
        self.goal = np.array(shown["desired_goal"], np.float64)
        way = self._way(self._cell(shown["achieved_goal"]), self._cell(self.goal))
        self.route = [maze.cell_rowcol_to_xy(np.array(cell)) for cell in way[1:-1]]

    def action(self, shown: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """float64 `[2]`, within -1 and 1."""
        at, speed = shown["observation"][:2], shown["observation"][2:]
        while self.route and np.hypot(*(self.route[0] - at)) < _NEAR * self.maze.maze_size_scaling:
            self.route.pop(0)
        towards = self.route[0] if self.route else self.goal
        force = _PULL * (towards - at) - _BRAKE * speed + _WAVER * self.rng.standard_normal(2)
        return np.clip(force, -1, 1)

    def arrived(self, shown: Mapping[str, NDArray[Any]]) -> bool:
        return float(np.hypot(*(shown["achieved_goal"] - self.goal))) < 0.45

    def _cell(self, place: NDArray[Any]) -> tuple[int, int]:
        row, column = self.maze.cell_xy_to_rowcol(place)
        return int(row), int(column)

    def _way(self, start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
        """Cells of a shortest way, with both ends."""
        left, distance = [end], {end: 0}
        for cell in left:
            for step in _STEPS:
                beside = cell[0] + step[0], cell[1] + step[1]
                if beside not in distance and self.maze.maze_map[beside[0]][beside[1]] != 1:
                    distance[beside] = distance[cell] + 1
                    left.append(beside)
        way = [start]
        while way[-1] != end:
            row, column = way[-1]
            beside = [(row + a, column + b) for a, b in _STEPS]
            nearer = [cell for cell in beside if distance.get(cell, np.inf) < distance[way[-1]]]
            way.append(nearer[self.rng.integers(len(nearer))])
        return way
