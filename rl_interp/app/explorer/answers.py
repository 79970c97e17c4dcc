"""What the page asks for. Each answer is a call of what the commands call, as JSON: arrays of floats in base 64."""

import base64
import math
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from starlette.responses import JSONResponse, Response

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import Recording, attributions, effect, features, parse_changes, values
from rl_interp.analysis.episodes.effects import Decision
from rl_interp.analysis.episodes.values import AT_ONCE
from rl_interp.analysis.imagination import dream
from rl_interp.analysis.mazes.fields import vector_field
from rl_interp.analysis.player import Moment
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.analysis.saliency_video import target_of
from rl_interp.app.explorer.asked import Asked
from rl_interp.app.explorer.library import MAX_STEPS, Opened
from rl_interp.app.explorer.reproduce import View, reproduce
from rl_interp.core.config import from_plain
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.text import maze_from_text, maze_text
from rl_interp.core.errors import HookError, RunError, UserError, unknown
from rl_interp.core.hooks import hook_point
from rl_interp.core.receptive_fields import receptive_fields
from rl_interp.core.replay import recordings
from rl_interp.core.store import ActivationStore
from rl_interp.saliency import METHODS, VECTOR_METHODS, is_signed, randomisation_check, saliency_map
from rl_interp.saliency.overlay import overlay

MOST_FRAMES = 64
"""Frames in one answer."""
_DRAWING = Lock()
"""Of PyTorch's random numbers, which all threads share."""
_LISTED, _STORED = 60, 300
"""Features of a moment that are listed, and episodes of a store."""


def runs(asked: Asked) -> Response:
    """Which runs there are."""
    return _json({"runs": asked.library.entries()})


def opened(asked: Asked) -> Response:
    """All about an agent that does not depend on a moment."""
    found = asked.opened()
    loaded, env = found.loaded, found.loaded.env
    mine = asked.library.dictionaries().get(loaded.weights_sha256, [])
    vector = env.observation_kind == "vector"
    return _json(
        {
            "path": str(loaded.run.path),
            "checkpoint": loaded.step,
            "kind": loaded.run.meta["kind"],
            "env": env.id,
            "actions": list(env.action_names),
            "discrete": env.action_kind == "discrete",
            "preferences": loaded.agent.preference_kind,
            "pace": env.steps_per_second,
            "points": {name: point.kind for name, point in loaded.agent.hook_points.items()},
            "concepts": {name: concept.meaning for name, concept in found.concepts.items()},
            "dictionaries": mine,
            "sae": None if found.sae is None else {"hook": found.sae.hook, "features": found.sae.sae.d_sae},
            "methods": list(VECTOR_METHODS if vector else METHODS),
            "observation": list(env.observation_shape),
            "maze": isinstance(env, MazeConfig),
        }
    )


def episode(asked: Asked) -> Response:
    """An episode as far as its recipe goes: what can be drawn along it, from the step `known` on."""
    recording = asked.recording()
    known = max(0, asked.number("known"))
    moments = recording.light()[known:]
    return _json(
        {
            "steps": recording.steps,
            "ended": recording.ended,
            "rewards": _array(recording.rewards[known:]),
            "actions": _array(recording.actions[known:].astype(np.float32)),
            "preferences": _array(np.array([each.preferences for each in moments], np.float32)),
            "values": _array(np.array([np.nan if each.value is None else each.value for each in moments])),
            "observed": _array(np.array([_rectangle(each) for each in moments])),
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
        return _json({"episodes": listed})
    hook = asked.text("hook")
    hook_point(found.loaded.agent, hook)  # and no other path
    known = {each.episode: each for each in recordings(ActivationStore(folder / hook))}
    if asked.number("episode") not in known:
        raise UserError(unknown("episode", asked.number("episode"), known))
    wanted = known[asked.number("episode")]
    return _json({"seed": wanted.seed, "actions": wanted.actions[:MAX_STEPS].tolist()})


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
        held = values(loaded, [moment], at, parse_changes(asked.changes(), loaded, found.sae))[0]
        effects = attributions(loaded, moment, at) if asked.body.get("effects") else np.zeros(0, np.float32)
        places = _places(loaded, moment, at)
    return _json({"values": _array(held), "effects": _array(effects), **places})


def feature_list(asked: Asked) -> Response:
    """The features that fire in a moment, at one place of the frame or anywhere."""
    found = asked.opened()
    sae, moment = _dictionary(found), asked.moment()
    with found.agent(asked.wanted) as loaded:
        fired = features(sae, values(loaded, [moment], sae.hook))[0]
        discrete = loaded.env.action_kind == "discrete"
        effects = attributions(loaded, moment, sae.hook, sae) if discrete else np.zeros(fired.shape[1])
        places = _places(loaded, moment, sae.hook)
    place = asked.body.get("place")
    there = fired.max(0) if place is None else fired[min(max(0, asked.number("place")), len(fired) - 1)]
    active = np.flatnonzero(there > 0)
    rank = np.abs(effects[active]) if asked.body.get("effects") else there[active]
    listed = active[np.argsort(-rank, kind="stable")][:_LISTED]
    return _json(
        {
            "firing": len(active),
            "features": [
                {"feature": int(i), "activation": float(there[i]), "effect": float(effects[i])} for i in listed
            ],
            **places,
        }
    )


def feature(asked: Asked) -> Response:
    """Where one feature fires in a moment."""
    found = asked.opened()
    sae, moment, number = _dictionary(found), asked.moment(), asked.number("feature")
    if not 0 <= number < sae.sae.d_sae:
        raise UserError(f"feature {number} was asked for; {sae.run.path} has 0 to {sae.sae.d_sae - 1}.")
    with found.agent(asked.wanted) as loaded:
        fired = features(sae, values(loaded, [moment], sae.hook))[0, :, number]
        places = _places(loaded, moment, sae.hook)
    return _json({"values": _array(fired), **places})


def track(asked: Asked) -> Response:
    """A number along the episode: `concept:NAME`, `unit:HOOK:N` or `feature:N`; of places the largest."""
    kind, _, rest = asked.text("track").partition(":")
    recording = asked.recording()
    if kind == "concept":
        if rest not in asked.opened().concepts:
            raise UserError(f"{recording.loaded.env.id} has no concept {rest!r}.")
        return _json({"values": _array(np.array([each.labels.get(rest, np.nan) for each in recording.light()]))})
    at, _, number = rest.rpartition(":")
    if kind not in ("unit", "feature") or not number.isdecimal():
        raise UserError(f"track {kind}:{rest!r} was asked for; it is concept:NAME, unit:HOOK:N or feature:N.")
    along = _along(asked, recording, at if kind == "unit" else None)
    if int(number) >= along.shape[1]:
        raise UserError(f"{kind} {number} was asked for; there are 0 to {along.shape[1] - 1}.")
    return _json({"values": _array(along[:, int(number)])})


def changed(asked: Asked) -> Response:
    """What changes do to the decision of a moment, beside random controls of the same size."""
    found, moment = asked.opened(), asked.moment()
    recipe = asked.recipe()
    with found.agent(asked.wanted) as loaded:
        made = parse_changes(asked.changes(), loaded, found.sae, recipe.maze, recipe.seed)
        result = effect(loaded, moment, made, max(1, min(200, asked.number("controls"))))
    return _json(
        {
            **{name: _decision(getattr(result, name)) for name in ("before", "after", "controls")},
            "size": result.size,
            "control_sizes": _array(result.control_sizes),
            "larger_than": result.larger_than,
            "within_controls": result.within_controls,
        }
    )


def saliency(asked: Asked) -> Response:
    """A saliency map over the frame, and how alike it is to that of the agent with its weights shuffled."""
    found, moment = asked.opened(), asked.moment()
    method = asked.text("method")
    target = target_of(asked.text("target"), found.loaded.env.action_names, found.sae)
    if found.loaded.env.observation_kind == "vector":
        recording = asked.recording()
        data = torch.from_numpy(np.stack([recording.moment(t).obs for t in range(min(recording.steps + 1, 1000))]))
    else:
        data = None
    with found.agent(asked.wanted) as loaded:
        obs = torch.from_numpy(moment.obs[None])
        made = saliency_map(loaded.agent, obs, target, method, moment.state, data)
        asked.wanted()
        check = float(randomisation_check(loaded.agent, obs, target, method, moment.state, maps=made, data=data)[0])
    answer = {"signed": is_signed(method, target), "alike": None if math.isnan(check) else check, "name": target.name}
    scale = float(np.quantile(np.abs(made), 0.995)) or 1.0
    if made.ndim == 2:
        return _json(answer | {"inputs": list(found.loaded.env.input_names), "values": _array(made[0])})
    height, width = moment.screen.shape[:2]
    larger = max(1, -(-420 // height))
    shown = overlay(moment.screen, made[0], scale, (height * larger, width * larger), moment.observed, answer["signed"])
    return _json(answer | {"png": _png(shown)})


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
    return _json(
        {
            "imagined": [_png(each) for each in made.pictures],
            "happened": [_png(each) for each in happened],
            "rewards": _array(made.rewards),
            "goes_on": made.goes_on.tolist(),
        }
    )


def maze(asked: Asked) -> Response:
    """The maze as it stands in a moment, as a text."""
    recording, moment = asked.recording(), asked.moment()
    env = _maze_env(recording.loaded)
    start = maze_from_text(recording.recipe.maze) if recording.recipe.maze else Mazes.draw(env, [recording.recipe.seed])
    mouse = [int(moment.labels["row"]), int(moment.labels["column"])]
    return _json({"maze": maze_text(start.edit(mouse=mouse))})


def field(asked: Asked) -> Response:
    """What an agent would do from every free cell of a maze, as it is and under changes."""
    found, there = asked.opened(), maze_from_text(asked.text("maze"))
    _maze_env(found.loaded)
    shown = {"png": _png(there.picture()), "corner": there.corner[0].tolist(), "decision": there.decision[0].tolist()}
    with found.agent(asked.wanted) as loaded:
        made = parse_changes(asked.changes(), loaded, found.sae, asked.text("maze"))
        before = vector_field(loaded.agent, there)
        after = vector_field(loaded.agent, there, made) if made else before
    return _json(
        {
            **shown,
            "cells": _array(before.cells.astype(np.float32)),
            "before": _array(before.arrows),
            "after": _array(after.arrows),
            "values": _array(after.values),
        }
    )


def lines(asked: Asked) -> Response:
    """The Python lines and the command that give what is on the screen."""
    found = asked.opened()
    view = from_plain(View, _mapping(asked.body.get("view")), "the page's address")
    sae = asked.library.path_of(asked.text("sae")) if found.sae is not None else None
    python, command = reproduce(found.loaded, sae, asked.recipe(), view)
    return _json({"python": python, "command": command})


ANSWERS: dict[str, Callable[[Asked], Response]] = {
    "runs": runs, "open": opened, "episode": episode, "stored": stored, "frames": frames, "layer": layer,
    "features": feature_list, "feature": feature, "track": track, "effect": changed, "saliency": saliency,
    "imagined": imagined, "maze": maze, "field": field, "lines": lines,
}  # fmt: skip
"""By the last word of their path."""


def _json(content: dict[str, Any]) -> Response:
    return JSONResponse(content)


def _array(array: NDArray[Any]) -> dict[str, Any]:
    given = np.ascontiguousarray(array, "<f4")
    return {"shape": list(given.shape), "data": base64.b64encode(given.tobytes()).decode()}


def _png(picture: NDArray[np.uint8]) -> str:
    done = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return base64.b64encode(done.tobytes()).decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError("the request has no view.")
    return value


def _decision(decision: Decision) -> dict[str, Any]:
    return {"preferences": _array(decision.preferences), "values": _array(decision.values)}


def _rectangle(moment: Moment) -> list[float]:
    """Where on the screen the agent looks: top, left, bottom, right, and quarter turns."""
    seen = moment.observed
    return [seen.top, seen.left, seen.bottom, seen.right, seen.turns]


def _dictionary(found: Opened) -> LoadedSAE:
    if found.sae is None:
        raise UserError("no dictionary is open; choose one of this agent's, or fit one with rl-interp sae fit.")
    return found.sae


def _maze_env(loaded: Loaded) -> MazeConfig:
    if not isinstance(loaded.env, MazeConfig):
        raise UserError(f"{loaded.run.path} is an agent in {loaded.env.id}; only mazes are edited here so far.")
    return loaded.env


def _places(loaded: Loaded, moment: Moment, at: str) -> dict[str, Any]:
    """The grid of a point's positions, and where on the observation each looks, in shares of its height and width."""
    if hook_point(loaded.agent, at).kind != "spatial":
        return {"grid": None}
    try:
        found = receptive_fields(loaded.agent, at, torch.from_numpy(moment.obs[None]))
    except (UserError, RunError, HookError):
        return {"grid": None}
    height, width = moment.obs.shape[-2:]
    start, stride, size = (np.array(each) / (height, width) for each in (found.start, found.stride, found.size))
    first = start + np.array([0.5, 0.5]) / (height, width)
    return {"grid": list(found.shape), "first": first.tolist(), "stride": stride.tolist(), "field": size.tolist()}


def _along(asked: Asked, recording: Recording, at: str | None) -> NDArray[np.float16]:
    """`[T + 1, D]` of a hook point's units, or of the dictionary's features where it is None: of places the largest."""
    found = asked.opened()
    key = recording.recipe, at
    if (known := found.tracks.get(key)) is not None:
        return known
    sae = _dictionary(found) if at is None else None
    parts = []
    with found.agent(asked.wanted) as loaded:
        for start in range(0, recording.steps + 1, AT_ONCE):
            moments = [recording.moment(step) for step in range(start, min(start + AT_ONCE, recording.steps + 1))]
            held = values(loaded, moments, sae.hook if sae is not None else str(at))
            parts.append((held if sae is None else features(sae, held)).max(1).astype(np.float16))
            asked.wanted()
    return found.tracks.put(key, np.concatenate(parts))
