"""Another plan written into a Sokoban agent: in levels with a short and a long way it is made to take the long one.

As Bush et al. 2025 (arXiv 2504.01871, §6) do it: to the cell states of a layer, at every tick, the probe's vector of
"never" is added at cells of the short way, and until the long way is taken the vectors of its directions at the first
cells of that. An episode is a success if the last cell of the short way is never entered, by the player or, in the
levels of boxes, by a box, and the level is solved in fewer than 115 steps. What differs: a solver finds the ways, all
layers are edited at once, and a dose of 1 is a vector as long as a cell's state typically is, whatever the scale of the
probe's weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.sokoban.channels import load_offsets
from rl_interp.analysis.sokoban.play import Game, Play, Turn, over_levels, range_of, sokoban_env
from rl_interp.analysis.sokoban.reading import (
    Point,
    Probes,
    folder_of,
    layers_of,
    load_probes,
    read_states,
    ticks_of,
)
from rl_interp.core.agent import Agent
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.files import load
from rl_interp.core.envs.sokoban.kinds import A_BOX, BOX_ON_TARGET, WALL
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.envs.sokoban.plans import NEVER, replayed
from rl_interp.core.envs.sokoban.routes import Routes, Step, routes
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.interventions import Add, Intervention
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import plain, shown
from rl_interp.core.tables import markdown

DRAWS = 10
"""Sets of random vectors, and of other channels."""
CELLS = 3
"""Cells of each way that are edited, at most."""
STEPS = 115
DOSES = (0.25, 0.5, 1.0, 2.0, 4.0)
SETS: dict[str, Literal["agent", "box"]] = {"agent_shortcut": "agent", "box_shortcut": "box"}
_SYMMETRIES = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]

Vectors = Mapping[str, Tensor]
"""`[5, C]` by hook point: what is added at a cell for each class."""
Edits = Mapping[str, Sequence[Vectors]]
"""By kind of edit: one set of vectors, or several that are drawn."""


@dataclass(frozen=True)
class Fork:
    """A level with two ways."""

    board: NDArray[np.uint8]
    routes: Routes
    level: int
    """Which of the set's levels it is, or is turned or mirrored from."""


def steer_plans(
    loaded: Loaded,
    symmetries: int = 8,
    doses: Sequence[float] = DOSES,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Steer an agent onto the long way in both sets of levels, by the probes' vectors and, where `sokoban channels` has
    found any, by path channels. Writes a table, a plot and the result to the run's analyses/, and returns the result
    with their paths. The dose is chosen on half of the levels, and the success is that on the others.

    Args:
        symmetries: in how many of its 8 symmetries each level is played.
        doses: multiples of a cell's typical state that are added.
        draws: sets of random vectors, and of other channels, each of which is played like the probe's.
        seed: of these.

    Raises:
        UserError: not an agent of Sokoban, boards too small for the levels, or no probes of this checkpoint.
    """
    if not 1 <= symmetries <= len(_SYMMETRIES) or not doses:
        raise UserError(
            f"symmetries={symmetries} and doses={list(doses)} given; a level has 8, and one dose is needed."
        )
    env, probes = sokoban_env(loaded), load_probes(loaded)
    folder, generator = folder_of(loaded), torch.Generator().manual_seed(seed)
    result: dict[str, Any] = loaded.source | {"symmetries": symmetries, "draws": draws, "seed": seed}
    for name, concept in SETS.items():
        forks = forks_of(env, name, symmetries)
        lengths = _typical(loaded.agent, env, forks)
        vectors = _scaled(_of_probes(loaded, probes, concept), lengths)
        edits = {"probe": [vectors], "random": [random_vectors(vectors, generator) for _ in range(draws)]}
        channels = {k.removeprefix(f"{concept}/"): v for k, v in load_offsets(loaded).items() if k.startswith(concept)}
        if channels:
            others = [_other_channels(channels, generator) for _ in range(draws)]
            edits |= {"path_channels": [channels], "other_channels": others}
        result[name] = steered(loaded.agent, env, forks, concept, edits, doses, progress)
    write_json(folder / "steer.json", result)
    write_text(folder / "steer.md", steering_table(result))
    plot = dose_picture(result, folder / "steer.png")
    return result | {"table": str(folder / "steer.md"), "plot": str(plot), "result": str(folder / "steer.json")}


def forks_of(env: SokobanConfig, name: str, symmetries: int) -> list[Fork]:
    """The levels of a set that have two ways, turned and mirrored, set amid the walls of the environment's boards."""
    levels = load(name, env.rows, env.columns)
    ways = [routes(board, SETS[name]) for board in levels.boards]
    found = []
    for turns, mirrored in _SYMMETRIES[:symmetries]:
        boards = levels.symmetric(turns, mirrored).boards
        found += [
            Fork(board, way.symmetric(turns, mirrored, env.rows, env.columns), i)
            for i, (board, way) in enumerate(zip(boards, ways, strict=True))
            if way is not None
        ]
    return found


def _of_probes(loaded: Loaded, probes: Probes, concept: str) -> dict[str, Tensor]:
    """The 1 x 1 probes' weights less their mean over classes, at the last tick of every layer's cell state."""
    layers = [name for name in layers_of(loaded.agent) if name.endswith(".c")] or layers_of(loaded.agent)
    last = ticks_of(loaded.agent) - 1
    found = {}
    for layer in layers:
        if (probe := probes.get((concept, Point(layer, last), 1))) is not None:
            weight = probe.weight[:, :, 0, 0]
            found[layer] = weight - weight.mean(0)
    if not found:
        raise UserError(
            f"{loaded.run.path} has no probes of {', '.join(layers)}; run `rl-interp sokoban probe` for them."
        )
    return found


def _typical(agent: Agent, env: SokobanConfig, forks: Sequence[Fork]) -> dict[str, float]:
    """The length of a cell's state at each layer: root mean square over the floor of the levels, as they begin."""
    boards = np.stack([fork.board for fork in forks[:25]])
    short = [np.zeros(1, np.int64)] * len(boards)
    states, _ = read_states(agent, env, boards, layers_of(agent), forced=short)
    floor = torch.from_numpy(states.boards != WALL)
    last = ticks_of(agent) - 1
    return {
        point.layer: float(maps.float().square().sum(1)[floor].mean().sqrt())
        for point, maps in states.maps.items()
        if point.tick == last
    }


def _scaled(vectors: Vectors, lengths: Mapping[str, float]) -> dict[str, Tensor]:
    return {
        layer: vector / vector.norm(dim=1, keepdim=True).clamp_min(1e-9) * lengths[layer]
        for layer, vector in vectors.items()
    }


def random_vectors(vectors: Vectors, generator: torch.Generator) -> dict[str, Tensor]:
    """Random directions of the same lengths."""
    found = {}
    for layer, vector in vectors.items():
        noise = torch.randn(vector.shape, generator=generator)
        found[layer] = noise * (vector.norm(dim=1) / noise.norm(dim=1))[:, None]
    return found


def _other_channels(channels: Vectors, generator: torch.Generator) -> dict[str, Tensor]:
    """The same changes of as many channels, which are not those."""
    found = {}
    for layer, offsets in channels.items():
        used = torch.nonzero((offsets != 0).any(0))[:, 0]
        free = torch.nonzero((offsets == 0).all(0))[:, 0]
        moved = torch.zeros_like(offsets)
        to = free[torch.randperm(len(free), generator=generator)[: len(used)]]
        moved[:, to] = offsets[:, used[: len(to)]]
        found[layer] = moved
    return found


def steered(
    agent: Agent, env: SokobanConfig, forks: Sequence[Fork], concept: Literal["agent", "box"],
    edits: Edits, doses: Sequence[float], progress: Progress = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """Successes by kind of edit, of which there are `probe` and `random`, and by dose, with intervals over levels. The
    main ones are at the dose that is best on levels of even number, on those of odd number. There all draws of an edit
    are played; at other doses one."""

    def played(vectors: Vectors | None, dose: float, backwards: bool = False) -> NDArray[np.bool_]:
        edit = None if vectors is None else _Edit(forks, concept, vectors, dose, backwards)
        boards = np.stack([fork.board for fork in forks])
        play = Play(agent, boards, env, interventions=edit or (lambda turn: ()), progress=progress)
        return np.array([outcome(game, fork, concept) for game, fork in zip(play.finish(), forks, strict=True)])

    level = np.array([fork.level for fork in forks])
    choosing = level % 2 == 0
    (probe,) = edits["probe"]
    curves = {"probe": {dose: played(probe, dose)[None] for dose in doses}}
    alpha = max(doses, key=lambda dose: float(curves["probe"][dose][:, choosing].all(-1).mean()))
    for name, drawn in edits.items():
        if name != "probe":
            curves[name] = {
                dose: np.stack([played(vectors, dose) for vectors in (drawn if dose == alpha else drawn[:1])])
                for dose in doses
            }
    curves["opposite"] = {dose: played(probe, dose, backwards=True)[None] for dose in doses}
    untouched = played(None, 0)
    successes = {name: np.all(curve[alpha][:, ~choosing], -1) for name, curve in curves.items()}
    main = {name: over_levels(cases, level[~choosing]) for name, cases in successes.items()}
    return {
        "levels": len(forks),
        "alpha": alpha,
        "success": main["probe"].value,
        "interval": plain(main["probe"]),
        "random": main["random"].value,
        "random_interval": plain(main["random"]),
        "random_range": range_of(successes["random"]),
        "opposite": main["opposite"].value,
        "untouched": float(untouched[~choosing].all(1).mean()),
        "solved": float(untouched[:, 1].mean()),
        "avoided": float(untouched[:, 0].mean()),
        "doses": {
            name: [_at_dose(dose, each, level) for dose, each in curve.items()] for name, curve in curves.items()
        },
    }  # fmt: skip


def _at_dose(dose: float, outcomes: NDArray[np.bool_], level: NDArray[np.int64]) -> dict[str, Any]:
    """Of outcomes `[D, N, 2]` of D draws."""
    cases: NDArray[np.bool_] = np.all(outcomes, -1)
    rate = over_levels(cases, level)
    avoided, solved = (float(share) for share in outcomes.mean((0, 1)))
    found = {"alpha": dose, "success": rate.value, "interval": plain(rate), "avoided": avoided, "solved": solved}
    return found | ({"range": range_of(cases)} if len(cases) > 1 else {})


class _Edit:
    """The interventions of each turn; `backwards`, the long way is avoided and the short one taken."""

    def __init__(self, forks: Sequence[Fork], concept: str, vectors: Vectors, dose: float, backwards: bool):
        self._concept, self._vectors, self._dose = concept, vectors, dose
        self._ways = [(edited(fork.routes)[::-1] if backwards else edited(fork.routes)) for fork in forks]
        self._starts = [fork.routes.start for fork in forks]
        self._taken = np.zeros(len(forks), bool)
        """Whether the way that is to be taken has been."""

    def __call__(self, turn: Turn) -> list[Intervention]:
        for row, game in enumerate(turn.games):
            self._taken[game] |= self._is_taken(turn.boards[row], game)
        return [Add(layer, direction=self._at(turn, vectors)) for layer, vectors in self._vectors.items()]

    def _is_taken(self, board: NDArray[np.uint8], game: int) -> bool:
        if self._concept == "box":
            return board[self._starts[game]] not in (A_BOX, BOX_ON_TARGET)
        return tuple(players(board[None])[0]) in [cell for cell, _ in self._ways[game][1]]

    def _at(self, turn: Turn, vectors: Tensor) -> Tensor:
        """`[A, C, H, W]`: what is added."""
        added = torch.zeros(len(turn.games), vectors.shape[1], *turn.boards.shape[1:])
        for row, game in enumerate(turn.games):
            avoided, wanted = self._ways[game]
            for (y, x), _ in avoided:
                added[row, :, y, x] += self._dose * vectors[NEVER]
            for (y, x), direction in [] if self._taken[game] else wanted:
                added[row, :, y, x] += self._dose * vectors[direction]
        return added.to(turn.obs.device)


def edited(ways: Routes) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The last cells of the short way, and the first of the long one."""
    return ways.short[-CELLS:], ways.long[:CELLS]


def outcome(game: Game, fork: Fork, concept: Literal["agent", "box"]) -> tuple[bool, bool]:
    """Whether the end of the short way was never entered, and whether the level was solved in time. A success is
    both."""
    checkpoint = fork.routes.short[-1][0]
    seen = replayed(game.board, game.actions, players(game.board[None])[0])
    if concept == "agent":
        entered = any(tuple(at) == checkpoint for at in players(seen))
    else:
        entered = bool(np.isin(seen[:, checkpoint[0], checkpoint[1]], (A_BOX, BOX_ON_TARGET)).any())
    return not entered, game.solved and len(game.actions) < STEPS


def steering_table(result: Mapping[str, Any]) -> str:
    """Successes by dose, in Markdown."""
    rows = [
        [name, kind.replace("_", " "), *(f"{each['success']:.0%} {shown(each['interval'], '.0%')}, not short "
                                         f"{each['avoided']:.0%}" for each in curve)]
        for name in SETS for kind, curve in result[name]["doses"].items()
    ]  # fmt: skip
    doses = [f"dose {each['alpha']:g}" for each in result["agent_shortcut"]["doses"]["probe"]]
    main = [
        [name, f"{each['alpha']:g}", f"{each['success']:.1%} {shown(each['interval'], '.1%')}",
         f"{each['random']:.1%} {shown(each['random_interval'], '.1%')}",
         "{:.1%} to {:.1%}".format(*each["random_range"]), f"{each['opposite']:.1%}",
         f"{each['untouched']:.1%}", f"{each['avoided']:.1%}", f"{each['solved']:.1%}"]
        for name, each in ((name, result[name]) for name in SETS)
    ]  # fmt: skip
    header = [
        "levels",
        "dose",
        "success",
        "random vectors",
        "range over draws",
        "opposite",
        "untouched",
        "not short",
        "solved untouched",
    ]
    return f"{markdown(header, main)}\n{markdown(['levels', 'edit', *doses], rows)}"


def dose_picture(result: Mapping[str, Any], path: Path) -> Path:
    """Success by dose; a panel a set of levels."""
    figure, axes = new_figure(1, len(SETS), 5 * len(SETS), 4, sharey=True)
    for axis, name in zip(axes[0], SETS, strict=True):
        for kind, curve in result[name]["doses"].items():
            doses = [each["alpha"] for each in curve]
            low, high = np.array([each["interval"] or (np.nan, np.nan) for each in curve]).T
            line = axis.plot(doses, [each["success"] for each in curve], "o-", label=kind.replace("_", " "))[0]
            axis.fill_between(doses, low, high, alpha=0.15, color=line.get_color())
        axis.axhline(result[name]["untouched"], color="grey", linestyle=":", label="untouched")
        axis.set(xscale="log", xlabel="dose", title=name.replace("_", " "), ylim=(0, 1))
        axis.set_xticks(doses := [each["alpha"] for each in result[name]["doses"]["probe"]], [f"{d:g}" for d in doses])
        axis.minorticks_off()
        axis.legend(fontsize=7)
    axes[0, 0].set_ylabel("success")
    return save_figure(figure, path)
