"""What of a Sokoban agent's plan can be read, where, at which tick and how far ahead, beside controls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.probes.cells import NO_CLASS, CellProbe, confusions, fit, macro_f1
from rl_interp.analysis.sokoban.play import boards_of, sokoban_env
from rl_interp.analysis.sokoban.reading import (
    CONCEPTS,
    Point,
    States,
    best_point,
    folder_of,
    layers_of,
    read_states,
    save_probes,
    split,
)
from rl_interp.core.envs.sokoban.plans import CLASSES, NEVER
from rl_interp.core.files import write_json, write_text
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import Estimate, plain, shown
from rl_interp.core.tables import markdown
from rl_interp.saliency import randomised

KERNELS = (1, 3)
CONTROLS = ("observation", "shuffled_weights", "shuffled_labels")
BINS = ((0, 1), (2, 4), (5, 9), (10, 19), (20, 39), (40, 10_000))
"""Steps ahead, from and to."""


def probe_plans(
    loaded: Loaded,
    episodes: int = 1000,
    layers: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Score probes of both concepts at every layer and tick. Writes a table, a picture, the result and the probes to
    the run's analyses/, and returns the result with their paths.

    Args:
        episodes: how many are played; of a set with fewer levels some are turned and mirrored.
        layers: hook points to read from; by default cell and hidden state of every layer.
        seed: of the levels, if they are generated, and of the split into levels to fit on and to score on.

    Raises:
        UserError: not an agent of Sokoban, too few levels, or a layer without a place for each cell.
        HookError: no such hook point.
    """
    env, agent = sokoban_env(loaded), loaded.agent
    layers = list(layers) or layers_of(agent)
    boards = boards_of(env, episodes, seed)
    held_out = split(boards.level, seed)
    states, games = read_states(agent, env, boards.boards, layers, seed, progress=progress)
    other, _ = read_states(
        randomised(agent, seed), env, boards.boards, layers, seed,
        forced=[game.actions for game in games], progress=progress,
    )  # fmt: skip
    study = _Study(states, boards.level, held_out, seed)
    control = _Study(other, boards.level, held_out, seed)
    concepts, probes = _scored(study, control, progress)
    point = best_point(agent)
    point = point if point in states.maps else list(states.maps)[-1]
    result = loaded.source | {
        "episodes": episodes,
        "states": len(states.steps),
        "seed": seed,
        "levels": env.levels,
        "success_rate": float(np.mean([game.solved for game in games])),
        "concepts": concepts,
        "ahead": {
            "layer": point.layer,
            "tick": point.tick,
            **{name: study.ahead(name, point, probes[name, point, 1]) for name in CONCEPTS},
        },
    }
    folder = folder_of(loaded)
    write_json(folder / "probe.json", result)
    write_text(folder / "probe.md", probe_table(result))
    save_probes(loaded, probes, boards.boards[~held_out])
    plot = ahead_picture(result, folder / "probe.png")
    return result | {"table": str(folder / "probe.md"), "plot": str(plot), "result": str(folder / "probe.json")}


class _Study:
    """States whose plans are read: probes are fitted on some levels, and scored on the others."""

    def __init__(self, states: States, level: NDArray[np.int64], held_out: NDArray[np.bool_], seed: int):
        self.seed = seed
        scored = held_out[states.games]
        self.fitted, self.scored = states.of(~scored), states.of(scored)
        self.group = np.unique(level[self.scored.games], return_inverse=True)[1]

    def fit(self, concept: str, point: Point | None, kernel: int, shuffled: bool = False) -> CellProbe:
        """A probe at a point, or of the observation's planes; with `shuffled`, of classes in random order."""
        wanted = self.fitted.come[concept]
        if shuffled:
            wanted, known = wanted.copy(), wanted != NO_CLASS
            wanted[known] = np.random.default_rng(self.seed).permutation(wanted[known])
        return fit(_maps(self.fitted, point), wanted, len(CLASSES), kernel, seed=self.seed)

    def score(self, concept: str, point: Point | None, probe: CellProbe) -> Estimate:
        guess = probe.classes(_maps(self.scored, point))
        return macro_f1(self._confusions(self.scored.come[concept], guess), self.seed)

    def ahead(self, concept: str, point: Point, probe: CellProbe) -> list[dict[str, Any]]:
        """How well a plan is read by how far ahead it is. Of the cells where nothing comes, which have no such
        distance, each bin has its share."""
        guess, truth = probe.classes(_maps(self.scored, point)), self.scored.come[concept]
        ahead = self.scored.ahead[concept]
        nothing = self._confusions(np.where(truth == NEVER, truth, NO_CLASS), guess)
        found = []
        for start, end in BINS:
            within = (ahead >= start) & (ahead <= end)
            if not within.any():
                continue
            events = self._confusions(np.where(within, truth, NO_CLASS), guess)
            score = macro_f1(events + nothing * (within.sum() / (ahead >= 0).sum()), self.seed)
            found.append({
                "from": start, "to": min(end, int(ahead.max())), "f1": score.value, "interval": plain(score),
                "recall": float(np.trace(events.sum(0)) / events.sum()), "cells": int(within.sum()),
            })  # fmt: skip
        return found

    def _confusions(self, truth: NDArray[np.integer], guess: NDArray[np.integer]) -> NDArray[np.int64]:
        return confusions(truth, guess, self.group, len(CLASSES))


def _maps(states: States, point: Point | None) -> Tensor:
    return states.planes if point is None else states.maps[point]


def _scored(
    study: _Study, control: _Study, progress: Progress
) -> tuple[dict[str, list[dict[str, Any]]], dict[tuple[str, Point, int], CellProbe]]:
    """Scores by concept, and the probes. `control` has what an agent of shuffled weights holds in the same states. The
    observation, and shuffled labels at the last point, are probed once for all points."""
    probes: dict[tuple[str, Point, int], CellProbe] = {}
    found: dict[str, list[dict[str, Any]]] = {concept: [] for concept in CONCEPTS}
    cases = [(concept, kernel) for concept in CONCEPTS for kernel in KERNELS]
    with progress.bar("Probing", len(cases) * len(study.fitted.maps), "probes") as update:
        for concept, kernel in cases:
            observed = study.score(concept, None, study.fit(concept, None, kernel))
            last = list(study.fitted.maps)[-1]
            shuffled = study.score(concept, last, study.fit(concept, last, kernel, shuffled=True))
            for point in study.fitted.maps:
                probe = probes[concept, point, kernel] = study.fit(concept, point, kernel)
                score = study.score(concept, point, probe)
                random = control.score(concept, point, control.fit(concept, point, kernel))
                controls = dict(zip(CONTROLS, (observed, random, shuffled), strict=True))
                found[concept].append({
                    "layer": point.layer, "tick": point.tick, "kernel": kernel,
                    "f1": score.value, "interval": plain(score),
                    "controls": {name: control.value for name, control in controls.items()},
                    "controls_intervals": {name: plain(control) for name, control in controls.items()},
                })  # fmt: skip
                update(len(probes))
    return found, probes


def probe_table(result: Mapping[str, Any]) -> str:
    """Scores by layer and tick, and by steps ahead, in Markdown."""
    rows = [
        [concept, each["layer"], each["tick"], f"{each['kernel']} x {each['kernel']}",
         f"{each['f1']:.3f} {shown(each['interval'], '.3f')}",
         *(f"{each['controls'][name]:.3f} {shown(each['controls_intervals'][name], '.3f')}" for name in CONTROLS)]
        for concept, scores in result["concepts"].items() for each in scores
    ]  # fmt: skip
    header = ["concept", "layer", "tick", "probe", "macro-F1", *(name.replace("_", " ") for name in CONTROLS)]
    ahead = [
        [concept, f"{each['from']} to {each['to']}", f"{each['f1']:.3f} {shown(each['interval'], '.3f')}",
         f"{each['recall']:.3f}", each["cells"]]
        for concept in CONCEPTS for each in result["ahead"][concept]
    ]  # fmt: skip
    return f"{markdown(header, rows)}\n{markdown(['concept', 'steps ahead', 'macro-F1', 'recall', 'cells'], ahead)}"


def ahead_picture(result: Mapping[str, Any], path: Path) -> Path:
    """F1 by layer and tick, and by steps ahead; a row a concept."""
    figure, axes = new_figure(len(CONCEPTS), 2, 10, 7)
    for (left, right), concept in zip(axes, CONCEPTS, strict=True):
        scores = [each for each in result["concepts"][concept] if each["kernel"] == 1]
        for layer in dict.fromkeys(each["layer"] for each in scores):
            of_layer = [each for each in scores if each["layer"] == layer]
            left.plot([each["tick"] + 1 for each in of_layer], [each["f1"] for each in of_layer], "o-", label=layer)
        for name, style in zip(CONTROLS, (":", "--", "-."), strict=True):
            highest = max(each["controls"][name] for each in scores)
            left.axhline(highest, color="grey", linestyle=style, label=name.replace("_", " "))
        left.set(title=f"{concept}: by tick, 1 x 1", xlabel="tick", ylabel="macro-F1", ylim=(0, 1))
        left.set_xticks(sorted({each["tick"] + 1 for each in scores}))
        left.legend(fontsize=7)
        ahead = result["ahead"][concept]
        names = [f"{each['from']}-{each['to']}" for each in ahead]
        right.plot(names, [each["f1"] for each in ahead], "o-", label="macro-F1")
        right.plot(names, [each["recall"] for each in ahead], "s--", label="recall")
        title = f"{concept}: {result['ahead']['layer']}, tick {result['ahead']['tick'] + 1}"
        right.set(title=title, xlabel="steps ahead", ylim=(0, 1))
        right.legend(fontsize=7)
    return save_figure(figure, path)
