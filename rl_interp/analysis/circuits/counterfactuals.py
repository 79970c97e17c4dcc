"""The same state with one thing changed, made by editing the environment: RAM, grid, maze or text.

The agent has come to the state by the same steps, so what it remembers is the same; what it sees differs in one entity.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs import EnvConfig, LabelledEnv
from rl_interp.core.envs.atari.edits import edible, ghost_at
from rl_interp.core.envs.atari.labelled import AtariLabelled, Snapshot
from rl_interp.core.envs.atari.mspacman import EDIBLE, GHOSTS
from rl_interp.core.envs.maze.labelled import MazeLabelled
from rl_interp.core.envs.minigrid.labelled import MiniGridLabelled
from rl_interp.core.envs.text.game import TextLabelled
from rl_interp.core.errors import UserError, unknown

if TYPE_CHECKING:
    from minigrid.minigrid_env import MiniGridEnv

Change = Literal["moved", "removed", "recoloured", "corrupted"]
CHANGES: tuple[Change, ...] = get_args(Change)
_FAR = 48
"""Pixels of city-block distance, two tiles of the screen, that a ghost is moved at least."""


class Editor(Protocol):
    """An environment at play, of whose state counterfactuals are made."""

    def before_step(self, action: int) -> None:
        """To be called before each step of the environment."""
        ...

    def changed(self, how: Change, rng: np.random.Generator) -> NDArray[Any] | None:
        """The observation with one thing changed, or None where nothing can be; the state stays as it is."""
        ...


def editor(env: LabelledEnv, config: EnvConfig, how: Change) -> Editor:
    """The one for an environment, before it is reset.

    Raises:
        UserError: an environment that can't be edited, or not in this way.
    """
    for kind, (make, ways) in _EDITORS.items():
        if isinstance(env, kind) and (not isinstance(env, AtariLabelled) or "ghost_near" in env.concepts):
            if how not in ways:
                raise UserError(unknown(f"change for {config.id}", how, ways))
            return make(env)
    raise UserError(
        f"{config.id} can't be put into a state of one's choice, so it has no counterfactuals; Ms. Pac-Man, MiniGrid, "
        "mazes and texts can. Choose other kinds of replacement."
    )


class _Maze:
    """The cheese elsewhere, or nowhere."""

    def __init__(self, env: MazeLabelled):
        self._env = env

    def before_step(self, action: int) -> None:
        pass

    def changed(self, how: Change, rng: np.random.Generator) -> NDArray[np.uint8] | None:
        maze = self._env.maze
        if (maze.cheese < 0).any():
            return None
        cheese = (-1, -1)
        if how == "moved":
            taken = {tuple(maze.mouse[0]), tuple(maze.cheese[0])}
            there = np.argwhere(maze.distances(maze.mouse)[0] > 0)
            free = [cell for cell in there if tuple(cell) not in taken]
            if not free:
                return None
            cheese = free[rng.integers(len(free))]
        return maze.edit(cheese=cheese).observations()[0]


class _Text:
    """The prompt's twin."""

    def __init__(self, env: TextLabelled):
        self._env = env

    def before_step(self, action: int) -> None:
        pass

    def changed(self, how: Change, rng: np.random.Generator) -> NDArray[np.int64] | None:
        return self._env.corrupted()


class _Grid:
    """A key, a ball, a box or a goal in view elsewhere in view, or nowhere; or it, or a door, in another colour."""

    _THINGS = ("key", "ball", "box", "goal")

    def __init__(self, env: MiniGridLabelled):
        self._env = env

    def before_step(self, action: int) -> None:
        pass

    def changed(self, how: Change, rng: np.random.Generator) -> NDArray[np.uint8] | None:
        from minigrid.core.constants import COLOR_NAMES

        env = self._env.game.env
        own = tuple(map(int, env.agent_pos))
        seen = [(x, y) for x, y in np.argwhere(self._in_view()).tolist() if (x, y) != own]
        things = {(x, y): thing for x, y in seen if (thing := env.grid.get(x, y)) is not None}
        free = [cell for cell in seen if cell not in things]
        wanted = (*self._THINGS, "door") if how == "recoloured" else self._THINGS
        cells = [cell for cell, thing in things.items() if thing.type in wanted]
        if how == "recoloured":
            cells = [cell for cell in cells if things[cell].type != "goal"]  # which is always green
        if not cells or (how == "moved" and not free):
            return None
        x, y = cells[rng.integers(len(cells))]
        if how == "recoloured":
            colour = rng.choice([name for name in COLOR_NAMES if name != things[x, y].color])
            return self._env.seen_with([f"colour:{x},{y}:{colour}"])
        if how == "removed":
            return self._env.seen_with([f"remove:{x},{y}"])
        column, row = free[rng.integers(len(free))]
        return self._env.seen_with([f"move:{x},{y}:{column},{row}"])

    def _in_view(self) -> NDArray[np.bool_]:
        """`[width, height]`: the cells that the agent sees."""
        env = self._env.game.env
        _, seen = env.gen_obs_grid()
        inside = np.zeros((env.width, env.height), bool)
        for i, j in np.argwhere(seen):
            x, y = cell_in_view(env, int(i), int(j))
            if 0 <= x < env.width and 0 <= y < env.height:
                inside[x, y] = True
        return inside


def cell_in_view(env: "MiniGridEnv", column: int, row: int) -> tuple[int, int]:
    """The grid's cell at a column and row of the egocentric view, whose last row is the agent's own."""
    ahead, right = env.dir_vec, env.right_vec
    far, aside = env.agent_view_size - 1 - row, column - env.agent_view_size // 2
    x, y = env.agent_pos + far * ahead + aside * right
    return int(x), int(y)


class MsPacmanEditor:
    """The nearest ghost elsewhere, or edible where it kills and the other way round.

    It is written into the RAM as many steps ago as the observation stacks frames, and the same actions are played again
    from there, so that every frame that shows the ghost shows it so, and the rest of the game is the same."""

    def __init__(self, env: AtariLabelled):
        self._env = env
        self._last: deque[tuple[Snapshot, int]] = deque(maxlen=env.config.frame_stack)
        self._been: deque[NDArray[np.uint8]] = deque(maxlen=400)

    def before_step(self, action: int) -> None:
        self._last.append((self._env.snapshot(), action))
        self._been.append(self._env.ram)

    def changed(self, how: Change, rng: np.random.Generator) -> NDArray[np.uint8] | None:
        def edit(ram: NDArray[np.uint8]) -> dict[int, int] | None:
            ghost = _nearest(ram)
            if ghost is None:
                return None
            if how == "recoloured":
                return edible(ram, ghost, not ram[1 + ghost] & EDIBLE)
            return self.elsewhere(ram, ghost, rng)

        return self.written(edit, lasts=how == "recoloured")

    def written(
        self, edit: Callable[[NDArray[np.uint8]], dict[int, int] | None], lasts: bool = False
    ) -> NDArray[np.uint8] | None:
        """The observation with `edit`, of the RAM then, written before the first of its frames; None without one, or
        where all else did not go on as it did.

        Args:
            lasts: ask besides that the colour of ghosts that was written is still there.
        """
        env = self._env
        if len(self._last) < env.config.frame_stack:
            return None
        now, player, found = env.snapshot(), self._player(), None
        env.restore(self._last[0][0])
        bytes_ = edit(env.ram)
        if bytes_ is not None:
            env.write(bytes_)
            obs, labels = now[2][2], {}
            for _, action in self._last:
                obs, _, _, _, info = env.step(action)
                labels = info["labels"]
            stays = not lasts or all(env.ram[byte] >> 7 == value >> 7 for byte, value in bytes_.items())
            found = obs if stays and labels["controllable"] and self._player() == player else None
        env.restore(now)
        return found

    def elsewhere(self, ram: NDArray[np.uint8], ghost: int, rng: np.random.Generator) -> dict[int, int] | None:
        """What to write for a ghost at a place, and with the heading, that a ghost had earlier, far from where it is
        and from the player."""
        now = ram.astype(int)
        here = np.array([[now[6 + ghost], now[12 + ghost]], [now[10], now[16]]])
        ghosts = np.concatenate([np.stack([then[6:10], then[12:16], then[1:5] & 3], 1) for then in self._been])
        ghosts = ghosts.astype(int)
        far = (np.abs(ghosts[:, None, :2] - here).sum(-1) >= _FAR).all(1)
        if not far.any():
            return None
        x, y, heading = ghosts[far][rng.integers(far.sum())].tolist()
        return ghost_at(ram, ghost, x, y, heading)

    @property
    def been(self) -> Sequence[NDArray[np.uint8]]:
        """The RAM before each of the last steps."""
        return self._been

    def _player(self) -> tuple[int, int]:
        ram = self._env.ram
        return int(ram[10]), int(ram[16])


def _nearest(ram: NDArray[np.uint8]) -> int | None:
    """The ghost nearest to the player, of those that are not on their way home, as an index of `GHOSTS`."""
    now = ram.astype(int)
    distance = {i: abs(now[6 + i] - now[10]) + abs(now[12 + i] - now[16]) for i in range(len(GHOSTS))}
    about = [i for i in distance if now[1 + i] >> 7 or now[1 + i] >> 4 & 5 != 4]
    return min(about, key=distance.__getitem__, default=None)


_EDITORS: dict[type, tuple[Callable[..., Editor], tuple[Change, ...]]] = {
    MazeLabelled: (_Maze, ("moved", "removed")),
    MiniGridLabelled: (_Grid, ("moved", "removed", "recoloured")),
    AtariLabelled: (MsPacmanEditor, ("moved", "recoloured")),
    TextLabelled: (_Text, ("corrupted",)),
}
