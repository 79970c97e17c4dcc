"""What time to think is worth to a Sokoban agent: solved levels and plans by steps of thinking, pacing, and larger
levels (Guez et al. 2019, arXiv 1901.03559, §4.3; Taufeeque et al. 2024, arXiv 2407.15421)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.probes.cells import NO_CLASS, CellProbe, confusions, macro_f1
from rl_interp.analysis.sokoban.larger import larger_levels
from rl_interp.analysis.sokoban.pacing import by_time, substituted
from rl_interp.analysis.sokoban.play import Boards, Game, Play, boards_of, sokoban_env
from rl_interp.analysis.sokoban.reading import CONCEPTS, Point, best_point, fitted_on, folder_of, load_probes, read
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.kinds import WALL
from rl_interp.core.envs.sokoban.plans import CLASSES, future
from rl_interp.core.files import write_json, write_text
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import Estimate, plain, shown, wilson
from rl_interp.core.tables import markdown

LEVELS = ("unfiltered", "medium", "hard")
THINKING = (0, 1, 2, 4, 8, 16)


def give_time(
    loaded: Loaded,
    levels: Sequence[str] = (),
    episodes: int = 1000,
    thinking: Sequence[int] = THINKING,
    sizes: tuple[int, ...] = (),
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Play levels after some steps of thinking, look for cycles, and play larger levels. Writes tables, a plot and the
    result to the run's analyses/, and returns the result with their paths.

    Args:
        levels: sets, files or folders of levels; by default those that the run is scored on.
        episodes: levels of each to play, or all if there are fewer.
        thinking: how often the agent sees a level before its first action.
        sizes: sides of larger boards to play on; none by default.
        seed: of generated levels and of the control.

    Raises:
        UserError: not an agent of Sokoban, levels that can't be read, no probes of this checkpoint, or as
            `larger_levels` does.
    """
    env, point = sokoban_env(loaded), best_point(loaded.agent)
    probes = {concept: load_probes(loaded)[concept, point, 1] for concept in CONCEPTS}
    curves: list[dict[str, Any]] = []
    pacing: dict[str, Any] = {"cycles": [], "substituted": None}
    for number, name in enumerate(levels or (env.levels,)):
        config = replace(env, levels=name, held_out="", part=env.part if name == env.levels else "all")
        boards = _boards(config, episodes, seed)
        new = ~fitted_on(loaded, boards.boards)
        for steps in thinking:
            games, plans = _played(loaded, config, boards.boards, steps, point, progress)
            curves.append(_row(name, steps, games, plans, new, probes, seed))
            if steps == 0 and number == 0:
                pacing = {
                    "cycles": by_time(games),
                    "substituted": substituted(loaded.agent, config, games, seed, progress),
                }
    larger = None
    if sizes:
        own = _boards(env, min(episodes, 200), seed)
        larger = larger_levels(loaded, own, sizes, min(episodes, 20), seed, progress)
    folder = folder_of(loaded)
    result = loaded.source | {
        "episodes": episodes, "seed": seed, "point": f"{point.layer}, tick {point.tick}",
        "thinking": curves, "success_rate": curves[0]["success_rate"], **pacing, "larger": larger,
    }  # fmt: skip
    write_json(folder / "think.json", result)
    write_text(folder / "think.md", thinking_table(result))
    plot = thinking_picture(result, folder / "think.png")
    return result | {"table": str(folder / "think.md"), "plot": str(plot), "result": str(folder / "think.json")}


def _boards(env: SokobanConfig, count: int, seed: int) -> Boards:
    """So many, or all of a set that has fewer; none is turned or mirrored."""
    from rl_interp.core.envs.sokoban.choice import Choice

    levels = Choice(env).set
    return boards_of(env, count if levels is None else min(count, len(levels)), seed)


def _played(
    loaded: Loaded, env: SokobanConfig, boards: NDArray[np.uint8], thinking: int, point: Point, progress: Progress
) -> tuple[list[Game], list[Tensor]]:
    """The games, and what is read at the point when each begins."""
    play = Play(loaded.agent, boards, env, thinking=thinking, progress=progress)
    plans = [read(loaded.agent, turn.obs, turn.state, [point.layer])[point] for turn in play if turn.step == 0]
    return play.games, plans


def _row(
    name: str, thinking: int, games: Sequence[Game], plans: Sequence[Tensor], new: NDArray[np.bool_],
    probes: Mapping[str, CellProbe], seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Solved levels, and how well the first plan is what the agent then does, in those that are `new [N]` to the
    probes."""
    rate = wilson([game.solved for game in games])
    row: dict[str, Any] = {
        "levels": name, "thinking": thinking, "success_rate": rate.value, "success_rate_interval": plain(rate),
        "length_solved": _mean([len(game.actions) for game in games if game.solved]),
        "plan_levels": int(new.sum()),
    }  # fmt: skip
    scored = [game for game, unseen in zip(games, new, strict=True) if unseen]
    maps = torch.cat(list(plans))[torch.from_numpy(new)]
    for concept, probe in probes.items():
        score = _plan_score(scored, maps, concept, probe, seed) if scored else None
        row |= {f"plan_f1_{concept}": score and score.value, f"plan_f1_{concept}_interval": plain(score)}
    return row


def _plan_score(games: Sequence[Game], maps: Tensor, concept: str, probe: CellProbe, seed: int) -> Estimate:
    come = np.stack([getattr(future(game.board, game.actions), concept)[0] for game in games]).astype(np.int64)
    come[np.stack([game.board for game in games]) == WALL] = NO_CLASS
    return macro_f1(confusions(come, probe.classes(maps), np.arange(len(games)), len(CLASSES)), seed)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def thinking_table(result: Mapping[str, Any]) -> str:
    """All of it, in Markdown."""
    curve = [
        [each["levels"], each["thinking"], f"{each['success_rate']:.1%} {shown(each['success_rate_interval'], '.1%')}",
         each["plan_levels"], *(_plan_cell(each, concept) for concept in CONCEPTS)]
        for each in result["thinking"]
    ]  # fmt: skip
    plans = [f"first plan, {concept}: macro-F1" for concept in CONCEPTS]
    header = ["levels", "steps of thinking", "solved", "new to the probes", *plans]
    parts = [markdown(header, curve)]
    cycles = [
        [f"{each['from']} to {each['to']}", each["steps"], f"{each['share']:.1%}",
         "" if each["share_solved"] is None else f"{each['share_solved']:.1%}"]
        for each in result["cycles"]
    ]  # fmt: skip
    parts.append(markdown(["steps of the episode", "steps", "within cycles", "in games solved"], cycles))
    if found := result["substituted"]:
        rows = [
            [name, *(f"{found[name][what]['share']:.1%} {shown(found[name][what]['interval'], '.1%')}"
                     for what in ("same_way", "solved", "solved_before"))]
            for name in ("replaced", "control")
        ]  # fmt: skip
        parts.append(markdown(["thinking in place of a cycle", "same way after", "solved", "solved before"], rows))
    if larger := result["larger"]:
        rows = [
            [each["size"], each["kind"], each["scale"], each["levels"],
             f"{each['success_rate']:.0%} {shown(each['success_rate_interval'], '.0%')}"]
            for each in larger["levels"]
        ]  # fmt: skip
        parts.append(markdown(["side", "levels", "scale", "count", "solved"], rows))
    return "\n".join(parts)


def _plan_cell(row: Mapping[str, Any], concept: str) -> str:
    score = row[f"plan_f1_{concept}"]
    return "" if score is None else f"{score:.3f} {shown(row[f'plan_f1_{concept}_interval'], '.3f')}"


def thinking_picture(result: Mapping[str, Any], path: Path) -> Path:
    """Solved levels and the first plan's F1 by steps of thinking, and cycles by time."""
    figure, axes = new_figure(1, 3, 13, 4)
    left, middle, right = axes[0]
    curves = result["thinking"]
    for name in dict.fromkeys(each["levels"] for each in curves):
        rows = [each for each in curves if each["levels"] == name]
        steps = [each["thinking"] for each in rows]
        low, high = np.array([each["success_rate_interval"] for each in rows]).T
        line = left.plot(steps, [each["success_rate"] for each in rows], "o-", label=name)[0]
        left.fill_between(steps, low, high, alpha=0.15, color=line.get_color())
        for concept, style in zip(CONCEPTS, ("-", "--"), strict=True):
            scores = [np.nan if each[f"plan_f1_{concept}"] is None else each[f"plan_f1_{concept}"] for each in rows]
            middle.plot(steps, scores, style, marker="o", color=line.get_color(), label=f"{name}: {concept}")
    left.set(xlabel="steps of thinking", ylabel="solved", ylim=(0, 1))
    middle.set(xlabel="steps of thinking", ylabel="macro-F1 of the first plan", ylim=(0, 1))
    for axis in (left, middle):
        axis.set_xticks(sorted({each["thinking"] for each in curves}))
    names = [f"{each['from']}-{each['to']}" for each in result["cycles"]]
    right.plot(names, [each["share"] for each in result["cycles"]], "o-", label="all games")
    solved = [np.nan if each["share_solved"] is None else each["share_solved"] for each in result["cycles"]]
    right.plot(names, solved, "s--", label="games solved")
    right.set(xlabel="step of the episode", ylabel="steps within cycles", ylim=(0, 1))
    for axis in (left, middle, right):
        axis.legend(fontsize=7)
    return save_figure(figure, path)
