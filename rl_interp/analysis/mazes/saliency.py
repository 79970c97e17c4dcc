"""Saliency maps judged by what a maze says must matter: the way to the cheese, and the cheese."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.mazes.choices import draw_mazes, maze_env
from rl_interp.core.envs.maze.config import CELL, MARGIN, WORLD, MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import way
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import Estimate, auroc, bootstrap, mean
from rl_interp.core.tables import markdown
from rl_interp.saliency import METHODS, Method, Perturbation, parse_target, randomised

FINE = Perturbation(sigma=1.5, stride=2)
"""A mask a cell: the usual masks, made for Atari's screens, are wider than the walls between ways."""
LEFT_OUT = ("rise", "lrp")
"""The one takes a thousand passes a map, the other needs an extra; `rl-interp saliency evaluate` has them."""
SHORTEST = 2
"""Steps from the mouse to the cheese below which there is nothing between them."""

Judged = dict[str, dict[str, dict[str, Estimate]]]
"""Scores, as `judge` gives them, by method and by whose map it is: the agent's, or that of its weights shuffled."""


def judge_methods(
    loaded: Loaded,
    mazes: int = 60,
    side: int = 15,
    target: str = "advantage",
    seed: int = 30_000,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Judge every saliency method in mazes, beside the same method on the agent with its weights shuffled. Writes a
    table and the result to the run's analyses/, and returns the result with their paths.

    Args:
        mazes: how many; those whose cheese is beside the mouse are left out.
        side: cells along their side.
        target: what the maps explain, as `parse_target` reads it.
        seed: of the mazes.

    Raises:
        UserError: not a maze agent, or an unknown target.
    """
    explained = parse_target(target, maze_env(loaded).action_names)
    drawn = draw_mazes(MazeConfig(min_side=side, max_side=side), mazes, seed)
    steps = drawn.distances(drawn.mouse)[np.arange(mazes), drawn.cheese[:, 0], drawn.cheese[:, 1]]
    drawn = drawn[steps >= SHORTEST]
    observations = torch.from_numpy(drawn.observations()).to(loaded.agent.device)
    agents = {"trained": loaded.agent, "shuffled weights": randomised(loaded.agent, seed)}
    methods: dict[str, Method] = {name: method for name, method in METHODS.items() if name not in LEFT_OUT}
    methods |= {"perturbation, a mask a cell": FINE}
    found: Judged = {}
    with progress.bar("Mapping", len(methods) * len(agents) * len(drawn), "maps") as update:
        done = 0
        for name, method in methods.items():
            found[name] = {}
            for which, agent in agents.items():
                maps = []
                for obs in observations:
                    maps.append(method(agent, obs[None], explained)[0])
                    done += 1
                    update(done)
                found[name][which] = judge(drawn, np.stack(maps))
    folder = loaded.run.outputs / "analyses" / f"saliency-{target.replace(':', '-')}"
    write_text(folder / "table.md", judged_table(found))
    result = loaded.source | {
        "mazes": len(drawn), "side": side, "target": target,
        "methods": {
            name: {which: {of: vars(each) for of, each in scores.items()} for which, scores in both.items()}
            for name, both in found.items()
        },
    }  # fmt: skip
    write_json(folder / "result.json", result)
    return result | {"table": str(folder / "table.md"), "result": str(folder / "result.json")}


def judge(mazes: Mazes, maps: NDArray[np.floating]) -> dict[str, Estimate]:
    """How well |map|, summed over each cell's pixels, finds what matters in its maze; 0.5 is chance.

    - `way`: AUROC of the cells on the way from the mouse to the cheese among the free cells that can be reached. Both
      ends are left out, since they are the only cells with colours of their own.
    - `cheese`: the share of the other free cells that weigh less than the cheese's.
    - `mouse`: the same for the mouse's.

    Args:
        maps: `[N, 64, 64]`, of the mazes as they stand.

    Raises:
        UserError: not one map for each maze, or a maze without a way of at least 2 steps to a cheese.
    """
    if maps.shape[:1] != (len(mazes),):
        raise UserError(f"{len(maps)} maps given for {len(mazes)} mazes; give one of each.")
    ways, free = way(mazes, mazes.cheese), mazes.distances(mazes.mouse) >= 0
    if (ways.sum((1, 2)) <= SHORTEST).any():
        raise UserError(
            f"mazes given whose cheese is nearer than {SHORTEST} steps, or missing; the way must have cells."
        )
    weights = _by_cell(np.abs(maps))
    found: dict[str, list[float]] = {"way": [], "cheese": [], "mouse": []}
    for i in range(len(mazes)):
        ends = {"cheese": _only(mazes.cheese[i]), "mouse": _only(mazes.mouse[i])}
        between = free[i] & ~ends["cheese"] & ~ends["mouse"]
        found["way"].append(_auroc(ways[i], weights[i], between))
        for name, cell in ends.items():
            found[name].append(_auroc(cell, weights[i], between | cell))
    return {name: _mean(values) for name, values in found.items()}


def _by_cell(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    """`[N, 25, 25]`: sums over the pixels of each cell."""
    end = MARGIN + CELL * WORLD
    return pixels[:, MARGIN:end, MARGIN:end].reshape(-1, WORLD, CELL, WORLD, CELL).sum((2, 4))


def _only(cell: NDArray[np.int64]) -> NDArray[np.bool_]:
    there = np.zeros((WORLD, WORLD), bool)
    there[tuple(cell)] = True
    return there


def _auroc(truth: NDArray[np.bool_], weight: NDArray[np.floating], among: NDArray[np.bool_]) -> float:
    return float(auroc(truth[among], weight[among], np.ones((1, int(among.sum()))))[0])


def _mean(values: Sequence[float]) -> Estimate:
    known = [value for value in values if np.isfinite(value)]  # where every free cell is on the way there is no AUROC
    return bootstrap([known], mean)


def judged_table(found: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> str:
    """A row a method and network, in Markdown."""
    rows = [
        [name, which, *(each.shown(".2f") for each in scores.values())]
        for name, both in found.items()
        for which, scores in both.items()
    ]
    return markdown(["method", "weights", "way to the cheese", "cheese", "mouse"], rows)
