"""A film of one level in which the plan is drawn as the probes read it, at every tick: from which side the player will
step onto each cell, and which way a box will be pushed off it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl_interp.agents.load import Loaded
from rl_interp.analysis.sokoban.plan import arrows
from rl_interp.analysis.sokoban.play import Game, Play, sokoban_env
from rl_interp.analysis.sokoban.reading import CONCEPTS, PointProbes, best_point, probes_at, read, ticks_of
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.draw import TILE, picture
from rl_interp.core.envs.sokoban.kinds import MOVES
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.pictures import font_of, write_png
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.video import check_video, write_video

TICKS_PER_SECOND = 5
_TIMES = 2
"""Enlargement of the board's picture."""
_HEADER, _MARGIN = 72, 16
_BACKGROUND, _INK, _FAINT = (18, 20, 24), (236, 238, 240), (140, 146, 154)
_COLOURS = {"agent": (30, 110, 235), "box": (200, 40, 160)}
_TITLES = {"agent": "the player will step", "box": "boxes will be pushed"}


class Reading(NamedTuple):
    """What is read at one tick."""

    board: NDArray[np.uint8]
    step: int
    tick: int
    plans: Mapping[str, NDArray[np.float32]]
    """`[5, H, W]`: probabilities of each class, by concept."""


def film_plan(
    loaded: Loaded,
    path: Path | None = None,
    levels: str | None = None,
    level: str | None = None,
    layer: str | None = None,
    kernel: int = 1,
    thinking: int = 0,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the film of a level, and beside it a picture of its first step, tick by tick.

    Args:
        path: of the film, by default in the run's videos/.
        levels: a set, file or folder of levels, by default those that the run is scored on.
        level: which of them, by its id; by default the one that `seed` counts to.
        layer: hook point that is read; by default the last layer's cell state.
        kernel: side of the square of cells that the probes see, 1 or 3.
        thinking: how often the agent sees the level before its first action, which is not shown.

    Raises:
        UserError: not an agent of Sokoban, no such level, or no probes of this checkpoint and layer.
    """
    path = path or loaded.run.outputs / "videos" / "sokoban-plan.mp4"
    check_video(path)
    env, agent = sokoban_env(loaded), loaded.agent
    if levels is not None:
        env = replace(env, levels=levels, held_out="", part="all")
    board, name = _level(Choice(env), level, seed)
    layer = layer or best_point(agent).layer
    probes = probes_at(loaded, layer, kernel)
    readings, game = _read(loaded, env, board, layer, probes, thinking, progress)
    ticks = ticks_of(agent)
    with progress.bar("Writing video", len(readings), "frames") as update:
        write_video(path, _frames(readings, layer, ticks, update), TICKS_PER_SECOND)
    first = [_frame(each, layer, ticks) for each in readings[:ticks]]
    still = write_png(path.with_suffix(".png"), np.concatenate(first))
    return {
        "video": str(path), "still": str(still), "frames": len(readings), "level": name, "layer": layer,
        "solved": game.solved, "steps": len(game.actions),
    }  # fmt: skip


def _level(choice: Choice, level: str | None, seed: int) -> tuple[NDArray[np.uint8], str]:
    if choice.set is None:
        if level is not None:
            raise UserError(f"level {level!r} given, and these are generated: give --seed, or a set with --levels.")
        return choice.levels(np.array([seed]))[0], choice.level_id(seed)
    if level is not None and level not in choice.set.ids:
        raise UserError(unknown("level", level, choice.set.ids))
    number = seed % len(choice.set) if level is None else choice.set.ids.index(level)
    return choice.set.boards[number : number + 1], choice.set.ids[number]


def _read(
    loaded: Loaded, env: Any, board: NDArray[np.uint8], layer: str, probes: PointProbes, thinking: int,
    progress: Progress,
) -> tuple[list[Reading], Game]:  # fmt: skip
    play = Play(loaded.agent, board, env, thinking=thinking, progress=progress)
    found = []
    for turn in play:
        for point, maps in read(loaded.agent, turn.obs, turn.state, [layer]).items():
            plans = {c: probes[c, point].logits(maps)[0].softmax(0).numpy() for c in CONCEPTS}
            found.append(Reading(turn.boards[0], turn.step, point.tick, plans))
    return found, play.games[0]


def _frames(readings: Sequence[Reading], layer: str, ticks: int, update: Any) -> Iterator[NDArray[np.uint8]]:
    for number, reading in enumerate(readings, 1):
        yield _frame(reading, layer, ticks)
        update(number)


def _frame(reading: Reading, layer: str, ticks: int) -> NDArray[np.uint8]:
    """Both plans side by side, RGB, of even size."""
    height, width = (TILE * _TIMES * side for side in reading.board.shape)
    canvas = Image.new("RGB", (2 * width + _MARGIN, height + _HEADER), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 6), f"step {reading.step}, tick {reading.tick + 1} of {ticks}", _INK, font_of(24))
    draw.text((width - 8, 12), f"read at {layer}", _FAINT, font_of(16), anchor="ra")
    for number, concept in enumerate(CONCEPTS):
        left = number * (width + _MARGIN)
        draw.text((left + 8, _HEADER - 30), f"where {_TITLES[concept]}", _COLOURS[concept], font_of(20))
        canvas.paste(board_with_plan(reading.board, reading.plans[concept], _COLOURS[concept]), (left, _HEADER))
    return np.asarray(canvas)


def board_with_plan(board: NDArray[np.uint8], plan: NDArray[np.floating], colour: tuple[int, int, int]) -> Image.Image:
    """A board and an arrow at each cell where something is likelier to come than to never: the likeliest way, the more
    opaque the surer.

    Args:
        plan: `[5, H, W]`, probabilities of the four directions and of never.
    """
    image = Image.fromarray(picture(board).repeat(_TIMES, 0).repeat(_TIMES, 1)).convert("RGBA")
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    side = TILE * _TIMES
    for row, column, direction, sure in arrows(board, plan):
        _arrow(draw, (column + 0.5) * side, (row + 0.5) * side, direction, side, (*colour, int(90 + 165 * sure)))
    return Image.alpha_composite(image, layer).convert("RGB")


def _arrow(
    draw: ImageDraw.ImageDraw, x: float, y: float, direction: int, side: int, colour: tuple[int, int, int, int]
) -> None:
    down, right = MOVES[direction]

    def at(along: float, across: float) -> tuple[float, float]:
        return x + side * (along * right - across * down), y + side * (along * down + across * right)

    head = [at(0.36, 0), at(0.06, 0.22), at(0.06, -0.22)]
    shaft = [at(-0.34, 0.08), at(0.08, 0.08), at(0.08, -0.08), at(-0.34, -0.08)]
    for part in (shaft, head):
        draw.polygon(part, fill=colour)
