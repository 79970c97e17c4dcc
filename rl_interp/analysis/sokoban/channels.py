"""Path channels: channels of a layer's hidden state that say by their value at a cell which way will be gone there, so
that a plan is read without a probe (Taufeeque et al. 2025, arXiv 2506.10138).

They are found by correlation on some levels and tested on others, and ablated beside as many other channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.probes.cells import NO_CLASS
from rl_interp.analysis.sokoban.play import Boards, Play, boards_of, over_levels, range_of, sokoban_env
from rl_interp.analysis.sokoban.reading import (
    CONCEPTS,
    Point,
    States,
    folder_of,
    layers_of,
    read_states,
    split,
    ticks_of,
)
from rl_interp.core.envs.sokoban.kinds import ACTIONS
from rl_interp.core.envs.sokoban.plans import CLASSES
from rl_interp.core.errors import UserError
from rl_interp.core.files import atomic_path, write_json, write_text
from rl_interp.core.interventions import Intervention, Mean, Zero
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import plain, shown
from rl_interp.core.tables import markdown
from rl_interp.core.weights import Weights

Channel = tuple[str, int]
"""A layer and the number of one of its channels."""


@dataclass(frozen=True)
class Found:
    """The channel that says most of one direction."""

    concept: str
    direction: str
    layer: str
    channel: int
    fitted: float
    """Correlation, on the levels it was found on, of its value at a cell with whether that is the cell's direction."""
    held_out: float
    """On other levels."""
    by_sign: float
    """F1, on those, of saying so where it has the correlation's sign."""


def find_channels(
    loaded: Loaded,
    episodes: int = 200,
    played: int = 100,
    draws: int = 10,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Find the path channels of an agent, and play without them. Writes a table and the result to the run's analyses/,
    and returns the result with their paths.

    Args:
        episodes: levels to find channels on; three of ten are held out, to test them.
        played: other levels, to play with channels ablated.
        draws: how many sets of as many other channels are ablated beside.
        seed: of the levels, if they are generated, of the split, and of the other channels.

    Raises:
        UserError: not an agent of Sokoban, no layers with a place for each cell, no other channels to compare with, or
            a set without other levels to play.
    """
    env, agent = sokoban_env(loaded), loaded.agent
    layers = [name for name in layers_of(agent) if name.endswith(".h")] or layers_of(agent)
    boards = boards_of(env, episodes, seed)
    states, _ = read_states(agent, env, boards.boards, layers, seed, progress=progress)
    last = ticks_of(agent) - 1
    maps = {layer: states.maps[Point(layer, last)] for layer in layers}
    held_out = split(boards.level, seed)[states.games]
    found = [each for concept in CONCEPTS for each in _strongest(states, maps, concept, held_out)]
    paths = sorted({(each.layer, each.channel) for each in found})
    everything = [(layer, channel) for layer in layers for channel in range(maps[layer].shape[1])]
    others = [each for each in everything if each not in paths]
    if len(others) < len(paths):
        raise UserError(f"{len(paths)} of {len(everything)} channels found, which leaves too few others to compare.")
    rng = np.random.default_rng(seed)
    sets = [paths, *([others[i] for i in rng.choice(len(others), len(paths), False)] for _ in range(draws))]
    means = {layer: values.float().mean((0, 2, 3)) for layer, values in maps.items()}
    to_play = boards_of(env, played, seed, past=episodes)
    ablations = _ablated(loaded, to_play, sets, means, progress)
    folder = folder_of(loaded)
    result = loaded.source | {
        "episodes": episodes, "played": played, "seed": seed,
        "channels": [vars(each) for each in found],
        "path_channels": [f"{layer}:{channel}" for layer, channel in paths],
        "ablations": ablations,
    }  # fmt: skip
    write_json(folder / "channels.json", result)
    write_text(folder / "channels.md", channels_table(result))
    _save(loaded, _offsets(states, maps, found))
    return result | {"table": str(folder / "channels.md"), "result": str(folder / "channels.json")}


def _strongest(states: States, maps: Mapping[str, Tensor], concept: str, held_out: NDArray[np.bool_]) -> list[Found]:
    """For each direction the channel of all layers whose value correlates most with it."""
    come = states.come[concept]
    fitted, scored = ((come != NO_CLASS) & side[:, None, None] for side in (~held_out, held_out))
    layers = list(maps)
    tables = [_correlations(maps, come, cells) for cells in (fitted, scored)]
    best = []
    for direction, name in enumerate(ACTIONS):
        layer, channel = max(
            ((each, int(tables[0][each][direction].abs().argmax())) for each in layers),
            key=lambda each: float(tables[0][each[0]][direction, each[1]].abs()),
        )
        on_fitted, on_scored = (float(table[layer][direction, channel]) for table in tables)
        values = maps[layer][:, channel].numpy()[scored]
        said, true = values * np.sign(on_fitted) > 0, come[scored] == direction
        f1 = 2 * (said & true).sum() / max(1, said.sum() + true.sum())
        best.append(Found(concept, name, layer, channel, on_fitted, on_scored, float(f1)))
    return best


def _correlations(maps: Mapping[str, Tensor], come: NDArray[np.int8], cells: NDArray[np.bool_]) -> dict[str, Tensor]:
    """`[4, C]` by layer: of each channel with each direction, over some cells."""
    index = torch.from_numpy(cells)
    wanted = torch.nn.functional.one_hot(torch.from_numpy(come[cells].astype(np.int64)), len(CLASSES)).float()
    wanted = _standard(wanted[:, : len(ACTIONS)])
    found = {}
    for layer, values in maps.items():
        rows = _standard(values.movedim(1, -1)[index].float())
        found[layer] = wanted.T @ rows / len(rows)
    return found


def _standard(columns: Tensor) -> Tensor:
    return (columns - columns.mean(0)) / columns.std(0).clamp_min(1e-6)


def _ablated(
    loaded: Loaded, boards: Boards, sets: Sequence[list[Channel]], means: Mapping[str, Tensor], progress: Progress
) -> list[dict[str, Any]]:
    """Solve rates as it is, and with the sets of channels at zero and at their mean; the first is the path's. Of the
    others, which play the same levels, each level counts once, by the share of sets with which it is solved."""

    def solved(interventions: Sequence[Intervention]) -> NDArray[np.bool_]:
        env = sokoban_env(loaded)
        play = Play(loaded.agent, boards.boards, env, interventions=lambda turn: interventions, progress=progress)
        return np.array([game.solved for game in play.finish()])

    def rate(results: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
        found = over_levels(np.stack(results), boards.level)
        return {"success_rate": found.value, "success_rate_interval": plain(found)}

    rows = [{"ablated": "nothing", "by": None, **rate([solved(())])}]
    for by in ("zero", "mean"):
        results = [solved(_ablations(channels, by, means)) for channels in sets]
        rows.append({"ablated": "path channels", "by": by, **rate(results[:1])})
        rows.append({"ablated": "other channels", "by": by, **rate(results[1:]), "range": range_of(results[1:])})
    return rows


def _ablations(channels: Sequence[Channel], by: str, means: Mapping[str, Tensor]) -> list[Intervention]:
    found: list[Intervention] = []
    for layer in dict.fromkeys(layer for layer, _ in channels):
        units = [channel for of, channel in channels if of == layer]
        found.append(Zero(layer, units) if by == "zero" else Mean(layer, mean=means[layer], units=units))
    return found


def channels_table(result: Mapping[str, Any]) -> str:
    """The channels, and what becomes of solving without them, in Markdown."""
    rows = [
        [each["concept"], each["direction"], f"{each['layer']}:{each['channel']}",
         f"{each['fitted']:+.2f}", f"{each['held_out']:+.2f}", f"{each['by_sign']:.2f}"]
        for each in result["channels"]
    ]  # fmt: skip
    header = ["concept", "direction", "channel", "correlation", "on other levels", "F1 of its sign there"]
    played = [
        [each["ablated"], each["by"] or "",
         f"{each['success_rate']:.1%} {shown(each['success_rate_interval'], '.1%')}",
         f"{each['range'][0]:.1%} to {each['range'][1]:.1%}" if "range" in each else ""]
        for each in result["ablations"]
    ]  # fmt: skip
    return f"{markdown(header, rows)}\n{markdown(['ablated', 'by', 'solved', 'range over sets'], played)}"


# -- what sets a path channel, for steering ---------------------------------------------------------


def _offsets(states: States, maps: Mapping[str, Tensor], found: Sequence[Found]) -> dict[str, Tensor]:
    """`[5, C]` by `concept/layer`: by how much the path channels of a concept are higher at cells of each class than at
    all; 0 for other channels."""
    offsets = {}
    for concept in CONCEPTS:
        come = torch.from_numpy(states.come[concept].astype(np.int64))
        for layer, values in maps.items():
            rows = values.movedim(1, -1)
            centre = rows[come != NO_CLASS].float().mean(0)
            means = [
                rows[come == each].float().mean(0) if (come == each).any() else centre for each in range(len(CLASSES))
            ]
            channels = [each.channel for each in found if (each.concept, each.layer) == (concept, layer)]
            kept = torch.zeros(len(centre))
            kept[channels] = 1
            offsets[f"{concept}/{layer}"] = (torch.stack(means) - centre) * kept
    return offsets


def _save(loaded: Loaded, offsets: Mapping[str, Tensor]) -> None:
    with atomic_path(_path(loaded)) as temporary:
        save_file(dict(offsets), temporary)


def load_offsets(loaded: Loaded) -> dict[str, Tensor]:
    """What `find_channels` found for this checkpoint, `[5, C]` by `concept/layer`; nothing if it was not asked."""
    path = _path(loaded)
    return Weights(path, "run `rl-interp sokoban channels` again").load() if path.is_file() else {}


def _path(loaded: Loaded) -> Path:
    return folder_of(loaded) / f"channels-{loaded.weights_sha256[:16]}.safetensors"
