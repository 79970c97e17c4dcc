"""Vector fields, what an agent would do from every free cell of a maze; and retargeting, whether a channel that is
clamped at one position moves its goal there.

Turner et al. 2023, "Understanding and controlling a maze-solving policy network", arXiv 2310.08043, §2 and §3.2. An
agent with a memory is asked as if the episode began at each cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.mazes.choices import activations, ask, maze_env, probabilities
from rl_interp.analysis.mazes.steering import parse_vector
from rl_interp.core.agent import Agent, PolicyOutput, evaluating
from rl_interp.core.envs.maze import ACTIONS, MOVES, MazeConfig
from rl_interp.core.envs.maze.config import CELL, MARGIN, WORLD
from rl_interp.core.envs.maze.draw import ENLARGED
from rl_interp.core.envs.maze.layout import NOWHERE
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Intervention, parse_clamp
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.receptive_fields import receptive_fields
from rl_interp.saliency.local import is_local, outputs_near

STEPS = np.array(MOVES)
"""`[A, 2]`: where each action leads, as (rows down, columns right)."""
_BATCH = 512


def draw_field(
    loaded: Loaded,
    seed: int = 0,
    side: int = 15,
    add: Sequence[str] = (),
    clamp: Sequence[str] = (),
    path: Path | None = None,
) -> dict[str, Any]:
    """Draw the vector field of one maze; with interventions, also how they change it.

    Args:
        seed: of the maze.
        side: of the maze.
        add: vectors to add, as `parse_vector` reads them.
        clamp: channels to hold, as `parse_clamp` reads them.
        path: .png to write; by default in the run's analyses/.

    Raises:
        UserError: not a maze agent, an impossible maze, or an intervention that is not of that form.
    """
    maze = _draw_maze(loaded, seed, side)
    fields = [("as it is", vector_field(loaded.agent, maze))]
    interventions = [*(parse_vector(text, loaded.agent, maze) for text in add), *map(parse_clamp, clamp)]
    if interventions:
        fields.append((", ".join([*add, *clamp]), vector_field(loaded.agent, maze, interventions)))
    path = path or loaded.run.outputs / "analyses" / "fields" / f"seed{seed}-side{side}.png"
    return {"picture": str(field_picture(maze, fields, path)), "cells": len(fields[0][1].cells)}


def draw_retargeting(
    loaded: Loaded,
    hook: str,
    channel: int,
    value: float | None = None,
    seed: int = 0,
    side: int = 15,
    path: Path | None = None,
) -> dict[str, Any]:
    """Clamp a channel at one position after another, and draw where the mouse would then go.

    Args:
        hook: a spatial hook point.
        value: what the channel is clamped to; by default twice its largest value in this maze.
        seed: of the maze.
        side: of the maze.
        path: .png to write; by default in the run's analyses/.

    Raises:
        UserError: not a maze agent, an impossible maze, or a channel that is not there.
        HookError: a point without positions.
    """
    maze = _draw_maze(loaded, seed, side)
    found_there = activations(loaded.agent, maze, hook)
    if value is None and found_there.dim() == 4 and 0 <= channel < found_there.shape[1]:
        value = 2 * float(found_there[0, channel].abs().max())
    found = retarget(loaded.agent, maze_env(loaded), maze, hook, channel, value or 0.0)
    path = path or loaded.run.outputs / "analyses" / "retargeting" / f"{hook}-{channel}-seed{seed}-side{side}.png"
    title = f"{loaded.run.path.name}: channel {channel} of {hook} held at {value:.3g} at one position"
    return {
        "picture": str(retargeting_picture(maze, found, title, path)),
        "value": value,
        "before": float(found.before.mean()),
        "after": float(found.after.mean()),
    }


def _draw_maze(loaded: Loaded, seed: int, side: int) -> Mazes:
    maze_env(loaded)
    return Mazes.draw(MazeConfig(min_side=side, max_side=side, decision=side > 3), [seed])


@dataclass(frozen=True)
class Field:
    """A policy at M cells of one maze."""

    cells: NDArray[np.int64]
    """`[M, 2]`: where the mouse stands."""
    probabilities: NDArray[np.float32]
    """`[M, A]`."""
    values: NDArray[np.float32]
    """`[M]`: of the value head; NaN for an agent without one."""

    @property
    def arrows(self) -> NDArray[np.float32]:
        """`[M, 2]`: the mean step, (rows down, columns right)."""
        return self.probabilities @ STEPS.astype(np.float32)

    def __sub__(self, other: "Field") -> "Field":
        """What an intervention changed: differences, cell by cell."""
        if not np.array_equal(self.cells, other.cells):
            raise UserError("two fields of different cells can't be subtracted; make both of the same maze.")
        return Field(self.cells, self.probabilities - other.probabilities, self.values - other.values)


def vector_field(agent: Agent, maze: Mazes, interventions: Sequence[Intervention] = ()) -> Field:
    """The policy at every free cell of one maze but the cheese's, in one batch.

    Raises:
        UserError: other than one maze, or actions other than the maze's.
    """
    _require_one(maze)
    cells = np.argwhere(~maze.walls[0] & (maze.distances(maze.mouse)[0] != NOWHERE))
    cells = cells[(cells != maze.cheese[0]).any(1)]
    mice = _with_mice(maze, cells)
    out = None if interventions else _asked_nearby(agent, mice)
    out = ask(agent, mice, interventions) if out is None else out
    return Field(cells, probabilities(out), _values(out))


def _asked_nearby(agent: Agent, mice: Mazes) -> PolicyOutput | None:
    """What an agent decides in one maze, its mouse here or there, by computing only what a mouse changes; None where
    that can't be told apart, or where others than a maze's actions are decided on."""
    if len(mice) < 3 or not is_local(agent):
        return None
    obs = torch.from_numpy(mice.observations())
    empty = torch.where(obs[0] == obs[1], obs[0], obs[2])  # of three mice at most one is at a pixel
    with evaluating(agent):
        out = outputs_near(agent, obs, empty[None], agent.initial_state(len(obs)))
    return out if out is not None and out.preferences.shape[1] == len(ACTIONS) else None


def _values(out: PolicyOutput) -> NDArray[np.float32]:
    if out.value is None and out.q_values is None:
        return np.full(len(out.preferences), np.nan, np.float32)
    return out.state_value.float().cpu().numpy()


def _with_mice(maze: Mazes, cells: NDArray[np.int64]) -> Mazes:
    """One maze, once for each cell, the mouse being there."""
    return maze[np.zeros(len(cells), int)].edit(mouse=cells)


def _require_one(maze: Mazes) -> None:
    if len(maze) != 1:
        raise UserError(f"{len(maze)} mazes given; a field is of one: give mazes[i : i + 1].")


@dataclass(frozen=True)
class Retargeting:
    """How well a clamped channel moves the goal, for each free cell of one maze."""

    cells: NDArray[np.int64]
    """`[M, 2]`."""
    before: NDArray[np.float64]
    """`[M]`: the geometric mean of the probabilities of the steps from the mouse to the cell."""
    after: NDArray[np.float64]
    """`[M]`: the same with the channel clamped at the position of that cell."""


def retarget(agent: Agent, env: MazeConfig, maze: Mazes, at: str, channel: int, value: float) -> Retargeting:
    """Clamp a channel of the spatial point `at` to `value` at one position after another, and see whether the mouse
    would go there (arXiv 2310.08043, §3.2: the normalised probability of the path).

    Only the layers after the edit are run for each position.

    Raises:
        UserError: other than one maze, or a channel that is not there.
        HookError: a point without positions, or one from which the network can't be run on.
    """
    _require_one(maze)
    # Every step of every way is one row: which cell it leads to, where the mouse then stands, and what it has to do.
    ways = _ways(maze)
    cells = np.array([way[-1] for way in ways])
    of_cell = np.repeat(np.arange(len(ways)), [len(way) - 1 for way in ways])
    actions = np.concatenate([_actions(way) for way in ways])
    stands, rows = np.unique(np.concatenate([way[:-1] for way in ways]), axis=0, return_inverse=True)
    # The layers before the edit are run once for each place where a mouse stands.
    mazes = _with_mice(maze, stands)
    obs = torch.from_numpy(mazes.observations()).to(agent.device)
    where = receptive_fields(agent, at, obs[:1]).nearest(env, cells)[of_cell]
    after_edit = PartialForward(agent, obs, at)
    if not 0 <= channel < after_edit.values.shape[1]:
        raise UserError(
            f"channel {channel} given for {at!r}, which has channels 0 to {after_edit.values.shape[1] - 1}."
        )
    before = probabilities(ask(agent, mazes))
    after = np.empty(len(rows))
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        of_obs = torch.from_numpy(rows[part]).to(obs.device)
        values = after_edit.values[of_obs]
        values[torch.arange(len(values)), channel, where[part, 0], where[part, 1]] = value
        after[part] = probabilities(after_edit(values, of_obs))[np.arange(len(values)), actions[part]]
    return Retargeting(cells, _geometric(before[rows, actions], of_cell), _geometric(after, of_cell))


def _ways(maze: Mazes) -> list[NDArray[np.int64]]:
    """A shortest way from the mouse to each other cell that it can reach, `[steps + 1, 2]` each."""
    steps = maze.distances(maze.mouse)[0]
    came = {tuple(maze.mouse[0].tolist()): [maze.mouse[0]]}
    for cell in np.argwhere(steps > 0)[np.argsort(steps[steps > 0], kind="stable")]:
        beside = (tuple((cell - step).tolist()) for step in STEPS[:4])
        before = next(each for each in beside if each in came and steps[each] == steps[tuple(cell)] - 1)
        came[tuple(cell.tolist())] = [*came[before], cell]
    return [np.array(way) for way in came.values() if len(way) > 1]


def _actions(way: NDArray[np.int64]) -> NDArray[np.int64]:
    """The actions that lead along a way."""
    return (np.diff(way, axis=0)[:, None] == STEPS).all(-1).argmax(-1)


def _geometric(probabilities: NDArray[np.floating], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Geometric means by group."""
    logs = np.log(np.maximum(probabilities, 1e-12))
    return np.exp(np.bincount(group, logs) / np.bincount(group))


def field_picture(maze: Mazes, fields: Sequence[tuple[str, Field]], path: Path) -> Path:
    """Arrows of the mean step at every cell, coloured by the value, on one scale; with two fields, also their
    difference."""
    values = np.concatenate([field.values for _, field in fields])
    known = values[np.isfinite(values)]
    panels = [(title, field, "viridis", (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0), "value")
              for title, field in fields]  # fmt: skip
    if len(fields) == 2:
        change = fields[1][1] - fields[0][1]
        limit = float(np.nanmax(abs(change.values))) if len(known) else 1.0
        panels.append(("difference", change, "coolwarm", (-limit, limit), "value, difference"))
    figure, axes = new_figure(1, len(panels), 6.2 * len(panels), 5.6)
    for axis, (title, field, colours, limits, label) in zip(axes[0], panels, strict=True):
        _show(axis, maze, title)
        y, x = _centres(field.cells)
        down, right = field.arrows.T
        quiver = axis.quiver(
            x, y, right, down, np.nan_to_num(field.values), angles="xy", scale_units="xy",
            scale=1 / (2 * ENLARGED), width=0.005, pivot="mid", cmap=colours, clim=limits,
        )  # fmt: skip
        figure.colorbar(quiver, ax=axis, shrink=0.7, label=label)
    return save_figure(figure, path)


def retargeting_picture(maze: Mazes, found: Retargeting, title: str, path: Path) -> Path:
    """How likely the mouse is to go to each cell, before and with the clamp there."""
    figure, axes = new_figure(1, 3, 18.6, 5.9)
    changes = found.after - found.before
    limit = max(1e-3, float(abs(changes).max()))
    panels = (
        ("as it is", found.before, "viridis", (0.0, 1.0)),
        ("clamped at the cell", found.after, "viridis", (0.0, 1.0)),
        ("difference", changes, "coolwarm", (-limit, limit)),
    )
    for axis, (name, values, colours, limits) in zip(axes[0], panels, strict=True):
        _show(axis, maze, name)
        whole = np.full((WORLD, WORLD), np.nan)
        whole[tuple(found.cells.T)] = values
        start, end = (edge * ENLARGED - 0.5 for edge in (MARGIN, MARGIN + CELL * WORLD))
        shown = axis.imshow(whole, cmap=colours, vmin=limits[0], vmax=limits[1], extent=(start, end, end, start))
        _frame(axis, maze)
        figure.colorbar(shown, ax=axis, shrink=0.7, label="probability of the steps there (geometric mean)")
    figure.suptitle(title, fontsize=12)
    return save_figure(figure, path)


def _show(axis: Any, maze: Mazes, title: str) -> None:
    """The maze, without the rest of the world."""
    axis.imshow(maze.picture())
    _frame(axis, maze)
    axis.set_axis_off()
    axis.set_title(title, fontsize=11)


def _frame(axis: Any, maze: Mazes) -> None:
    """Show the maze and a cell of the world around it."""
    side = int(maze.side[0])
    around = np.array([maze.corner[0] + [-1, -side], maze.corner[0] + [side, 1]])
    (top, bottom), (left, right) = _centres(around)
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)


def _centres(cells: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (down, right) of the picture at the middle of cells `[M, 2]`."""
    y, x = ((MARGIN + CELL * cells + CELL / 2) * ENLARGED - 0.5).T
    return y, x
