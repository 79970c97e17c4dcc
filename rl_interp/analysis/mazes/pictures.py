"""Pictures and tables of what a maze agent wants."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.mazes.choices import Coefficient, Played, Share
from rl_interp.analysis.mazes.fields import Field, Retargeting
from rl_interp.analysis.mazes.steering import Effect
from rl_interp.core import stats
from rl_interp.core.envs import MazeConfig
from rl_interp.core.envs.maze.config import CELL, MARGIN, WORLD
from rl_interp.core.envs.maze.draw import ENLARGED
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError
from rl_interp.core.pictures import save_figure


def maze_env(loaded: Loaded) -> MazeConfig:
    """The environment of a maze agent.

    Raises:
        UserError: it plays something else.
    """
    if not isinstance(loaded.env, MazeConfig):
        raise UserError(
            f"{loaded.run.path} is an agent in {loaded.env.id}, and this is about mazes: give a maze agent."
        )
    return loaded.env


def field_picture(maze: Mazes, fields: Sequence[tuple[str, Field]], path: Path) -> Path:
    """Arrows of the mean step at every cell, coloured by the value; with two fields, also their difference."""
    import matplotlib.pyplot as plt

    panels = [*fields]
    if len(fields) == 2:
        panels.append(("difference", fields[1][1] - fields[0][1]))
    figure, axes = plt.subplots(1, len(panels), figsize=(6.2 * len(panels), 5.6), layout="constrained", squeeze=False)
    for axis, (title, field) in zip(axes[0], panels, strict=True):
        _show(axis, maze, title)
        of_difference = title == "difference"
        limit = float(np.nanmax(abs(field.values))) if np.isfinite(field.values).any() else 1.0
        y, x = _centres(field.cells)
        down, right = field.arrows.T
        quiver = axis.quiver(
            x, y, right, down, np.nan_to_num(field.values), angles="xy", scale_units="xy",
            scale=1 / (2 * ENLARGED), width=0.005, pivot="mid", cmap="coolwarm" if of_difference else "viridis",
            clim=(-limit, limit) if of_difference else None,
        )  # fmt: skip
        figure.colorbar(quiver, ax=axis, shrink=0.7, label="value, difference" if of_difference else "value")
    return save_figure(figure, path)


def retargeting_picture(maze: Mazes, found: Retargeting, title: str, path: Path) -> Path:
    """How likely the mouse is to go to each cell, before and with the clamp there."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(18.6, 5.9), layout="constrained")
    changes = found.after - found.before
    limit = max(1e-3, float(abs(changes).max()))
    panels = (
        ("as it is", found.before, "viridis", (0.0, 1.0)),
        ("clamped at the cell", found.after, "viridis", (0.0, 1.0)),
        ("difference", changes, "coolwarm", (-limit, limit)),
    )
    for axis, (name, values, colours, limits) in zip(axes, panels, strict=True):
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
    """The maze, cut to what of the world it fills."""
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


def goals_table(rows: Sequence[dict[str, Any]]) -> str:
    """A row an agent, in Markdown."""
    lines = [
        "| agent | cheese in training | P(cheese given decision square) | P(ends at the corner without it, given that "
        "square) | P(ends at the corner given no cheese) | episodes at a decision square |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        region = f"region {row['region']}" if row["region"] else "anywhere"
        shares = [row[name] for name in ("p_cheese", "p_corner", "p_corner_without_cheese")]
        cells = [shown(share) for share in shares]
        lines.append(f"| {row['run']} | {region} | {' | '.join(cells)} | {row['p_cheese']['count']} |")
    return "\n".join(lines) + "\n"


def plain(share: Share) -> dict[str, float | None]:
    """Ready for JSON, which has no NaN."""
    return {name: value if np.isfinite(value) else None for name, value in vars(share).items()}


def shown(share: dict[str, float | None]) -> str:
    """A share, from `plain`, with its interval."""
    if share["value"] is None:
        return "never"
    return f"{share['value']:.3f} {stats.shown((share['low'], share['high']), '.3f')}"


def goals_row(
    loaded: Loaded, region: int, played: Played, without: Share, model: dict[str, Coefficient]
) -> dict[str, Any]:
    return {
        "run": loaded.run.path.name,
        "step": loaded.step,
        "region": region,
        "p_cheese": plain(played.p_cheese),
        "p_corner": plain(played.p_corner),
        "p_corner_without_cheese": plain(without),
        "at_decision_square": plain(Share.of(played.decision)),
        "by_side": {
            int(side): plain(Share.of(played.cheese[played.decision & (played.mazes.side == side)]))
            for side in np.unique(played.mazes.side)
        },
        "regression": {name: vars(each) for name, each in model.items()},
    }


def goals_picture(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """P(cheese | decision square) by training region, and by the maze's side."""
    import matplotlib.pyplot as plt

    rows = sorted(rows, key=lambda row: row["region"] or 99)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    names = [str(row["region"]) if row["region"] else "anywhere" for row in rows]
    at = np.arange(len(rows))
    for offset, key, label, colour in (
        (-0.25, "p_cheese", "cheese, given the decision square", "#e0a000"),
        (0.0, "p_corner", "ends at the corner without it, given that square", "#5868c4"),
        (0.25, "p_corner_without_cheese", "ends at the corner, where there is no cheese", "#9a9aa8"),
    ):
        values = np.array([[row[key][name] for name in ("value", "low", "high")] for row in rows], float)
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        left.bar(at + offset, values[:, 0], 0.24, yerr=errors, label=label, color=colour, capsize=3)
    left.set_xticks(at, names)
    left.set(xlabel="region of the cheese in training (cells along its side)", ylabel="probability", ylim=(0, 1.25))
    left.set_yticks(np.linspace(0, 1, 6))
    left.legend(fontsize=8, loc="upper center", ncols=1)
    for row, name in zip(rows, names, strict=True):
        sides = sorted(row["by_side"])
        values = np.array([[row["by_side"][side][key] for key in ("value", "low", "high")] for side in sides], float)
        line = right.plot([int(side) for side in sides], values[:, 0], marker="o", label=f"trained with {name}")[0]
        right.fill_between(
            [int(side) for side in sides], values[:, 1], values[:, 2], alpha=0.15, color=line.get_color()
        )
    right.set(xlabel="side of the maze (cells)", ylabel="P(cheese given decision square)", ylim=(0, 1.25))
    right.set_yticks(np.linspace(0, 1, 6))
    right.legend(fontsize=8, loc="upper center", ncols=len(rows))
    return save_figure(figure, path)


def dose_picture(curves: dict[str, dict[str, dict[float, Effect]]], path: Path) -> Path:
    """Effects by scale, of vectors and their controls; a panel a vector."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(curves), figsize=(5.6 * len(curves), 4.4), layout="constrained", squeeze=False, sharey=True
    )
    for axis, (title, kinds) in zip(axes[0], curves.items(), strict=True):
        for kind, effects in kinds.items():
            scales = sorted([*effects, 0.0])
            zero = Effect(0.0, 0.0, 0.0, 0.0)
            found = [effects.get(scale, zero) for scale in scales]
            line = axis.plot(scales, [each.cheese for each in found], marker="o", label=kind)[0]
            low, high = np.array([(each.low, each.high) for each in found], float).T  # None, of too few, becomes NaN
            axis.fill_between(scales, low, high, alpha=0.15, color=line.get_color())
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(xlabel="multiple that is added", title=title)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("change of P(step towards the cheese)")
    return save_figure(figure, path)


def effect_line(name: str, effect: Effect) -> str:
    interval = stats.shown((effect.low, effect.high), "+.3f")
    return f"| {name} | {effect.cheese:+.3f} {interval} | {effect.corner:+.3f} |"
