"""`rl-interp maze goals`, `maze field`, `maze retarget`, `maze steer` and `maze saliency`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.mazes.choices import (
    Coefficient,
    Played,
    Share,
    choices,
    play,
    regression,
    to_corner_without_cheese,
)
from rl_interp.analysis.mazes.fields import retarget, vector_field
from rl_interp.analysis.mazes.pictures import (
    dose_picture,
    effect_line,
    field_picture,
    goals_picture,
    goals_row,
    goals_table,
    maze_env,
    plain,
    retargeting_picture,
    shown,
)
from rl_interp.analysis.mazes.saliency import SHORTEST, judge
from rl_interp.analysis.mazes.steering import (
    Edit,
    Search,
    activations,
    at_mean,
    cheese_vector,
    corner_vector,
    elsewhere,
    search,
    steer,
)
from rl_interp.analysis.probes.regression import Score
from rl_interp.analysis.sae.runs import load_autoencoder
from rl_interp.app.commands.imagine import clamped
from rl_interp.app.progress import progress_bar
from rl_interp.core import stats
from rl_interp.core.envs import MazeConfig
from rl_interp.core.envs.games import episode_seed
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.interventions import Add, Intervention, Mean
from rl_interp.sae import SAE
from rl_interp.saliency import METHODS, Perturbation, parse_target, randomised

FINE = Perturbation(sigma=1.5, stride=2)
"""A mask a cell: the usual ones, made for Atari's screens, are wider than the walls between ways."""
VECTORS = {"cheese": cheese_vector, "corner": corner_vector}


def maze_goals(
    runs: tyro.conf.Positional[tuple[str, ...]],
    episodes: int = 1000,
    seed: int = 10_000,
    output: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Find out what maze agents want: cheese or corner, where the ways part, and where there is no cheese.

    Args:
        runs: Names under runs/ or paths; several, trained with the cheese in different regions, make one table.
        episodes: Mazes of each kind to play.
        seed: Of the mazes, which are the same for all agents.
        output: Folder for table, plot and result; by default in the first run's analyses/.
        device: auto, cpu or cuda.
    """
    at_least_one(runs=len(runs), episodes=episodes)
    agents = [load_agent(run, None, device) for run in runs]
    rows = []
    for loaded in agents:
        env = maze_env(loaded)
        anywhere = MazeConfig(min_side=env.min_side, max_side=env.max_side)
        with progress_bar(f"Playing {loaded.run.path.name}", episodes, "episodes") as update:
            played = play(loaded.agent, anywhere, episodes, seed, progress=update)
        without = to_corner_without_cheese(loaded.agent, anywhere, episodes, seed)
        rows.append(goals_row(loaded, env.region, played, without, _regression(played)))
    folder = output or agents[0].run.path / "analyses" / "goals"
    write_json(folder / "result.json", rows)
    write_text(folder / "table.md", goals_table(rows))
    plot = goals_picture(rows, folder / "goals.png")
    return {"table": str(folder / "table.md"), "plot": str(plot), "result": str(folder / "result.json"), "agents": rows}


def _regression(played: Played) -> dict[str, Coefficient]:
    try:
        return regression(played)
    except UserError:  # one of the outcomes is too rare; the table says how rare
        return {}


def maze_field(
    run: tyro.conf.Positional[str],
    seed: int = 0,
    side: int = 15,
    add: tuple[str, ...] = (),
    clamp: tuple[str, ...] = (),
    output: Path | None = None,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Draw what a maze agent would do from every cell; with interventions, also how they change it.

    Args:
        run: Name under runs/ or a path.
        seed: Of the maze.
        side: Cells along its side.
        add: Vectors to add, as cheese:HOOK=SCALE or corner:HOOK=SCALE, such as cheese:block2.res1.sum=-1.
        clamp: Channels to hold at a value everywhere, as HOOK:CHANNEL=VALUE.
        output: The .png to write; by default in the run's analyses/.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded, maze = _maze(run, seed, side, checkpoint, device)
    interventions = [*(_vector(text, loaded, maze) for text in add), *(clamped(text) for text in clamp)]
    fields = [("as it is", vector_field(loaded.agent, maze))]
    if interventions:
        fields.append((", ".join([*add, *clamp]), vector_field(loaded.agent, maze, interventions)))
    path = output or loaded.run.path / "analyses" / "fields" / f"seed{seed}-side{side}.png"
    return loaded.source | {"picture": str(field_picture(maze, fields, path)), "cells": len(fields[0][1].cells)}


def _vector(text: str, loaded: Loaded, maze: Mazes) -> Intervention:
    match = re.fullmatch(r"(\w+):(.+)=(-?\d+(?:\.\d+)?)", text)
    if not match or match[1] not in VECTORS:
        raise UserError(f"--add {text} given; it has the form cheese:HOOK=SCALE or corner:HOOK=SCALE.")
    direction = VECTORS[match[1]](loaded.agent, maze, match[2])[0]
    return Add(match[2], direction=direction, scale=float(match[3]))


def maze_retarget(
    run: tyro.conf.Positional[str],
    hook: str,
    channel: int,
    value: float | None = None,
    seed: int = 0,
    side: int = 15,
    output: Path | None = None,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Clamp a channel at one position after another, and draw where the mouse would then go.

    Args:
        run: Name under runs/ or a path.
        hook: Hook point with positions, such as block2.res1.sum.
        channel: Which channel of it.
        value: What to clamp it to; by default twice the channel's largest value in this maze.
        seed: Of the maze.
        side: Cells along its side.
        output: The .png to write; by default in the run's analyses/.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded, maze = _maze(run, seed, side, checkpoint, device)
    found_there = activations(loaded.agent, maze, hook)
    if value is None and found_there.dim() == 4 and 0 <= channel < found_there.shape[1]:
        value = 2 * float(found_there[0, channel].abs().max())
    found = retarget(loaded.agent, maze_env(loaded), maze, hook, channel, value or 0.0)
    path = output or loaded.run.path / "analyses" / "retargeting" / f"{hook}-{channel}-seed{seed}-side{side}.png"
    title = f"{loaded.run.path.name}: channel {channel} of {hook} held at {value:.3g} at one position"
    return loaded.source | {
        "picture": str(retargeting_picture(maze, found, title, path)), "value": value,
        "before": float(found.before.mean()), "after": float(found.after.mean()),
    }  # fmt: skip


def _maze(run: str, seed: int, side: int, checkpoint: int | None, device: str) -> tuple[Loaded, Mazes]:
    loaded = load_agent(run, checkpoint, device)
    maze_env(loaded)
    return loaded, Mazes.draw(MazeConfig(min_side=side, max_side=side, decision=side > 3), [seed])


def maze_steer(
    run: tyro.conf.Positional[str],
    hook: str = "block2.res1.sum",
    mazes: int = 400,
    episodes: int = 200,
    units: int = 5,
    sae: str | None = None,
    seed: int = 20_000,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Steer a maze agent at one layer: cheese and corner vectors with their controls, and a search for the channels
    that say where the cheese is, tested on mazes that it has not seen and in whole episodes.

    Args:
        run: Name under runs/ or a path.
        hook: Hook point with positions.
        mazes: With a decision square, to measure effects on.
        episodes: To play whole, with and without the interventions.
        units: Channels to find, and features.
        sae: Run of an autoencoder on that layer, whose features are searched as well.
        seed: Of the mazes.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    env, agent, fitted = maze_env(loaded), loaded.agent, load_autoencoder(sae, device) if sae else None
    if fitted is not None and (fitted.hook != hook or fitted.agent.source != loaded.source):
        raise UserError(f"{sae} is an autoencoder on {fitted.hook} of {fitted.agent.source}, not on {hook} of {run}.")
    config = MazeConfig(min_side=5, max_side=env.max_side, decision=True)
    drawn = Mazes.draw(config, [episode_seed(seed, 0, i) for i in range(mazes)])
    drawn = drawn[(drawn.cheese != drawn.corner).any(1)]
    p_cheese, p_corner = (float(each.mean()) for each in choices(agent, drawn))
    curves = {}
    with progress_bar("Steering", len(VECTORS), "vectors") as update:
        for name, vector in VECTORS.items():
            curves[f"{name} vector"] = steer(agent, drawn, hook, vector(agent, drawn, hook), seed=seed)
            update(len(curves))
    width, edits = activations(agent, drawn[:1], hook).shape[1], _channel_edits(loaded, drawn, hook, seed)
    with progress_bar(f"Searching {hook}", width, "channels") as update:
        found = search(agent, drawn, hook, edits, width, units, seed, update)
    searches = {"channels": found}
    if fitted is not None:
        latents, edits = fitted.sae.d_sae, {"ablated": _ablated(fitted.sae)}
        with progress_bar("Searching features", latents, "features") as update:
            searches["features"] = search(agent, drawn, hook, edits, latents, units, seed, update)
    mean = activations(agent, drawn, hook).mean(0)
    played = {
        "as it is": (),
        "cheese vector subtracted": lambda own: [Add(hook, direction=cheese_vector(agent, own, hook), scale=-1.0)],
        "cheese vector added": lambda own: [Add(hook, direction=cheese_vector(agent, own, hook), scale=1.0)],
        f"channels {found.found} at their mean": [Mean(hook, mean=mean, units=found.found)],
    }
    shares: dict[str, Share] = {}
    with progress_bar("Playing", len(played), "conditions") as update:
        for name, interventions in played.items():
            shares[name] = play(agent, config, episodes, seed + 1, interventions).p_cheese
            update(len(shares))
    folder = loaded.run.path / "analyses" / f"steering-{hook}"
    write_text(folder / "table.md", _steering_table(curves, searches, shares))
    plot = dose_picture(curves, folder / "dose.png")
    result = loaded.source | {
        "hook": hook, "mazes": len(drawn), "p_cheese": p_cheese, "p_corner": p_corner,
        "vectors": {
            name: {kind: {str(s): vars(e) for s, e in of.items()} for kind, of in kinds.items()}
            for name, kinds in curves.items()
        },
        "searches": {
            kind: {
                "found": each.found, "scores": [round(float(s), 5) for s in each.scores],
                "held_out": {name: vars(effect) for name, effect in each.held_out.items()},
            }
            for kind, each in searches.items()
        },
        "played": {name: plain(share) for name, share in shares.items()},
    }  # fmt: skip
    write_json(folder / "result.json", result)
    return result | {"table": str(folder / "table.md"), "plot": str(plot), "result": str(folder / "result.json")}


def _channel_edits(loaded: Loaded, mazes: Mazes, hook: str, seed: int) -> dict[str, Edit]:
    return {
        "as if the cheese were elsewhere": elsewhere(loaded.agent, mazes, hook, seed),
        "at their mean": at_mean(loaded.agent, mazes, hook),
    }


def _ablated(sae: SAE) -> Edit:
    """Features are taken out, everything else, the autoencoder's error included, left as it is."""

    @torch.no_grad()
    def edit(values: Tensor, rows: NDArray[np.integer], units: Sequence[int]) -> Tensor:
        last = values.movedim(1, -1)
        active = sae.encode(last.reshape(-1, sae.d_in))[:, list(units)]
        return (last - (active @ sae.W_dec[list(units)]).reshape(last.shape)).movedim(-1, 1)

    return edit


def _steering_table(curves: dict[str, Any], searches: dict[str, Search], shares: dict[str, Share]) -> str:
    lines = ["| intervention | change of P(step towards the cheese) | towards the corner |", "|---|---|---|"]
    for name, kinds in curves.items():
        for kind, effects in kinds.items():
            lines += [effect_line(f"{name} x {scale:+g}: {kind}", effects[scale]) for scale in (-1, 1)]
    for kind, each in searches.items():
        lines += [effect_line(f"{kind} {name}", effect) for name, effect in each.held_out.items()]
    lines += ["", "| whole episodes | P(cheese given decision square) | episodes |", "|---|---|---|"]
    for name, share in shares.items():
        lines.append(f"| {name} | {shown(plain(share))} | {share.count} |")
    return "\n".join(lines) + "\n"


def maze_saliency(
    run: tyro.conf.Positional[str],
    mazes: int = 60,
    side: int = 15,
    target: str = "advantage",
    seed: int = 30_000,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Judge every saliency method by what a maze says must matter, the way to the cheese and its ends, beside the same
    method on the agent with its weights shuffled.

    Args:
        run: Name under runs/ or a path.
        mazes: How many.
        side: Cells along their side.
        target: chosen, advantage, value, or q:ACTION.
        seed: Of the mazes.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    explained = parse_target(target, maze_env(loaded).action_names)
    config = MazeConfig(min_side=side, max_side=side)
    drawn = Mazes.draw(config, [episode_seed(seed, 0, i) for i in range(mazes)])
    far = drawn.distances(drawn.mouse)[np.arange(mazes), drawn.cheese[:, 0], drawn.cheese[:, 1]] >= SHORTEST
    drawn = drawn[far]
    observations = torch.from_numpy(drawn.observations()).to(loaded.agent.device)
    agents = {"trained": loaded.agent, "shuffled weights": randomised(loaded.agent, seed)}
    methods = METHODS | {"perturbation, a mask a cell": FINE}
    found: dict[str, dict[str, dict[str, Score]]] = {}
    with progress_bar("Mapping", len(methods) * len(agents) * len(drawn), "maps") as update:
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
    folder = loaded.run.path / "analyses" / f"saliency-{target.replace(':', '-')}"
    write_text(folder / "table.md", _saliency_table(found))
    result = loaded.source | {
        "mazes": len(drawn), "side": side, "target": target,
        "methods": {
            name: {which: {of: vars(each) for of, each in scores.items()} for which, scores in both.items()}
            for name, both in found.items()
        },
    }  # fmt: skip
    write_json(folder / "result.json", result)
    return result | {"table": str(folder / "table.md"), "result": str(folder / "result.json")}


def _saliency_table(found: dict[str, dict[str, dict[str, Score]]]) -> str:
    lines = ["| method | weights | way to the cheese | cheese | mouse |", "|---|---|---|---|---|"]
    for name, both in found.items():
        for which, scores in both.items():
            cells = [f"{each.value:.2f} {stats.shown((each.low, each.high), '.2f')}" for each in scores.values()]
            lines.append(f"| {name} | {which} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
