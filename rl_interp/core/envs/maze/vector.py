"""Many mazes stepped together, as arrays.

Only two cells of a picture change in a step, so redrawing them is enough: half a million steps a second with drawing.
Cells are two pixels wide and begin at even places, so that the positions of a layer that halves the picture are
cells.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.maze.config import ACTIONS, MASTERED, MOVES, WORLD, MazeConfig
from rl_interp.core.envs.maze.draw import draw_cell
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.envs.vector import Step
from rl_interp.core.errors import UserError

_MOVES = np.array(MOVES)
_TRIED = 100
"""Episodes in the largest mazes after which a curriculum decides whether to go on."""


class MazeVector:
    """N mazes behind the suite's vector convention. Episode n of maze i is seeded by `episode_seed(seed, i, n)`.

    `Step.info` has the `seed` of each episode, from which `Mazes.draw` gives its maze (without a curriculum), where the
    `mouse` is, and whether it has been `at_decision`, the decision square.
    """

    action_names: tuple[str, ...] = ACTIONS

    def __init__(self, config: MazeConfig, num_envs: int, workers: int = 0):
        """In this process whatever `workers` says: a step takes less than handing it over would."""
        self.config, self.num_envs, self.observation_shape = config, num_envs, config.observation_shape
        mazes = Mazes.blank(num_envs)
        self._walls, self._side, self._mouse, self._cheese = mazes.walls, mazes.side, mazes.mouse, mazes.cheese
        self._decision = np.empty((num_envs, 2), np.int64)
        self._been = np.zeros(num_envs, bool)
        self._steps = np.zeros(num_envs, np.int64)
        self._obs = np.empty((num_envs, *self.observation_shape), np.uint8)

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._seed = seed
        self._episode = np.full(self.num_envs, -1)
        self._largest = np.array(self.config.min_side if self.config.curriculum else self.config.max_side)
        self._solved = np.zeros(2, np.int64)
        self._seeds = np.zeros(self.num_envs, np.int64)
        self._ended = np.ones(self.num_envs, bool)
        self._begin()
        return self._obs.copy()

    def _begin(self) -> None:
        """Start the next episode where one has ended."""
        ended = np.flatnonzero(self._ended)
        self._episode[ended] += 1
        for i in ended:
            self._seeds[i] = episode_seed(self._seed, int(i), int(self._episode[i]))
        self._put(ended, Mazes.draw(replace(self.config, max_side=int(self._largest)), self._seeds[ended]))
        self._ended = np.zeros(self.num_envs, bool)

    def _learn_level(self, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]) -> None:
        """Count the episodes in the largest mazes that end, solved or not, and go on to larger ones."""
        largest = self._side == self._largest
        self._solved += [(largest & terminated).sum(), (largest & truncated).sum()]
        if self._solved.sum() >= _TRIED:
            if self._solved[0] >= MASTERED * self._solved.sum():
                self._largest += 2 * (self._largest < self.config.max_side)
            self._solved[:] = 0

    def _put(self, where: NDArray[np.integer], mazes: Mazes) -> None:
        self._walls[where], self._side[where] = mazes.walls, mazes.side
        self._mouse[where], self._cheese[where] = mazes.mouse, mazes.cheese
        self._decision[where] = mazes.decision
        self._been[where] = (self._decision[where] == self._mouse[where]).all(-1)
        self._obs[where] = mazes.observations()
        self._steps[where] = 0

    @property
    def mazes(self) -> Mazes:
        """The mazes as they stand."""
        return Mazes(self._walls.copy(), self._side.copy(), self._mouse.copy(), self._cheese.copy())

    def start(self, mazes: Mazes) -> NDArray[np.uint8]:
        """Begin episodes in N given mazes, whose `seed` is -1 in the info; returns observations. Later episodes are
        random again.

        Raises:
            UserError: another number of mazes.
        """
        if len(mazes) != self.num_envs:
            raise UserError(f"{len(mazes)} mazes given for {self.num_envs} environments; give one for each.")
        self._put(np.arange(self.num_envs), mazes)
        self._seeds[:], self._ended[:] = -1, False
        return self._obs.copy()

    def send(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        self._sent = actions

    def recv(self) -> Step:
        first, reward = self._ended, np.zeros(self.num_envs, np.float32)
        _move(
            self._sent, first, self._walls, self._mouse, self._cheese, self._decision, self._been, self._steps,
            reward, self._obs,
        )  # fmt: skip
        terminated = reward > 0
        truncated = ~terminated & ~first & (self._steps >= self.config.patience * self._side)
        if self.config.curriculum:
            self._learn_level(terminated, truncated)
        if first.any():
            self._begin()
        self._ended = terminated | truncated
        info = {"seed": self._seeds.copy(), "mouse": self._mouse.copy(), "at_decision": self._been.copy()}
        return Step(self._obs.copy(), reward, terminated, truncated, first, info)

    def scene(self) -> NDArray[np.uint8]:
        return self._obs.copy()

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain numbers."""
        arrays = {name: getattr(self, name).tolist() for name in _SAVED}
        return {"seed": self._seed, "arrays": arrays}

    def restore(self, state: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Go on from where `state` was taken; returns the observations `[N, ...]`."""
        self.reset(state["seed"])
        for name, values in state["arrays"].items():
            array = getattr(self, name)
            array[...] = np.array(values, array.dtype).reshape(array.shape)
        self._obs[:] = self.mazes.observations()
        return self._obs.copy()

    def close(self) -> None:
        pass


_SAVED = (
    "_largest",
    "_solved",
    "_episode",
    "_seeds",
    "_ended",
    "_walls",
    "_side",
    "_mouse",
    "_cheese",
    "_decision",
    "_been",
    "_steps",
)


@compiled()
def _move(
    actions: NDArray[np.int64],
    first: NDArray[np.bool_],
    walls: NDArray[np.bool_],
    mouse: NDArray[np.int64],
    cheese: NDArray[np.int64],
    decision: NDArray[np.int64],
    been: NDArray[np.bool_],
    steps: NDArray[np.int64],
    reward: NDArray[np.float32],
    obs: NDArray[np.uint8],
) -> None:
    """One step of every maze whose episode goes on."""
    for i in range(len(actions)):
        if first[i]:
            continue
        steps[i] += 1
        row, column = mouse[i]
        y, x = row + _MOVES[actions[i], 0], column + _MOVES[actions[i], 1]
        if (y == row and x == column) or not (0 <= y < WORLD and 0 <= x < WORLD) or walls[i, y, x]:
            continue
        mouse[i, 0], mouse[i, 1] = y, x
        draw_cell(walls[i], mouse[i], cheese[i], row, column, obs[i])
        draw_cell(walls[i], mouse[i], cheese[i], y, x, obs[i])
        been[i] |= y == decision[i, 0] and x == decision[i, 1]
        if y == cheese[i, 0] and x == cheese[i, 1]:
            reward[i] = 1
