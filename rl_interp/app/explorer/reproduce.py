"""The Python lines and the command that give what is on the page's screen."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import Part, Recipe
from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class View:
    """What the page shows."""

    step: int = 0
    tab: str = "decision"
    """decision, layer, features, feature, clusters, change, saliency, plan or maze."""
    point: str = ""
    changes: tuple[str, ...] = ()
    method: str = "perturbation"
    target: str = "advantage"
    maze: str = ""
    """The edited one."""
    feature: int = 0
    clusters: int = 8
    beside: tuple[str, ...] = ()
    """Layers whose clusters are numbered as those of `point`."""
    plane: str = "pca"
    kernel: int = 3
    """Side of the square of cells that the probes of a plan see."""
    thinking: int = 0
    """Further looks at the board."""


def reproduce(loaded: Loaded, sae: Path | None, recipe: Recipe, view: View) -> tuple[str, str]:
    """Lines that run as they stand, and a command, which shows the view itself where there is one, and else opens the
    explorer."""
    make = _VIEWS.get(view.tab)
    if make is None:
        raise UserError(f"view {view.tab!r} was asked for; there are {', '.join(_VIEWS)}.")
    imports, lines = make(recipe, view)
    imports = {"from rl_interp.agents.load import load_agent", *imports}
    opened = [f'loaded = load_agent({str(loaded.run.path)!r}, {loaded.step}, device="cpu")']
    if sae is not None:
        imports.add("from rl_interp.analysis.sae.runs import load_autoencoder")
        opened.append(f"sae = load_autoencoder({str(sae)!r}, opened=(loaded,))")
    elif any(", sae" in line for line in lines):
        opened.append("sae = None")
    return "\n".join([*sorted(imports), "", *opened, *lines]) + "\n", _command(loaded, sae, recipe, view)


Lines = tuple[set[str], list[str]]
"""Imports, and what follows the opening of the agent."""


def _decision(recipe: Recipe, view: View) -> Lines:
    imports, lines = _moment(recipe, view)
    return imports, [*lines, "print(dict(zip(loaded.env.action_names, moment.preferences)), moment.value)"]


def _layer(recipe: Recipe, view: View) -> Lines:
    imports, lines, changes = _changed(recipe, view)
    imports.add("from rl_interp.analysis.episodes import values")
    return imports, [*lines, f"print(values(loaded, [moment], {view.point!r}{changes})[0])  # [positions, units]"]


def _features(recipe: Recipe, view: View) -> Lines:
    imports, lines, changes = _changed(recipe, view)
    imports.add("from rl_interp.analysis.episodes import features, values")
    fired = f"fired = features(sae, values(loaded, [moment], sae.hook{changes}))[0].max(0)"
    return imports, [*lines, fired, "print({int(i): fired[i] for i in (-fired).argsort()[:20] if fired[i] > 0})"]


def _feature(recipe: Recipe, view: View) -> Lines:
    imports = {"from rl_interp.analysis.sae.feature import Catalogue"}
    return imports, [f"print(Catalogue(sae).describe({view.feature}))"]


def _clusters(recipe: Recipe, view: View) -> Lines:
    imports, lines = _moment(recipe, view)
    imports.add("from rl_interp.analysis.episodes import clustered, values")
    lines.append("moments = [recording.moment(step) for step in range(recording.steps + 1)]")
    plane = f", plane={view.plane!r}" if view.plane != "pca" else ""
    lines.append(f"made = clustered(loaded, moments, {view.point!r}, {view.clusters}{plane})")
    lines.append(f"print(made.assign(values(loaded, [moment], {view.point!r})[0]))")
    for at in view.beside:
        imports.add("from rl_interp.analysis.episodes import clustered_alike")
        lines.append(f"beside = clustered_alike(made, loaded, moments, {at!r})")
        lines.append(f"print(beside.assign(values(loaded, [moment], {at!r})[0]), beside.alike)")
    return imports, lines


def _change(recipe: Recipe, view: View) -> Lines:
    imports, lines = _moment(recipe, view)
    imports |= {_PARSE, "from rl_interp.analysis.episodes import effect"}
    return imports, [
        *lines, _parsed(view, recipe.maze, recipe.seed), "found = effect(loaded, moment, changes)",
        "print(found.before.preferences, found.after.preferences)",
        "print(found.size, found.control_sizes, found.within_controls)",
    ]  # fmt: skip


def _saliency(recipe: Recipe, view: View) -> Lines:
    imports, lines = _moment(recipe, view)
    imports |= {
        "from rl_interp.analysis.episodes import vectors_seen", "import torch",
        "from rl_interp.analysis.saliency_video import target_of", "from rl_interp.saliency import saliency_map",
    }  # fmt: skip
    target = f"target = target_of({view.target!r}, loaded.env.action_names, sae)"
    return imports, [
        *lines, target, "obs = torch.from_numpy(moment.obs[None])",
        f"print(saliency_map(loaded.agent, obs, target, {view.method!r}, moment.state, vectors_seen(recording))[0])",
    ]  # fmt: skip


def _plan(recipe: Recipe, view: View) -> Lines:
    imports, lines, changes = _changed(recipe, view)
    imports |= {
        "from rl_interp.analysis.sokoban.plan import arrows, board_in, plans_in",
        "from rl_interp.analysis.sokoban.reading import probes_at",
    }
    given = f"loaded, moment, probes_at(loaded, {view.point!r}, {view.kernel}){changes}"
    thinking = f", thinking={view.thinking}" if view.thinking else ""
    return imports, [
        *lines, f"plans = plans_in({given}{thinking})",
        "for concept, read in plans.probabilities.items():",
        "    print(concept, [arrows(board_in(loaded.env, moment), tick) for tick in read[0, -1]])",
    ]  # fmt: skip


def _maze(recipe: Recipe, view: View) -> Lines:
    imports = {
        _PARSE, "from rl_interp.analysis.mazes.fields import vector_field",
        "from rl_interp.core.envs.maze.text import maze_from_text",
    }  # fmt: skip
    return imports, [
        f"maze = maze_from_text({view.maze!r})",
        _parsed(view, view.maze, recipe.seed),
        "field = vector_field(loaded.agent, maze, changes)",
        "print(field.cells, field.probabilities)",
    ]


_VIEWS = {
    "decision": _decision, "layer": _layer, "features": _features, "feature": _feature, "clusters": _clusters,
    "change": _change, "saliency": _saliency, "plan": _plan, "maze": _maze,
}  # fmt: skip


_PARSE = "from rl_interp.analysis.episodes import parse_changes"


def _parsed(view: View, maze: str, seed: int) -> str:
    return f"changes = parse_changes({list(view.changes)!r}, loaded, sae, {maze!r}, {seed})"


def _changed(recipe: Recipe, view: View) -> tuple[set[str], list[str], str]:
    """The moment on the screen and the changes that are switched on, with the argument that hands them on, if any."""
    imports, lines = _moment(recipe, view)
    if not view.changes:
        return imports, lines, ""
    return imports | {_PARSE}, [*lines, _parsed(view, recipe.maze, recipe.seed)], ", changes"


def _moment(recipe: Recipe, view: View) -> Lines:
    """The moment on the screen."""
    parts = ", ".join(_part(part) for part in recipe.parts)
    maze = f", maze={recipe.maze!r}" if recipe.maze else ""
    return (
        {"from rl_interp.analysis.episodes import Part, Recipe, record"},
        [
            f"recipe = Recipe(seed={recipe.seed}, parts=({parts},){maze})",
            "recording = record(loaded, recipe, sae)",
            f"moment = recording.moment({view.step})",
        ],
    )


def _part(part: Part) -> str:
    given = [f"steps={part.steps}"]
    given += [
        f"{name}={value!r}"
        for name in ("changes", "control", "actions", "edits", "thinking")
        if (value := getattr(part, name))
    ]
    return f"Part({', '.join(given)})"


def _command(loaded: Loaded, sae: Path | None, recipe: Recipe, view: View) -> str:
    run, plain = str(loaded.run.path), not recipe.maze and all(_is_plain(part) for part in recipe.parts)
    words = ["rl-interp"]
    if view.tab == "saliency" and plain:
        words += ["saliency", run, "--checkpoint", loaded.step, "--method", view.method, "--target", view.target]
        words += ["--seed", recipe.seed, "--skip", view.step, "--steps", 1]
    else:
        words += ["explore", run]
    if sae is not None:
        words += ["--sae", sae]
    return shlex.join(map(str, words))


def _is_plain(part: Part) -> bool:
    return not (part.changes or part.actions or part.edits or part.thinking)
