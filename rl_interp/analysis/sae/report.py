"""What the report says, computed from an autoencoder's run."""

import base64
import io
from collections.abc import Callable
from dataclasses import asdict
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import rl_interp.sae as sae_package
from rl_interp.analysis.sae.concepts import Labelled, labelled
from rl_interp.analysis.sae.evaluation import RECOVERED, metrics_json
from rl_interp.analysis.sae.report_saliency import feature_saliency
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.analysis.sae.states import decisions
from rl_interp.app.progress import progress_bar, warn
from rl_interp.core.errors import UserError
from rl_interp.core.read import numbers, read_json, require
from rl_interp.core.receptive_fields import receptive_fields
from rl_interp.core.replay import revisit
from rl_interp.core.stats import TOO_FEW, bootstrap, iqm, plain
from rl_interp.sae import SAE, Features

CLAMP_STATES = 512
"""Held-out states on which each feature is clamped."""
CLAMP_QUANTILE = 0.99
"""Of a feature's positive activations: the value it is clamped to."""
CLIP = 8
"""Decisions before and after a feature's strongest moment that its clip shows."""
FRAME = (255, 0, 200)
"""RGB of the frame around a position: a colour that no game has."""
CLIP_PACE = 100
"""Milliseconds a decision."""


_AGAIN = "run `rl-interp sae evaluate` again"


def build(fitted: LoadedSAE, top: int = 4, clips: int = 200, maps: int = 24) -> dict[str, Any]:
    """The report as plain values: summary, controls, concepts and every feature.

    Args:
        top: top frames per feature, each from another episode.
        clips: of how many features, those whose clamping changes most actions, what happened around the strongest
            moment is shown too.
        maps: of how many of them what they look at there is shown.

    Raises:
        UserError: nothing is known of the rows.
    """
    store, known = fitted.store, labelled(fitted)
    if known is None:
        raise UserError(
            f"nothing is known of what {store.path} holds, which the report needs: {fitted.agent.env.id} has no ground "
            f"truth for {fitted.hook!r}, or too few decisions were collected."
        )
    rows = fitted.rows
    everywhere = Features(sae_package.encode_rows(fitted.sae, store, rows))
    in_train, in_held_out = (
        Features(sae_package.encode_rows(fitted.sae, store, side)) for side in (known.train, known.held_out)
    )
    matches = sae_package.match_concepts(in_train, in_held_out, known.train_labels, known.held_out_labels, known.names)
    episodes = store.column("episode", rows)
    tops = [rows[everywhere.top(f, episodes, top)] for f in range(everywhere.d_sae)]
    features = _features(fitted, everywhere, matches, tops)
    order = sorted(range(len(tops)), key=lambda f: -(features[f]["clamp"] or {"changed": 0.0})["changed"])
    moments = {f: int(tops[f][0]) for f in order if len(tops[f])}
    filmed, mapped = (dict(islice(moments.items(), max(0, count))) for count in (clips, maps))
    frames, films = _frames(fitted, np.unique(np.concatenate(tops)).astype(np.int64), set(filmed.values()))
    return {
        "title": f"{store.hook} of {fitted.agent.run.path.name}",
        "source": fitted.agent.source | {"sae": str(fitted.run.path), "command": fitted.run.meta["command"]},
        "config": fitted.run.config,
        "samples": len(rows),
        "positions": store.positions,
        "episodes": int(store.column("episode").max()) + 1,
        "actions": list(fitted.agent.env.action_names),
        "preferences": "Q-value" if fitted.agent.has_q_values else "logit",
        "linear_head": fitted.agent.agent.hook_points[fitted.hook].head is not None,
        "metrics": metrics_json(fitted),
        "evaluation": _evaluation(fitted),
        "concepts": _concepts(fitted, known),
        "features": features,
        "frames": frames,
        "clips": films,
        "saliency": feature_saliency(fitted, mapped),
    }


def _evaluation(fitted: LoadedSAE) -> dict[str, Any] | None:
    """Returns by condition with their intervals, if `sae evaluate` has measured them."""
    path = fitted.run.path / "analyses" / "evaluation.json"
    if not path.is_file():
        return None
    measured = read_json(path, _AGAIN)
    require(measured, path, _AGAIN, returns=dict)
    if measured.get("made_from", fitted.made_from) != fitted.made_from:  # earlier versions did not record it
        warn(f"{path} is left out: dictionary, agent or activations were others then; run `rl-interp sae evaluate`.")
        return None
    conditions = {}
    for condition in measured["returns"]:
        returns = numbers(measured["returns"], condition, path, _AGAIN)
        conditions[condition] = {
            "episodes": len(returns), "mean": float(np.mean(returns)), "iqm": iqm(returns),
            "interval": plain(bootstrap([returns])),
        }  # fmt: skip
    recovered = []
    for name, ablation in RECOVERED.items():
        if name in measured:  # earlier versions measured less
            interval = f"{name}_interval"
            if measured[name] is not None:
                require(measured, path, _AGAIN, **{name: float})
            if measured.get(interval) is not None:  # too few episodes have none
                numbers(measured, interval, path, _AGAIN)
            recovered.append({"from": ablation, "value": measured[name], "interval": measured.get(interval)})
    return {"conditions": conditions, "recovered": recovered, "too_few": TOO_FEW}


def _concepts(fitted: LoadedSAE, known: Labelled) -> list[dict[str, Any]]:
    """Each concept's best detector, chosen in training and scored held out: a feature, and the controls."""
    store, labels = fitted.store, (known.train_labels, known.held_out_labels)

    def best(sae: SAE) -> NDArray[np.float64]:
        train, held_out = (
            Features(sae_package.encode_rows(sae, store, rows)) for rows in (known.train, known.held_out)
        )
        return sae_package.best_per_concept(train, held_out, *labels)

    random = sae_package.random_dictionary(store, fitted.config, fitted.train_rows)
    neurons = sae_package.both_signs(store.read(known.train), store.read(known.held_out))
    rates = np.concatenate(labels).mean(0)
    columns = {
        "feature": best(fitted.sae),
        "neuron": sae_package.best_per_concept(*neurons, *labels),
        "random": best(random),
    }
    return [
        {
            "name": name,
            "meaning": known.meanings[c],
            "rate": float(rates[c]),
            **{kind: _number(scores[c]) for kind, scores in columns.items()},
        }
        for c, name in enumerate(known.names)
    ]


def _features(
    fitted: LoadedSAE, features: Features, matches: list, tops: list[NDArray[np.int64]]
) -> list[dict[str, Any]]:
    sae, store, encoded = fitted.sae, fitted.store, fitted.rows
    levels = features.quantile(CLAMP_QUANTILE)
    effects = clamps = None
    on = decisions(fitted, fitted.held_out_rows, CLAMP_STATES)
    if on is not None:
        with progress_bar("Clamping features", 1, "pass"):
            clamps = sae_package.clamp_effects(sae, on.x, on.head, torch.from_numpy(levels))
            if isinstance(on.head, torch.nn.Linear):
                effects = levels[:, None] * sae_package.direct_effects(sae, on.head.weight).numpy()
            elif store.positions == 1:
                effects = sae_package.integrated_effects(sae, on.x, on.head).numpy()
    counts, columns = features.counts(), {name: store.column(name) for name in ("episode", "step", "action")}
    alike, places = sae_package.neighbours(features), _map(sae, features)
    described = []
    for f in range(features.d_sae):
        values, rows = features.values(f), encoded[features.rows(f)]
        strength = dict(zip(rows.tolist(), values.tolist(), strict=True))
        described.append(
            {
                "density": counts[f] / features.samples,
                "max": float(values.max(initial=0)),
                "histogram": features.histogram(f, 16)[0].tolist(),
                "effects": None if effects is None else _rounded(effects[f]),
                "concepts": [asdict(match) for match in matches[f]],
                "clamp": {"level": float(levels[f]), **_rounded_all(asdict(clamps[f]))}
                if clamps and counts[f]
                else None,
                "alike": [[near.feature, round(near.similarity, 3), round(near.together, 3)] for near in alike[f]],
                "place": places[f],
                "top": [
                    {"frame": int(r), "activation": strength[int(r)]}
                    | {k: int(c[r // store.positions]) for k, c in columns.items()}
                    for r in tops[f]
                ],
            }
        )
    return described


def _map(sae: SAE, features: Features) -> list[list[float] | None]:
    """A place on a map for each living feature, in [0, 1]²: near where decoder directions are alike (t-SNE of cosines,
    van der Maaten & Hinton 2008)."""
    from sklearn.manifold import TSNE

    places: list[list[float] | None] = [None] * features.d_sae
    living = np.flatnonzero(features.counts())
    if len(living) < 8:
        return places
    directions = sae.W_dec.detach().numpy()[living]
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    method = TSNE(perplexity=min(30, (len(living) - 1) / 3), init="pca", random_state=0, max_iter=500)
    found = method.fit_transform(directions)  # of unit vectors, distances order pairs as cosines do
    found = (found - found.min(0)) / np.ptp(found, axis=0).clip(min=1e-9)
    for f, place in zip(living.tolist(), found, strict=True):
        places[f] = [round(float(x), 4) for x in place]
    return places


def _frames(fitted: LoadedSAE, rows: NDArray[np.int64], moments: set[int]) -> tuple[dict[str, str], dict[str, str]]:
    """Row to the screen that the agent saw there, as a PNG in base64, by playing the episodes again; and for those that
    are `moments` the screens around it, as a WebP. A row that is a position has it framed."""
    store, framed = fitted.store, _framer(fitted)
    number, samples = store.column("episode"), rows // store.positions

    def around(sample: int) -> NDArray[np.int64]:
        near = np.arange(max(0, sample - CLIP), min(store.samples, sample + CLIP + 1))
        return near[number[near] == number[sample]]

    wanted = np.concatenate([samples, *(around(row // store.positions) for row in moments)])
    states = revisit(fitted.agent.env, store, wanted)
    frames, clips = {}, {}
    with progress_bar("Playing top frames again", len(np.unique(number[samples])), "episodes") as update:
        for done, (episode, of_episode) in enumerate(groupby(states, key=lambda state: state.episode)):
            screens = {state.sample: state.env.render() for state in of_episode}
            for row in rows[number[samples] == episode].tolist():
                sample = row // store.positions
                frames[str(row)] = _png(framed(screens[sample], row))
                if row in moments:
                    clips[str(row)] = _webp([framed(screens[at], row) for at in around(sample)])
            update(done + 1)
    return frames, clips


def _framer(fitted: LoadedSAE) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]:
    """Draws a frame on a screen around what a row of the store is about; none where it is all of the screen."""
    shape, count = fitted.agent.env.observation_shape, fitted.store.positions
    if count == 1:
        return lambda screen, row: screen
    place = receptive_fields(fitted.agent.agent, fitted.hook, torch.zeros(1, *shape, dtype=torch.uint8))
    centres, half = place.pixels(), np.array(place.stride) / 2

    def framed(screen: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
        scale = np.array(screen.shape[:2]) / shape[1:]
        at = np.array([centre[i] + 0.5 for centre, i in zip(centres, divmod(row % count, place.shape[1]), strict=True)])
        (top, left), (bottom, right) = ((at + way * half) * scale for way in (-1, 1))
        image = Image.fromarray(screen)
        line = max(1, round(screen.shape[0] / 128))
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=line)
        return np.asarray(image)

    return framed


def _png(screen: NDArray[np.uint8]) -> str:
    """A console's screen has few colours, so a palette keeps it small."""
    image = Image.fromarray(screen).quantize(32, dither=Image.Dither.NONE)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=False, compress_level=9)
    return base64.b64encode(file.getvalue()).decode()


def _webp(screens: list[NDArray[np.uint8]]) -> str:
    first, *others = (Image.fromarray(screen) for screen in screens)
    file = io.BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=others, duration=CLIP_PACE, loop=0, lossless=True, method=0)
    return base64.b64encode(file.getvalue()).decode()


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def _rounded_all(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _rounded(v) if isinstance(v, list) else round(v, 4) for name, v in values.items()}
