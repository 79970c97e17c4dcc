"""What is where in an observation, entity by entity, and the same state without one: from the environment's truth.

A survey of an environment at play gives each entity's mask, for methods that exchange entities, and edited
observations, which say what an entity really does to the agent.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rl_interp.analysis.circuits.counterfactuals import MsPacmanEditor, cell_in_view
from rl_interp.core.envs import EnvConfig, LabelledEnv
from rl_interp.core.envs.atari.edits import pill, screen_place
from rl_interp.core.envs.atari.labelled import AtariLabelled
from rl_interp.core.envs.atari.mspacman import GHOSTS, PILLS, PILLS_LEFT
from rl_interp.core.envs.crafter.labelled import CrafterLabelled
from rl_interp.core.envs.maze.labelled import MazeLabelled
from rl_interp.core.envs.minigrid.labelled import MiniGridLabelled
from rl_interp.core.envs.sokoban.labelled import SokobanLabelled
from rl_interp.core.errors import UserError

Masks = dict[str, NDArray[np.bool_]]
"""Entity to where it is in an observation, `[C, H, W]`."""


class Survey(Protocol):
    """Looks at an environment at play; changes nothing."""

    def before_step(self, action: int) -> None:
        """To be called before each step of the environment."""
        ...

    def masks(self) -> Masks:
        """Of the entities in view now."""
        ...

    def edited(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Entity to the observation without it, or with it elsewhere: of those that can be edited so that all else
        stays."""
        ...


def survey(env: LabelledEnv, config: EnvConfig) -> Survey:
    """The one for an environment, before it is reset.

    Raises:
        UserError: an environment of which it is not known what is where.
    """
    if isinstance(env, AtariLabelled) and "ghost_near" in env.concepts:
        return _MsPacman(env)
    for kind, make in _SURVEYS.items():
        if isinstance(env, kind):
            return make(env, config)
    raise UserError(
        f"what is where on the screen of {config.id} is not known, so it has no entities; Ms. Pac-Man, MiniGrid, "
        "Crafter, mazes and Sokoban have. Use other methods."
    )


class _MsPacman:
    """Ms. Pac-Man, the ghosts, the power pills and the fruit, by their places in the RAM of each stacked frame. A ghost
    is moved, a pill is taken away."""

    _ACROSS, _DOWN = 84 / 160, 84 / 210
    _HALF = 4.5
    """Half the side of a sprite's box, in pixels of the observation."""

    def __init__(self, env: AtariLabelled):
        self._env, self._editor = env, MsPacmanEditor(env)

    def before_step(self, action: int) -> None:
        self._editor.before_step(action)

    def masks(self) -> Masks:
        stack = self._env.config.frame_stack
        rams = [*self._editor.been][-(stack - 1) :] if stack > 1 else []
        rams = [rams[0] if rams else self._env.ram] * (stack - 1 - len(rams)) + rams + [self._env.ram]
        found: Masks = {}
        for frame, ram in enumerate(rams):
            for name, (x, y) in self._places(ram).items():
                mask = found.setdefault(name, np.zeros((stack, 84, 84), bool))
                mask[frame] |= self._box(x, y)
        return {name: mask for name, mask in found.items() if mask[-1].any()}

    def edited(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        found = {}
        for i, ghost in enumerate(GHOSTS):
            found[ghost] = self._editor.written(lambda ram, i=i: self._editor.elsewhere(ram, i, rng))
        for bit in PILLS:
            if self._env.ram[PILLS_LEFT] >> bit & 1:
                found[f"power pill {bit - 1}"] = self._editor.written(lambda ram, bit=bit: pill(ram, bit, False))
        return {name: obs for name, obs in found.items() if obs is not None}

    def _places(self, ram: NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
        """Centres on the screen, x and y."""
        now = ram.astype(int)
        places = {"Ms. Pac-Man": screen_place(now[10], now[16])}
        places |= {ghost: screen_place(now[6 + i], now[12 + i]) for i, ghost in enumerate(GHOSTS)}
        places |= {f"power pill {bit - 1}": at for bit, at in PILLS.items() if now[PILLS_LEFT] >> bit & 1}
        if now[11]:
            places["fruit"] = screen_place(now[11], now[17])
        return places

    def _box(self, x: float, y: float) -> NDArray[np.bool_]:
        rows, columns = (np.abs(np.arange(84) + 0.5 - at) <= self._HALF for at in (y * self._DOWN, x * self._ACROSS))
        return rows[:, None] & columns


class _Cells:
    """A grid of cells: what is in each, by a layer of `LabelledEnv.cells`. Things are entities one by one, in reading
    order; what fills many cells, such as walls, is one of its kind.

    Args:
        layers: name to the classes that are one entity each kind; and those that are none.
    """

    layers: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]

    def __init__(self, env: Any, config: EnvConfig):
        self._env, self._config = env, config

    def before_step(self, action: int) -> None:
        pass

    def masks(self) -> Masks:
        return {name: self._pixels(cells) for name, cells in self.places().items()}

    def places(self) -> dict[str, list[tuple[int, int]]]:
        """Entity to its cells, (row, column) of what is in view."""
        found: dict[str, list[tuple[int, int]]] = {}
        for layer, (together, ignored) in self.layers.items():
            codes, names = self._env.cells()[layer]
            count: dict[str, int] = {}
            for row, column in np.argwhere(codes >= 0).tolist():
                kind = names[codes[row, column]]
                if kind in ignored:
                    continue
                if kind not in together:
                    count[kind] = count.get(kind, 0) + 1
                name = kind if kind in together or count[kind] == 1 else f"{kind} {count[kind]}"
                found.setdefault(name, []).append((row, column))
        return found

    def _pixels(self, cells: list[tuple[int, int]]) -> NDArray[np.bool_]:
        side, margin = self._config.cell_pixels or (1, 0)
        mask = np.zeros(self._config.observation_shape, bool)
        for row, column in cells:
            top, left = margin + side * row, margin + side * column
            mask[:, top : top + side, left : left + side] = True
        return mask

    def edited(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {}


class _MiniGrid(_Cells):
    """Things in view, which are taken away; walls are one entity, and stay."""

    layers = {"object": (("wall", "lava"), ("unseen", "empty", "floor"))}

    def edited(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        found = {}
        for name, cells in self.places().items():
            if name not in ("wall", "lava"):
                x, y = cell_in_view(self._env.game.env, cells[0][1], cells[0][0])
                found[name] = self._env.seen_with([f"remove:{x},{y}"])
        return found


class _Crafter(_Cells):
    """Materials, one entity each kind but what one walks on, and creatures one by one. A creature is taken away, a
    material becomes grass."""

    layers = {
        "material": (("water", "stone", "tree", "coal", "iron", "diamond", "lava", "table", "furnace"),
                     ("grass", "sand", "path")),
        "thing": ((), ("nothing", "player")),
    }  # fmt: skip

    def edited(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        left, top = self._env.editing().grid.first
        found = {}
        for name, cells in self.places().items():
            form = "material:{},{}:grass" if name in self.layers["material"][0] else "remove:{},{}"
            found[name] = self._env.seen_with([form.format(left + column, top + row) for row, column in cells])
        return found


class _Maze(_Cells):
    """The mouse, the cheese and the walls. The cheese is taken away, and the mouse moved to a free cell."""

    layers = {"kind": (("wall",), ("dead end", "corridor up-down", "corridor left-right", "turn up-left",
                                   "turn up-right", "turn down-left", "turn down-right", "junction"))}  # fmt: skip

    def edited(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        maze = self._env.maze
        found = {}
        if (maze.cheese >= 0).all():
            found["cheese"] = maze.edit(cheese=(-1, -1)).observations()[0]
        free = np.argwhere(maze.distances(maze.mouse)[0] > 0)
        free = free[(free != maze.cheese[0]).any(1)]
        if len(free):
            found["mouse"] = maze.edit(mouse=free[rng.integers(len(free))]).observations()[0]
        return found


class _Sokoban(_Cells):
    """Boxes, targets and the player one by one, and the walls."""

    layers = {"kind": (("wall",), ("floor",))}


_SURVEYS: dict[type, type[_Cells]] = {
    MiniGridLabelled: _MiniGrid,
    CrafterLabelled: _Crafter,
    MazeLabelled: _Maze,
    SokobanLabelled: _Sokoban,
}
