"""Feature maps of an agent's layers: tables beside their controls, and pictures that follow a state through them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.feature_maps.clusters import Name, Truth, cluster, information, names, patches
from rl_interp.core.agent import Agent, evaluating
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.receptive_fields import ReceptiveFields, check_spatial, receptive_fields, spatial_points
from rl_interp.core.rollout import Actor
from rl_interp.core.tables import markdown
from rl_interp.saliency import randomised

TRAINED = "trained"
RANDOM, PIXELS = "random network", "raw pixels"
_BATCH, _ENVS = 64, 8
_PATCH_CELLS, _WIDEST_PATCH = 3, 9
_LETTERS = 12
"""Of a title, to an inch."""


@dataclass(frozen=True)
class States:
    """N states that an agent reached, with the ground truth of their cells."""

    obs: NDArray[np.uint8]
    """`[N, C, H, W]`."""
    cells: dict[str, tuple[NDArray[np.int64], tuple[str, ...]]]
    """Name to classes `[N, rows, columns]` and their names."""


@dataclass(frozen=True)
class LayerMap:
    """The clusters of one layer's positions."""

    receptive_fields: ReceptiveFields
    """Of the positions."""
    assigned: NDArray[np.int64]
    """`[N, H, W]`."""
    information: dict[str, float]
    """Adjusted mutual information with each truth."""
    names: list[Name]


Maps = dict[str, dict[str, LayerMap]]
"""By hook point, the maps of the agent and of its controls."""


def map_run(
    loaded: Loaded,
    hooks: Sequence[str] = (),
    states: int = 400,
    clusters: int = 12,
    method: Literal["kmeans", "agglomerative"] = "kmeans",
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Play, cluster the positions of some layers, and name the clusters. Writes a table, the result, a picture of each
    layer and the sheet to the run's analyses/; returns their paths and the information.

    Args:
        hooks: spatial hook points; by default each residual sum, or all that the observation goes through.
        states: to play.
        clusters: of each layer.
        seed: of the episodes, the clustering and the random network.

    Raises:
        HookError: no such point, or one without positions.
        UserError: an agent that sees a vector, an environment without cells, or more clusters than positions.
    """
    chosen = hooks or _default_hooks(loaded)
    for hook in chosen:
        check_spatial(loaded.agent, hook)
    seen = observe(loaded, states, seed, progress=progress)
    found = feature_maps(loaded, chosen, seen, clusters, method, seed, progress)
    written = write(loaded, seen, found, loaded.run.outputs / "analyses" / f"maps-{method}-{clusters}")
    known = {hook: {kind: each.information for kind, each in kinds.items()} for hook, kinds in found.items()}
    return written | {"states": states, "information": known}


def _default_hooks(loaded: Loaded) -> tuple[str, ...]:
    # A decoder's positions are about what it draws, not about what is seen.
    there = [name for name in spatial_points(loaded.agent) if not name.startswith("decoder.")]
    if not there:
        raise UserError(
            f"{loaded.run.path} has no layer with positions to map: it sees a vector; give a different agent."
        )
    return tuple(name for name in there if name.endswith(".sum")) or tuple(there)


def observe(
    loaded: Loaded, count: int, seed: int, every: int = 4, epsilon: float = 0.05, progress: Progress = SILENT
) -> States:
    """Play, and keep each `every`-th state until there are `count`; episode i has the seed `seed + i`.

    Raises:
        UserError: the environment has no cells.
    """
    at_least_one(count=count, every=every)
    envs = [make_labelled(loaded.env) for _ in range(min(_ENVS, count))]
    seeds = iter(range(seed, seed + 10**9))
    obs = np.stack([env.reset(seed=next(seeds))[0] for env in envs])
    if not envs[0].cells():
        raise UserError(f"{loaded.env.id} shows no cells with ground truth; give a maze, MiniGrid or Crafter agent.")
    actor, first = Actor(loaded.agent, len(envs), np.random.default_rng(seed)), np.ones(len(envs), bool)
    kept: list[NDArray[np.uint8]] = []
    truths: list[Any] = []
    step = 0
    with evaluating(loaded.agent), progress.bar("Playing", count, "states") as update:
        while len(kept) < count:
            if step % every == 0:  # the states between two that are kept are much like them
                kept.extend(obs.copy())
                truths.extend(env.cells() for env in envs)
                update(min(count, len(kept)))
            actions = actor.act(obs, first, epsilon)
            for i, env in enumerate(envs):
                obs[i], _, terminated, truncated, _ = env.step(int(actions[i]))
                first[i] = terminated or truncated
                if first[i]:
                    obs[i], _ = env.reset(seed=next(seeds))
            step += 1
    cells = {
        name: (np.stack([truth[name][0] for truth in truths[:count]]), labels)
        for name, (_, labels) in truths[0].items()
    }
    return States(np.stack(kept[:count]), cells)


def feature_maps(
    loaded: Loaded,
    hooks: Sequence[str],
    states: States,
    clusters: int,
    method: Literal["kmeans", "agglomerative"],
    seed: int,
    progress: Progress = SILENT,
) -> Maps:
    """For each hook point, the maps of the agent and of its controls.

    Raises:
        HookError: no such point, or one without positions.
        UserError: more clusters than positions.
    """
    agents = {TRAINED: loaded.agent, RANDOM: randomised(loaded.agent, seed)}
    some = torch.from_numpy(states.obs[:1]).to(loaded.agent.device)
    where = {hook: receptive_fields(loaded.agent, hook, some) for hook in hooks}
    found: Maps = {}
    with progress.bar("Clustering", 3 * len(hooks), "layers") as update:
        for hook, place in where.items():
            truth = _truth(states, place.cells(loaded.env))
            found[hook] = {}
            for kind in (TRAINED, RANDOM, PIXELS):
                values = _pixels(loaded, states, place) if kind == PIXELS else _values(agents[kind], states.obs, hook)
                flat = values.reshape(-1, values.shape[-1])
                assigned = cluster(flat, clusters, method, seed).assign(flat)
                found[hook][kind] = LayerMap(
                    place, assigned.reshape(values.shape[:3]), information(assigned, truth, seed),
                    names(assigned, truth, clusters),
                )  # fmt: skip
                update(sum(map(len, found.values())))
    return found


@torch.no_grad()
def _values(agent: Agent, obs: NDArray[np.uint8], hook: str) -> NDArray[np.float32]:
    """`[N, H, W, C]`."""
    device, parts = agent.device, []
    for start in range(0, len(obs), _BATCH):
        batch = torch.from_numpy(obs[start : start + _BATCH]).to(device)
        cached = run_with_cache(agent, batch, names=[hook])[1][hook]
        parts.append(cached.float().movedim(1, -1).cpu().numpy())
    return np.concatenate(parts)


def _pixels(loaded: Loaded, states: States, place: ReceptiveFields) -> NDArray[np.uint8]:
    """`[N, H, W, D]`: the observation around each position, symbols as zeros and ones."""
    obs, counts = states.obs, loaded.env.categories
    if counts is not None:
        obs = np.concatenate(
            [np.moveaxis(np.eye(n, dtype=np.uint8)[obs[:, i]], -1, 1) for i, n in enumerate(counts)], 1
        )
    assert loaded.env.cell_pixels is not None
    return patches(obs, *place.pixels(), min(_WIDEST_PATCH, _PATCH_CELLS * loaded.env.cell_pixels[0]))


def _truth(states: States, cells: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Truth:
    """The classes of the cells that positions are about, `[N · H · W]`; -1 outside of the grid."""
    rows, columns = cells
    found = {}
    for name, (classes, labels) in states.cells.items():
        inside_rows, inside_columns = (
            (at >= 0) & (at < size) for at, size in zip((rows, columns), classes.shape[1:], strict=True)
        )
        picked = classes[:, np.where(inside_rows, rows, 0)][:, :, np.where(inside_columns, columns, 0)]
        found[name] = (np.where(inside_rows[:, None] & inside_columns, picked, -1).ravel(), labels)
    return found


def table(maps: Maps) -> str:
    """Adjusted mutual information by layer, in Markdown: the agent, then its controls."""
    truths = list(dict.fromkeys(name for kinds in maps.values() for name in kinds[TRAINED].information))
    kinds = (TRAINED, RANDOM, PIXELS)
    columns = [(truth, kind) for truth in truths for kind in kinds]
    rows = [
        [hook, *(f"{of_kind[kind].information.get(truth, np.nan):.3f}" for truth, kind in columns)]
        for hook, of_kind in maps.items()
    ]
    return markdown(["layer", *(f"{truth}: {kind}" for truth, kind in columns)], rows)


def write(loaded: Loaded, states: States, maps: Maps, folder: Path) -> dict[str, Any]:
    """Write the table, the results, a picture of each layer and the sheet; returns their paths."""
    write_text(folder / "table.md", table(maps))
    result = {
        hook: {
            kind: {"information": found.information, "names": [_named(name) for name in found.names]}
            for kind, found in kinds.items()
        }
        for hook, kinds in maps.items()
    }
    write_json(folder / "result.json", result)
    pictures = {hook: str(_layer_picture(loaded, states, hook, kinds, folder)) for hook, kinds in maps.items()}
    sheet = _sheet(loaded, states, maps, folder / "sheet.png")
    return {
        "table": str(folder / "table.md"),
        "result": str(folder / "result.json"),
        "sheet": str(sheet),
        "pictures": pictures,
    }


def _named(name: Name) -> dict[str, Any]:
    return {"truth": name.truth, "label": name.label, "precision": name.precision, "recall": name.recall}


def _layer_picture(
    loaded: Loaded, states: States, hook: str, kinds: dict[str, LayerMap], folder: Path, examples: int = 4
) -> Path:
    """Some states above their cluster maps, and what the clusters are about."""
    from matplotlib.patches import Patch

    shown = np.linspace(0, len(states.obs) - 1, examples).astype(int)
    found = kinds[TRAINED]
    figure, axes = new_figure(2, examples, 2.6 * examples + 3.6, 5.6)
    for column, i in enumerate(shown):
        axes[0, column].imshow(loaded.env.picture(states.obs[i]))
        _draw(axes[1, column], found, i, states)
    for axis in axes.flat:
        axis.set_axis_off()
    colours = _colours(len(found.names))
    size = np.bincount(found.assigned.ravel(), minlength=len(found.names)) / found.assigned.size
    order = np.argsort(-size)
    handles = [
        Patch(color=tuple(colours[i]), label=f"{_label(found.names[i])}, {size[i]:.0%} of positions") for i in order
    ]
    figure.legend(
        handles=handles, loc="outside right center", fontsize=8, frameon=False, title="cluster: F1 with a class"
    )
    figure.suptitle(f"{loaded.run.path.name}, {hook}: clusters of positions", fontsize=11)
    path = folder / f"{hook}.png"
    return save_figure(figure, path)


def _sheet(loaded: Loaded, states: States, maps: Maps, path: Path) -> Path:
    """One state through all layers, the one with most classes in view: the agent's maps, and its controls' below."""
    kinds, which = (TRAINED, RANDOM, PIXELS), _richest(states)
    figure, axes = new_figure(len(kinds), len(maps) + 1, 2.2 * (len(maps) + 1), 2.5 * len(kinds))
    for row, kind in enumerate(kinds):
        axes[row, 0].imshow(loaded.env.picture(states.obs[which]))
        axes[row, 0].set_ylabel(kind, fontsize=10)
        for column, (hook, of_kind) in enumerate(maps.items(), start=1):
            found = of_kind[kind]
            _draw(axes[row, column], found, which, states)
            truth = max(found.information, key=lambda each: found.information[each], default=None)
            best = f"{truth}: {found.information[truth]:.2f}" if truth else "nothing"
            axes[row, column].set_title(f"{hook}\n{best}" if row == 0 else best, fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    title = "one state through the layers; above each map, the truth that its clusters tell most of, and how much"
    letters = int(_LETTERS * figure.get_figwidth())
    figure.suptitle(textwrap.fill(f"{loaded.run.path.name}: {title}", letters), fontsize=10)
    return save_figure(figure, path)


def _richest(states: States) -> int:
    """The state with most different classes of cells; the first of several."""
    shown = [[len(np.unique(each)) for each in classes] for classes, _ in states.cells.values()]
    return int(np.sum(shown, 0).argmax())


def _draw(axis: Any, found: LayerMap, which: int, states: States) -> None:
    """A cluster map over the part of the observation that its positions are about."""
    colours = (_colours(len(found.names))[found.assigned[which]] * 255).astype(np.uint8)
    (top, bottom), (left, right) = (
        (at[0] - step / 2, at[-1] + step / 2)
        for at, step in zip(found.receptive_fields.pixels(), found.receptive_fields.stride, strict=True)
    )
    axis.imshow(colours, interpolation="nearest", extent=(left, right, bottom, top))
    height, width = states.obs.shape[-2:]
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def _colours(count: int) -> NDArray[np.float64]:
    """`[K, 3]` in [0, 1]."""
    import matplotlib

    table = [*matplotlib.colormaps["tab20"].colors, *matplotlib.colormaps["tab20b"].colors]  # pyright: ignore[reportAttributeAccessIssue]
    return np.array([table[i % len(table)] for i in range(count)])


def _label(name: Name) -> str:
    of = f"{name.truth}, " if name.truth else ""
    return f"{name.label} ({of}{name.f1:.2f})"
