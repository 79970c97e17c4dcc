"""The plan of a Sokoban agent, read off its states cell by cell by linear probes.

The concepts are those of Bush et al. 2025, "Interpreting Emergent Planning in Model-Free Reinforcement Learning"
(arXiv 2504.01871), §3: from which side the agent next steps onto a cell, and which way it next pushes a box off it, or
never. What is to come is what the agent then did. Walls are left out: nothing is to be foretold there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.probes.cells import NO_CLASS, CellProbe
from rl_interp.analysis.sokoban.play import Game, Play, rows_of
from rl_interp.core.agent import Agent, PolicyOutput, State, joined
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.kinds import KINDS, WALL
from rl_interp.core.envs.sokoban.levels import canonical
from rl_interp.core.envs.sokoban.plans import future
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.files import atomic_path
from rl_interp.core.hooks import hook_point, run_with_cache
from rl_interp.core.interventions import Intervention, as_hooks
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import read_json, reading
from rl_interp.core.weights import Weights

CONCEPTS = ("agent", "box")
"""C_A and C_B: the agent's next step onto a cell, and the next push of a box off it."""
STATES = 12_000
"""States that are kept of all episodes, about."""
_EPISODE = 60
"""Steps of an episode, about."""
_TOGETHER = 256
"""States that are read in one pass, about."""


class Point(NamedTuple):
    """Where a plan is read."""

    layer: str
    """A hook point with a place for each cell, such as `layer2.c`."""
    tick: int


@dataclass(frozen=True)
class States:
    """Some states of games, S of them, with what the agent held in them and what then came."""

    boards: NDArray[np.uint8]
    """`[S, H, W]`"""
    games: NDArray[np.int64]
    """`[S]`: the number of each one's game."""
    steps: NDArray[np.int64]
    """`[S]`: steps of the game before it."""
    maps: Mapping[Point, Tensor]
    """`[S, C, H, W]` in half precision, at each point."""
    come: Mapping[str, NDArray[np.int8]]
    """`[S, H, W]` of each of `CONCEPTS`: a class of `plans.CLASSES`, or `NO_CLASS` in walls."""
    ahead: Mapping[str, NDArray[np.int32]]
    """`[S, H, W]`: in how many steps it comes; -1 for never."""

    @property
    def planes(self) -> Tensor:
        """`[S, 7, H, W]`: the boards as they are, a plane a kind."""
        return torch.from_numpy(np.moveaxis(np.eye(len(KINDS), dtype=np.float32)[self.boards], -1, 1))

    def of(self, chosen: NDArray[np.bool_]) -> "States":
        """Some of them."""
        index = torch.from_numpy(chosen)
        return States(
            self.boards[chosen],
            self.games[chosen],
            self.steps[chosen],
            {point: maps[index] for point, maps in self.maps.items()},
            {name: come[chosen] for name, come in self.come.items()},
            {name: ahead[chosen] for name, ahead in self.ahead.items()},
        )


def layers_of(agent: Agent) -> list[str]:
    """The points that are probed: cell and hidden state of every layer of a DRC; else all that are places.

    Raises:
        UserError: the agent has no layer with a place for each cell.
    """
    places = [name for name, point in agent.hook_points.items() if point.axes.endswith("C H W")]
    found = [name for name in places if name.endswith((".c", ".h"))] or places
    if not found:
        raise UserError(
            f"none of the agent's hook points has a place for each cell, but {', '.join(agent.hook_points)}; give an "
            "agent with convolutions over the board, such as a DRC."
        )
    return found


def read_states(
    agent: Agent,
    env: SokobanConfig,
    boards: NDArray[np.uint8],
    layers: Sequence[str],
    seed: int = 0,
    forced: Sequence[NDArray[np.int64]] | None = None,
    progress: Progress = SILENT,
) -> tuple[States, list[Game]]:
    """Play boards `[N, H, W]` and keep about `STATES` states, evenly over all games.

    Args:
        forced: actions of each game, for an agent to follow that does not choose itself. Kept are the same states.

    Raises:
        HookError: no such hook point.
    """
    for layer in layers:
        hook_point(agent, layer)
    every = max(1, len(boards) * _EPISODE // STATES)
    offset = np.random.default_rng(seed).integers(every, size=len(boards))
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]] = []
    maps: dict[Point, list[Tensor]] = {}
    waiting: list[tuple[Tensor, State]] = []

    def read_waiting() -> None:
        obs, states = zip(*waiting, strict=True)
        for point, values in read(agent, torch.cat(obs), joined(states), layers).items():
            maps.setdefault(point, []).append(values.half())
        waiting.clear()

    play = Play(agent, boards, env, forced=forced, progress=progress)
    for turn in play:
        kept = (turn.step + offset[turn.games]) % every == 0
        if not kept.any():
            continue
        parts.append((turn.boards[kept], turn.games[kept], np.full(kept.sum(), turn.step)))
        waiting.append((turn.obs[torch.from_numpy(kept)], rows_of(turn.state, kept)))
        if sum(len(obs) for obs, _ in waiting) >= _TOGETHER:
            read_waiting()
    if waiting:
        read_waiting()
    seen, games, steps = (np.concatenate(column) for column in zip(*parts, strict=True))
    come, ahead = _to_come(play.games, seen, games, steps)
    read_maps = {}
    for point in list(maps):
        read_maps[point] = torch.cat(maps.pop(point))
    return States(seen, games, steps, read_maps, come, ahead), play.games


def read(agent: Agent, obs: Tensor, state: State, layers: Sequence[str]) -> dict[Point, Tensor]:
    """`[B, C, H, W]` at every tick of some layers, in one step of the agent."""
    return look(agent, obs, state, layers)[1]


@torch.no_grad()
def look(
    agent: Agent, obs: Tensor, state: State, layers: Sequence[str], changes: Sequence[Intervention] = ()
) -> tuple[PolicyOutput, dict[Point, Tensor]]:
    """One step of the agent under changes, and what it then held: `[B, C, H, W]` at every tick of some layers."""
    out, cache = run_with_cache(agent, obs, state, names=list(layers), hooks=as_hooks(changes))
    found = {}
    for layer in layers:
        value, point = cache[layer], hook_point(agent, layer)
        value = value[0] if point.kind == "recurrent" else value
        ticks = value if point.has_ticks else value[None]
        found |= {Point(layer, tick): each for tick, each in enumerate(ticks)}
    if strange := [f"{p.layer} {tuple(v.shape[-2:])}" for p, v in found.items() if v.shape[-2:] != obs.shape[-2:]]:
        raise UserError(f"{strange[0]} has no place for each of the {tuple(obs.shape[-2:])} cells; name other layers.")
    return out, found


def _to_come(
    games: Sequence[Game], boards: NDArray[np.uint8], numbers: NDArray[np.int64], steps: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.int8]], dict[str, NDArray[np.int32]]]:
    come = {name: np.empty(boards.shape, np.int8) for name in CONCEPTS}
    ahead = {name: np.empty(boards.shape, np.int32) for name in CONCEPTS}
    for game in np.unique(numbers):
        rows = np.flatnonzero(numbers == game)
        played = future(games[game].board, games[game].actions)
        for name in CONCEPTS:
            come[name][rows] = getattr(played, name)[steps[rows]]
            ahead[name][rows] = getattr(played, f"{name}_ahead")[steps[rows]]
    for name in CONCEPTS:
        come[name][boards == WALL] = NO_CLASS
    return come, ahead


def split(level: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """`[N]`: what is held out, three levels of ten and all that is of them.

    Raises:
        UserError: fewer than 4 levels.
    """
    order = np.random.default_rng(seed).permutation(np.unique(level))
    if len(order) < 4:
        raise UserError(f"{len(order)} levels given; at least 4 are needed, to fit on some and be scored on others.")
    return np.isin(level, order[: max(2, round(0.3 * len(order)))])


# -- probes on disk, for what goes on from them ----------------------------------------------------

Probes = Mapping[tuple[str, Point, int], CellProbe]
"""By concept, point and kernel."""
PointProbes = Mapping[tuple[str, Point], CellProbe]
"""Those of one kernel, by concept and point."""


def folder_of(loaded: Loaded) -> Path:
    """Where results about the agent's plans lie."""
    return loaded.run.outputs / "analyses" / "sokoban"


def save_probes(loaded: Loaded, probes: Probes, fitted: NDArray[np.uint8]) -> Path:
    """Write them for this checkpoint, in the run's analyses/, with the hashes of the boards `[N, H, W]` that they were
    fitted on."""
    weights = {_FITTED: torch.from_numpy(_hashes(fitted).view(np.int64))}
    for (concept, point, kernel), probe in probes.items():
        name = f"{concept}/{point.layer}/{point.tick}/{kernel}"
        weights |= {f"{name}/weight": probe.weight, f"{name}/bias": probe.bias}
    path = _probes_path(loaded)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(weights, temporary)
    return path


def load_probes(loaded: Loaded) -> Probes:
    """Those that `save_probes` wrote for this checkpoint.

    Raises:
        UserError: there are none of this checkpoint.
        RunError: a file that is none, or was changed.
    """
    weights = _saved(loaded)
    probes = {}
    for name in sorted(weights.keys() - {_FITTED}):
        concept, layer, tick, kernel, what = name.split("/")
        if what == "weight":
            probe = CellProbe(weights[name], weights[name.removesuffix("weight") + "bias"])
            probes[concept, Point(layer, int(tick)), int(kernel)] = probe
    return probes


def fitted_on(loaded: Loaded, boards: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`[N]`: which of `boards [N, H, W]` the probes of this checkpoint were fitted on, as they are, turned or mirrored.

    Raises:
        UserError: there are no probes of this checkpoint, or they do not say.
        RunError: a file that is none, or was changed.
    """
    weights = _saved(loaded)
    if _FITTED not in weights:
        raise UserError(
            f"the probes of {loaded.run.path} do not say which levels they were fitted on, so that none is known to be "
            f"new to them; run `rl-interp sokoban probe {loaded.run.path} --checkpoint {loaded.step}` again."
        )
    return np.isin(_hashes(boards), weights[_FITTED].numpy().view(np.uint64))


def probes_at(loaded: Loaded, layer: str, kernel: int) -> PointProbes:
    """Those of one layer's ticks.

    Raises:
        HookError: no such hook point.
        UserError: there are none of this checkpoint, layer or kernel.
    """
    hook_point(loaded.agent, layer)
    known = load_probes(loaded)
    probes = {
        (concept, at): probe for (concept, at, side), probe in known.items() if (at.layer, side) == (layer, kernel)
    }
    if not probes:
        layers = sorted({key[1].layer for key in known})
        if layer in layers:
            raise UserError(f"kernel={kernel} given; probes see 1 x 1 or 3 x 3 cells.")
        raise UserError(
            f"{unknown('probed layer', layer, layers)} `rl-interp sokoban probe --hooks {layer}` probes it."
        )
    return probes


def scores_at(loaded: Loaded, layer: str, kernel: int) -> dict[str, list[dict[str, Any]]]:
    """How well those probes read, as `probe_plans` scored them: by concept, for each tick `f1`, its `interval` and
    `controls`.

    Raises:
        UserError: the last scores that were written are of another checkpoint.
        RunError: a file that is none, or was changed.
    """
    path, remedy = folder_of(loaded) / "probe.json", "run `rl-interp sokoban probe` again"
    result = read_json(path, remedy)
    with reading(path, remedy, "has no scores"):
        if result["weights_sha256"] != loaded.weights_sha256:
            raise UserError(
                f"{path} has the scores of step {result['step']}; run `rl-interp sokoban probe {loaded.run.path} "
                f"--checkpoint {loaded.step}` again, so that it is known how well the plan of this one is read."
            )
        return {
            concept: [
                {"tick": each["tick"], "f1": each["f1"], "interval": each["interval"], "controls": each["controls"]}
                for each in result["concepts"][concept]
                if (each["layer"], each["kernel"]) == (layer, kernel)
            ]
            for concept in CONCEPTS
        }


def best_point(agent: Agent) -> Point:
    """Where a plan is read by default: the last layer's cell state after the last tick."""
    layer = [name for name in layers_of(agent) if name.endswith(".c")] or layers_of(agent)
    return Point(layer[-1], ticks_of(agent) - 1)


def ticks_of(agent: Agent) -> int:
    """How often the agent's layers are computed in a step."""
    return int(getattr(agent, "ticks", 1))


_FITTED = "fitted"
"""The tensor of hashes among those of the probes, as int64, which is what the file can hold."""


def _hashes(boards: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.array([canonical(board) for board in boards], np.uint64)


def _saved(loaded: Loaded) -> dict[str, Tensor]:
    path = _probes_path(loaded)
    if not path.is_file():
        raise UserError(
            f"the plan of {loaded.run.path} at step {loaded.step} can't be read yet; run `rl-interp sokoban probe "
            f"{loaded.run.path} --checkpoint {loaded.step}` first."
        )
    return Weights(path, "run `rl-interp sokoban probe` again").load()


def _probes_path(loaded: Loaded) -> Path:
    return folder_of(loaded) / f"probes-{loaded.weights_sha256[:16]}.safetensors"
