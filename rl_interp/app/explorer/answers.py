"""What the page asks for. Each answer is a call of what the commands call, as JSON: arrays of floats in base 64."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from starlette.responses import Response

import rl_interp.app.explorer.editors as editors
import rl_interp.app.explorer.features as features
import rl_interp.app.explorer.plans as plans
from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import (
    Clustered,
    Recording,
    attributions,
    clustered,
    clustered_alike,
    effect,
    film,
    saliency_along,
    values,
    values_along,
    vectors_seen,
)
from rl_interp.analysis.episodes import features as encoded
from rl_interp.analysis.episodes.clusters import MOMENTS as CLUSTER_MOMENTS
from rl_interp.analysis.episodes.clusters import PLANES, PlaneName, PrincipalAxes
from rl_interp.analysis.imagination import dream
from rl_interp.analysis.player import Moment
from rl_interp.analysis.sae.names import names_of
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.analysis.saliency_video import target_of
from rl_interp.app.explorer.asked import Asked
from rl_interp.app.explorer.library import MAX_STEPS, Asking
from rl_interp.app.explorer.reproduce import View, reproduce
from rl_interp.app.explorer.wire import answer, array, decision, png
from rl_interp.core.config import from_plain
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.hooks import hook_point
from rl_interp.core.receptive_fields import has_positions
from rl_interp.core.replay import recordings
from rl_interp.core.store import ActivationStore
from rl_interp.saliency import METHODS, VECTOR_METHODS, default_target, is_signed, randomisation_check, saliency_map
from rl_interp.saliency.overlay import overlay

MOST_FRAMES = 64
"""Frames in one answer."""
_SHARE = re.compile(r"[01](\.\d{1,3})?")
_DRAWING = Lock()
"""Of PyTorch's random numbers, which all threads share."""
_STORED, _OTHERS, _BESIDE = 300, 1500, 3
"""Episodes of a store that are listed, points of a scatter plot, and layers beside another whose clusters are shown."""


def runs(asked: Asked) -> Response:
    """Which runs there are."""
    return answer({"runs": asked.library.entries()})


def opened(asked: Asked) -> Response:
    """All about an agent that does not depend on a moment."""
    found = asked.opened()
    loaded, env = found.loaded, found.loaded.env
    mine = asked.library.dictionaries().get(loaded.weights_sha256, [])
    vector = env.observation_kind == "vector"
    return answer(
        {
            "path": str(loaded.run.path),
            "checkpoint": loaded.step,
            "kind": loaded.run.meta["kind"],
            "env": env.id,
            "actions": list(env.action_names),
            "discrete": env.action_kind == "discrete",
            "preferences": loaded.agent.preference_kind,
            "pace": env.steps_per_second,
            "points": {
                name: "spatial" if has_positions(point) else point.kind
                for name, point in loaded.agent.hook_points.items()
            },
            "repeated": [name for name, point in loaded.agent.hook_points.items() if point.has_ticks],
            "concepts": {name: concept.meaning for name, concept in found.concepts.items()},
            "dictionaries": mine,
            "sae": None if found.sae is None else _about_dictionary(found.sae),
            "methods": list(VECTOR_METHODS if vector else METHODS),
            "target": default_target(loaded.agent.continuous),
            "observation": list(env.observation_shape),
            "maze": isinstance(env, MazeConfig),
            "plan": isinstance(env, SokobanConfig),
            "editable": found.editable,
            "planes": [each for each in PLANES if each != "umap" or find_spec("umap") is not None],
        }
    )


def episode(asked: Asked) -> Response:
    """An episode as far as its recipe goes: what can be drawn along it, from the step `known` on."""
    recording = asked.recording()
    known = max(0, asked.number("known"))
    moments = recording.light()[known:]
    return answer(
        {
            "steps": recording.steps,
            "ended": recording.ended,
            "rewards": array(recording.rewards[known:]),
            "actions": array(recording.actions[known:].astype(np.float32)),
            "preferences": array(np.array([each.preferences for each in moments], np.float32)),
            "values": array(np.array([np.nan if each.value is None else each.value for each in moments])),
            "observed": array(np.array([_rectangle(each) for each in moments])),
        }
    )


def stored(asked: Asked) -> Response:
    """The episodes of the agent's activation stores; of one that is named, its seed and actions."""
    found = asked.opened()
    folder = found.loaded.run.outputs / "activations"
    if asked.body.get("hook") is None:
        stores = [ActivationStore(path.parent) for path in sorted(folder.glob("*/manifest.json"))]
        listed = [
            {"hook": store.hook, "episode": each.episode, "seed": each.seed, "steps": len(each.actions)}
            for store in stores
            for each in recordings(store)[:_STORED]
        ]
        return answer({"episodes": listed})
    hook = asked.text("hook")
    hook_point(found.loaded.agent, hook)  # and no other path
    known = {each.episode: each for each in recordings(ActivationStore(folder / hook))}
    if asked.number("episode") not in known:
        raise UserError(unknown("episode", asked.number("episode"), known))
    wanted = known[asked.number("episode")]
    return answer({"seed": wanted.seed, "actions": wanted.actions[:MAX_STEPS].tolist()})


def frames(asked: Asked) -> Response:
    """Screens before some steps: PNGs, each after its length in four bytes."""
    recording, wanted = asked.recording(), asked.body.get("steps")
    if not isinstance(wanted, list) or len(wanted) > MOST_FRAMES or not all(isinstance(each, int) for each in wanted):
        raise UserError(f"the request has no list of at most {MOST_FRAMES} steps.")
    pictures = [recording.png(step) for step in wanted]
    return Response(b"".join(len(each).to_bytes(4, "little") + each for each in pictures), media_type="image/png")


def layer(asked: Asked) -> Response:
    """What a hook point holds in a moment, and what each unit does for the chosen action."""
    found, at = asked.opened(), asked.text("point")
    moment = asked.moment()
    with found.agent(asked.wanted) as loaded:
        changes = asked.changes(loaded)
        held, effects = values(loaded, [moment], at, changes)[0], np.zeros(0, np.float32)
        if asked.body.get("effects"):
            effects = attributions(loaded, moment, at, changes=changes)
        where = found.places(loaded, moment, at)
    return answer({"values": array(held), "effects": array(effects), **where})


def track(asked: Asked) -> Response:
    """A number along the episode: `concept:NAME`, `unit:HOOK:N` or `feature:N`, of places the largest, or
    `saliency:METHOD:TARGET:ROW,COLUMN`, at a place in shares of the observation's height and width."""
    kind, _, rest = asked.text("track").partition(":")
    recording = asked.recording()
    if kind == "saliency":
        return _saliency_track(asked, recording, rest)
    if kind == "concept":
        if rest not in asked.opened().concepts:
            raise UserError(f"{recording.loaded.env.id} has no concept {rest!r}.")
        return answer({"values": array(np.array([each.labels.get(rest, np.nan) for each in recording.light()]))})
    at, _, number = rest.rpartition(":")
    if kind not in ("unit", "feature") or not number.isdecimal():
        raise UserError(
            f"track {kind}:{rest!r} was asked for; it is concept:NAME, unit:HOOK:N, feature:N or saliency:…."
        )
    along = _along(asked, recording, at if kind == "unit" else None)
    if int(number) >= along.shape[1]:
        raise UserError(f"{kind} {number} was asked for; there are 0 to {along.shape[1] - 1}.")
    return answer({"values": array(along[:, int(number)])})


def _saliency_track(asked: Asked, recording: Recording, text: str) -> Response:
    method, _, rest = text.partition(":")
    target, _, place = rest.rpartition(":")
    row, _, column = place.partition(",")
    if not (_SHARE.fullmatch(row) and _SHARE.fullmatch(column)):
        raise UserError(f"place {place!r} given for a track; it is ROW,COLUMN in shares of the observation's sides.")
    found = asked.opened()
    wanted = target_of(target, found.loaded.env.action_names, found.sae)
    with found.agent(asked.wanted) as loaded:
        mine = replace(recording, loaded=loaded)
        along = saliency_along(mine, method, wanted, (float(row), float(column)), Asking(asked.wanted))
    return answer({"values": array(along)})


def changed(asked: Asked) -> Response:
    """What changes do to the decision of a moment, beside random controls of the same size."""
    found, moment = asked.opened(), asked.moment()
    with found.agent(asked.wanted) as loaded:
        result = effect(loaded, moment, asked.changes(loaded), max(1, min(200, asked.number("controls"))))
    return answer(
        {
            **{name: decision(getattr(result, name)) for name in ("before", "after", "controls")},
            "size": result.size,
            "control_sizes": array(result.control_sizes),
            "larger_than": result.larger_than,
            "within_controls": result.within_controls,
        }
    )


def saliency(asked: Asked) -> Response:
    """A saliency map over the frame, and how alike it is to that of the agent with its weights shuffled."""
    found, moment = asked.opened(), asked.moment()
    method = asked.text("method")
    target = target_of(asked.text("target"), found.loaded.env.action_names, found.sae)
    data = vectors_seen(asked.recording())
    with found.agent(asked.wanted) as loaded:
        obs = torch.from_numpy(moment.obs[None])
        made = saliency_map(loaded.agent, obs, target, method, moment.state, data)
        asked.wanted()
        check = float(randomisation_check(loaded.agent, obs, target, method, moment.state, maps=made, data=data)[0])
    about = {"signed": is_signed(method, target), "alike": None if math.isnan(check) else check, "name": target.name}
    scale = float(np.quantile(np.abs(made), 0.995)) or 1.0
    if made.ndim == 2:
        return answer(about | {"inputs": list(found.loaded.env.input_names), "values": array(made[0])})
    height, width = moment.screen.shape[:2]
    larger = max(1, -(-420 // height))
    shown = overlay(moment.screen, made[0], scale, (height * larger, width * larger), moment.observed, about["signed"])
    return answer(about | {"png": png(shown)})


def imagined(asked: Asked) -> Response:
    """What a world model imagines after a moment, beside what happened, under the same actions."""
    found, recording, step = asked.opened(), asked.recording(), asked.number("step")
    until = min(recording.steps, step + min(MOST_FRAMES, max(1, asked.number("horizon"))))
    if until <= step:
        raise UserError("there is nothing to imagine beside: choose a frame before the last.")
    with found.agent(asked.wanted) as loaded, _DRAWING:
        made = dream(loaded, recording.moment(step), recording.actions[step:until].tolist(), asked.number("seed"))
    env = found.loaded.env
    happened = [env.picture(recording.moment(at).obs) for at in range(step + 1, until + 1)]
    return answer(
        {
            "imagined": [png(each) for each in made.pictures],
            "happened": [png(each) for each in happened],
            "rewards": array(made.rewards),
            "goes_on": made.goes_on.tolist(),
        }
    )


def clusters(asked: Asked) -> Response:
    """The clusters of a layer's positions over the episode, and where those of this moment and of others lie; and of
    layers beside it, with clusters numbered alike."""
    found, recording, at = asked.opened(), asked.recording(), asked.text("point")
    count, plane, beside = max(2, min(20, asked.number("count"))), asked.text("plane"), asked.texts("beside", _BESIDE)
    moment = asked.moment()
    with found.agent(asked.wanted) as loaded:
        first, others = found.clusters(
            (recording.recipe, at, count, plane), lambda: _clustered(loaded, recording, at, count, plane)
        )
        made = [first]
        for other in beside:
            asked.wanted()
            key = recording.recipe, at, count, other
            made.append(found.clusters(key, lambda at=other: clustered_alike(first, loaded, _spread(recording), at)))
        held = [values(loaded, [moment], each.at)[0] for each in made]
        layers = [
            {
                "point": each.at,
                "assigned": each.assign(mine).tolist(),
                "alike": array(each.alike),
                **found.places(loaded, moment, each.at),
            }
            for each, mine in zip(made, held, strict=True)
        ]
    share = first.plane.share if isinstance(first.plane, PrincipalAxes) else None
    return answer(
        {
            "layers": layers,
            "points": array(first.place(held[0])),
            "others": array(others[:, :2]),
            "of_others": others[:, 2].astype(int).tolist(),
            "share": share,
        }
    )


def _spread(recording: Recording) -> list[Moment]:
    """Moments of the whole episode, as many as clusters are found in."""
    every = max(1, -(-(recording.steps + 1) // CLUSTER_MOMENTS))
    return [recording.moment(step) for step in range(0, recording.steps + 1, every)]


def _clustered(
    loaded: Loaded, recording: Recording, at: str, count: int, plane: str
) -> tuple[Clustered, NDArray[np.float64]]:
    """The clusters, and at most `_OTHERS` positions of other moments `[N, 3]`: place on the plane, and cluster."""
    moments = _spread(recording)
    made = clustered(loaded, moments, at, count, plane=cast(PlaneName, plane))
    held = values(loaded, moments, at)
    flat = held.reshape(-1, held.shape[-1])
    flat = flat[np.random.default_rng(0).permutation(len(flat))[:_OTHERS]]
    return made, np.concatenate([made.place(flat), made.assign(flat)[:, None]], 1, dtype=np.float64)


def filmed(asked: Asked) -> Response:
    """The episode as a film, with a unit or feature laid over it if one is named."""
    found, recording = asked.opened(), asked.recording()
    with found.agent(asked.wanted) as loaded, TemporaryDirectory() as folder:
        mine = replace(recording, loaded=loaded)
        written = film(mine, Path(folder) / "film.mp4", asked.text("of"), found.sae, Asking(asked.wanted))
        return Response(written.read_bytes(), media_type="video/mp4")


def lines(asked: Asked) -> Response:
    """The Python lines and the command that give what is on the screen."""
    found = asked.opened()
    view = from_plain(View, asked.mapping("view"), "the page's address")
    sae = asked.library.path_of(asked.text("sae")) if found.sae is not None else None
    python, command = reproduce(found.loaded, sae, asked.recipe(), view)
    return answer({"python": python, "command": command})


ANSWERS: dict[str, Callable[[Asked], Response]] = {
    "runs": runs, "open": opened, "episode": episode, "stored": stored, "frames": frames, "layer": layer,
    "features": features.feature_list, "feature": features.feature, "described": features.described,
    "named": features.named, "track": track, "effect": changed, "saliency": saliency, "imagined": imagined,
    "clusters": clusters, "plan": plans.plan,
    "film": filmed, "editing": editors.state, "maze": editors.maze, "field": editors.field, "lines": lines,
}  # fmt: skip
"""By the last word of their path."""


def _about_dictionary(sae: LoadedSAE) -> dict[str, Any]:
    named = {str(feature): asdict(each) for feature, each in names_of(sae.run).items()}
    return {"hook": sae.hook, "features": sae.sae.d_sae, "names": named}


def _rectangle(moment: Moment) -> list[float]:
    """Where on the screen the agent looks: top, left, bottom, right, and quarter turns."""
    seen = moment.observed
    return [seen.top, seen.left, seen.bottom, seen.right, seen.turns]


def _along(asked: Asked, recording: Recording, at: str | None) -> NDArray[np.float16]:
    """`[T + 1, D]` of a hook point's units, or of the dictionary's features where it is None, of places the largest, as
    they were when the agent played."""
    found = asked.opened()
    key = recording.recipe, at
    if (known := found.tracks.get(key)) is not None:
        return known
    sae = found.dictionary if at is None else None
    parts = []
    with found.agent(asked.wanted) as loaded:
        mine, point = replace(recording, loaded=loaded), sae.hook if sae is not None else str(at)
        for held in values_along(mine, point, found.sae):
            parts.append((held if sae is None else encoded(sae, held)).max(1).astype(np.float16))
            asked.wanted()
    return found.tracks.put(key, np.concatenate(parts))
