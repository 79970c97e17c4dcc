"""Steering a maze agent at one layer: what that does to the choice between cheese and corner, beside controls.

These test findings of Turner et al. 2023, arXiv 2310.08043, §3. An effect is a change of P(step towards the cheese) at
the decision square, with a 95% interval over mazes; of random channels over sets of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.mazes.choices import (
    Effect,
    activations,
    choices,
    draw_mazes,
    maze_env,
)
from rl_interp.analysis.mazes.goals import Played, Share, play_side_by_side, shown
from rl_interp.analysis.mazes.search import Edit, Search, ablated, at_mean, elsewhere, search
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core import stats
from rl_interp.core.agent import Agent
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.layout import NOWHERE
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.interventions import Add, Intervention, Mean
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.tables import markdown

DoseCurves = dict[str, dict[str, dict[float, Effect]]]
"""Effects by vector, by what was added of it or of a control, and by scale."""


def steer_run(
    loaded: Loaded,
    hook: str = "block2.res1.sum",
    mazes: int = 400,
    episodes: int = 200,
    units: int = 5,
    sae: LoadedSAE | None = None,
    seed: int = 20_000,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Steer a maze agent at one layer: cheese and corner vectors with their controls, and a search for the channels
    that say where the cheese is, tested on mazes that it has not seen and in whole episodes. Writes a table, a plot and
    the result to the run's analyses/, and returns the result with their paths.

    Args:
        hook: a spatial hook point.
        mazes: number of mazes to compute effects on; those whose cheese is in the corner are left out.
        episodes: number of whole episodes to play with each intervention, and without.
        units: number of channels to find, and of features.
        sae: an autoencoder on that layer, whose features are searched as well.
        seed: of the mazes.

    Raises:
        UserError: not a maze agent, an autoencoder on something else, too few mazes, or too many units.
        HookError: no such hook point, or one without positions.
    """
    env, agent = maze_env(loaded), loaded.agent
    if sae is not None and (sae.hook != hook or not sae.agent.is_same_as(loaded)):
        raise UserError(
            f"{sae.run.path} is an autoencoder on {sae.hook} of {sae.agent.source}, not on {hook} of {loaded.source}."
        )
    config = MazeConfig(min_side=5, max_side=env.max_side, decision=True)
    drawn = draw_mazes(config, mazes, seed)
    drawn = drawn[(drawn.cheese != drawn.corner).any(1)]  # a corner vector walls the corner up
    p_cheese, p_corner = (float(each.mean()) for each in choices(agent, drawn))
    curves = _dose_curves(agent, drawn, hook, seed, progress)
    searches = _searches(agent, drawn, hook, units, sae, seed, progress)
    played = play_steered(agent, drawn, hook, searches["channels"].found, config, episodes, seed + 1, progress)
    shares = {name: each.p_cheese for name, each in played.items()}
    folder = loaded.run.outputs / "analyses" / f"steering-{hook}"
    write_text(folder / "table.md", steering_table(curves, searches, shares))
    plot = dose_picture(curves, folder / "dose.png")
    result = loaded.source | {
        "hook": hook, "mazes": len(drawn), "p_cheese": p_cheese, "p_corner": p_corner,
        "vectors": {
            name: {kind: {str(s): vars(e) for s, e in of.items()} for kind, of in kinds.items()}
            for name, kinds in curves.items()
        },
        "searches": {kind: each.plain for kind, each in searches.items()},
        "played": {name: share.plain for name, share in shares.items()},
    }  # fmt: skip
    write_json(folder / "result.json", result)
    return result | {"table": str(folder / "table.md"), "plot": str(plot), "result": str(folder / "result.json")}


def _dose_curves(agent: Agent, mazes: Mazes, at: str, seed: int, progress: Progress) -> DoseCurves:
    curves: DoseCurves = {}
    with progress.bar("Steering", len(VECTORS), "vectors") as update:
        for name, vector in VECTORS.items():
            curves[f"{name} vector"] = steer(agent, mazes, at, vector(agent, mazes, at), seed=seed)
            update(len(curves))
    return curves


def _searches(
    agent: Agent, mazes: Mazes, at: str, units: int, sae: LoadedSAE | None, seed: int, progress: Progress
) -> dict[str, Search]:
    """One of the layer's channels, and one of an autoencoder's features."""
    channels = activations(agent, mazes[:1], at).shape[1]
    edits: dict[str, Edit] = {
        "as if the cheese were elsewhere": elsewhere(agent, mazes, at, seed),
        "at their mean": at_mean(agent, mazes, at),
    }
    with progress.bar(f"Searching {at}", channels, "channels") as update:
        found = {"channels": search(agent, mazes, at, edits, channels, units, seed, update)}
    if sae is not None:
        features = sae.sae.d_sae
        with progress.bar("Searching features", features, "features") as update:
            found["features"] = search(agent, mazes, at, {"ablated": ablated(sae.sae)}, features, units, seed, update)
    return found


def play_steered(
    agent: Agent, mazes: Mazes, at: str, channels: list[int], config: MazeConfig, episodes: int, seed: int,
    progress: Progress = SILENT,
) -> dict[str, Played]:  # fmt: skip
    """Whole episodes by intervention, in the same mazes under each.

    Args:
        mazes: over which the channels' mean is taken.
        channels: to hold at their mean.
    """
    mean = activations(agent, mazes, at).mean(0)
    conditions: dict[str, Callable[[Mazes], Sequence[Intervention]]] = {
        "as it is": lambda own: (),
        "cheese vector subtracted": lambda own: [Add(at, direction=cheese_vector(agent, own, at), scale=-1.0)],
        "cheese vector added": lambda own: [Add(at, direction=cheese_vector(agent, own, at), scale=1.0)],
        f"channels {channels} at their mean": lambda own: [Mean(at, mean=mean, units=channels)],
    }
    played: dict[str, Played] = {}
    with progress.bar("Playing", len(conditions), "conditions") as update:
        for name, interventions in conditions.items():
            played[name] = play_side_by_side(agent, config, episodes, seed, interventions)
            update(len(played))
    return played


def cheese_vector(agent: Agent, mazes: Mazes, at: str) -> Tensor:
    """`[N, ...]`: what the cheese adds to the activations, with the mouse where it starts."""
    return activations(agent, mazes, at) - activations(agent, mazes.edit(cheese=(NOWHERE, NOWHERE)), at)


def corner_vector(agent: Agent, mazes: Mazes, at: str) -> Tensor:
    """`[N, ...]`: what a free cell at the top right adds to the activations, in place of a wall there.

    Raises:
        UserError: the cheese or the mouse of a maze is in that corner.
    """
    taken = (mazes.corner[:, None] == np.stack([mazes.cheese, mazes.mouse], 1)).all(-1).any(1)
    if taken.any():
        raise UserError(
            f"maze {int(np.argmax(taken))} has its cheese or mouse in the corner, which is to be walled up."
        )
    walls = mazes.walls.copy()
    walls[np.arange(len(mazes)), mazes.corner[:, 0], mazes.corner[:, 1]] = True
    return activations(agent, mazes, at) - activations(agent, mazes.edit(walls=walls), at)


VECTORS = {"cheese": cheese_vector, "corner": corner_vector}


def parse_vector(text: str, agent: Agent, maze: Mazes) -> Intervention:
    """`cheese:HOOK=SCALE` or `corner:HOOK=SCALE`, such as `cheese:block2.res1.sum=-1`: that multiple of the maze's own
    vector is added.

    Raises:
        UserError: it is not of that form.
    """
    match = re.fullmatch(r"(\w+):(.+)=(-?\d+(?:\.\d+)?)", text)
    if not match or match[1] not in VECTORS:
        raise UserError(f"vector {text!r} given; it has the form cheese:HOOK=SCALE or corner:HOOK=SCALE.")
    return Add(match[2], direction=VECTORS[match[1]](agent, maze, match[2])[0], scale=float(match[3]))


def steer(
    agent: Agent,
    mazes: Mazes,
    at: str,
    vectors: Tensor,
    scales: Sequence[float] = (-2, -1, -0.5, 0.5, 1, 2),
    seed: int = 0,
) -> dict[str, dict[float, Effect]]:
    """Effects of adding multiples of each maze's own vector, `vectors [N, ...]`, by scale, beside controls.

    The controls are a random direction of the same norm, and the vector of a different maze; multiples of one sign are
    a control of the other's.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    norms = vectors.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
    random = noise * norms.view(-1, *[1] * (vectors.dim() - 1))
    kinds = {"vector": vectors, "random direction": random, "another maze's": vectors.roll(1, 0)}
    before = choices(agent, mazes)
    return {
        name: {
            scale: Effect.between(before, choices(agent, mazes, [Add(at, direction=direction, scale=scale)]))
            for scale in scales
        }
        for name, direction in kinds.items()
    }


def steering_table(curves: DoseCurves, searches: Mapping[str, Search], shares: Mapping[str, Share]) -> str:
    """Effects on held-out mazes, and what becomes of whole episodes, in Markdown."""
    rows = []
    for name, kinds in curves.items():
        for kind, effects in kinds.items():
            rows += [effect_cells(f"{name} x {scale:+g}: {kind}", effects[scale]) for scale in (-1, 1)]
    for kind, each in searches.items():
        rows += [effect_cells(f"{kind} {name}", effect) for name, effect in each.held_out.items()]
    effects = markdown(["intervention", "change of P(step towards the cheese)", "towards the corner"], rows)
    played = [[name, shown(share.plain), share.count] for name, share in shares.items()]
    return f"{effects}\n{markdown(['whole episodes', 'P(cheese given decision square)', 'episodes'], played)}"


def effect_cells(name: str, effect: Effect) -> list[str]:
    """A row: the change of the step towards the cheese with its interval, and of that towards the corner."""
    interval = stats.shown((effect.low, effect.high), "+.3f")
    return [name, f"{effect.cheese:+.3f} {interval}", f"{effect.corner:+.3f}"]


def dose_picture(curves: DoseCurves, path: Path) -> Path:
    """Effects by scale, of vectors and their controls; a panel a vector."""
    figure, axes = new_figure(1, len(curves), 5.6 * len(curves), 4.4, sharey=True)
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
