"""What the report says, computed from an autoencoder's run."""

from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import rl_interp.sae as sae_package
from rl_interp.analysis.sae.concepts import Labelled, labelled, labels_outdated, unlabelled
from rl_interp.analysis.sae.evaluation import RECOVERED, metrics_json
from rl_interp.analysis.sae.names import Named, names_of
from rl_interp.analysis.sae.pictures import Positions, boxes, clip, feature_saliency, screens
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.analysis.sae.states import states_of
from rl_interp.core.gradients import NoGradientError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import numbers, read_json, require
from rl_interp.core.stats import TOO_FEW, bootstrap, iqm, plain
from rl_interp.sae import SAE, Features

CLAMP_STATES = 512
"""Held-out states on which each feature is clamped."""
CLAMP_QUANTILE = 0.99
"""Of a feature's positive activations: the value it is clamped to."""
_AGAIN = "run `rl-interp sae evaluate` again"


def build(
    fitted: LoadedSAE, top: int = 4, clips: int = 200, maps: int = 24, progress: Progress = SILENT
) -> dict[str, Any]:
    """The report as plain values: summary, controls, concepts and every feature.

    Args:
        top: top frames per feature, each from a different episode.
        clips: number of features, those whose clamping changes most actions, for which what happened around the
            strongest moment is shown too.
        maps: number of these for which what they look at there is shown.
    """
    store, known = fitted.store, labelled(fitted, progress) or unlabelled(fitted)
    rows, episode = fitted.rows, store.column("episode")
    everywhere = Features(fitted.encoding)
    in_train, in_held_out = (Features(fitted.encoded(side)) for side in (known.train, known.held_out))
    labels = known.train_labels, known.held_out_labels
    matches = sae_package.match_concepts(in_train, in_held_out, *labels, known.names)
    detectors = sae_package.best_per_concept(in_train, in_held_out, *labels)
    del in_train, in_held_out
    of_rows = episode[rows // store.positions]
    tops = [rows[everywhere.top(f, of_rows, top)] for f in range(everywhere.d_sae)]
    features = _features(fitted, everywhere, matches, tops, progress)
    del everywhere
    order = sorted(range(len(tops)), key=lambda f: -(features[f]["clamp"] or {"changed": 0.0})["changed"])
    moments = {f: int(tops[f][0]) for f in order if len(tops[f])}
    filmed, mapped = (dict(islice(moments.items(), max(0, count))) for count in (clips, maps))
    films = {row: clip(episode, row // store.positions) for row in filmed.values()}
    shown = np.concatenate(tops)
    wanted = np.concatenate([shown // store.positions, *films.values()])
    pictures = screens(fitted, wanted, {row // store.positions for row in mapped.values()}, progress)
    return {
        "title": f"{store.hook} of {fitted.agent.run.path.name}",
        "source": fitted.agent.source | {"sae": str(fitted.run.path), "command": fitted.run.meta["command"]},
        "config": fitted.run.config,
        "samples": len(rows),
        "positions": store.positions,
        "episodes": int(episode.max()) + 1,
        "actions": list(fitted.agent.env.action_names),
        "continuous": fitted.agent.agent.continuous,
        "preferences": "Q-value" if fitted.agent.has_q_values else "logit",
        "linear_head": fitted.agent.agent.hook_points[fitted.hook].head is not None,
        "metrics": metrics_json(fitted),
        "evaluation": _evaluation(fitted, progress),
        "concepts": _concepts(fitted, known, detectors),
        "why_no_concepts": None if known.names else _why_none(fitted),
        "features": features,
        "screens": {
            "height": pictures.height,
            "width": pictures.width,
            "places": {str(sample): place for sample, place in pictures.places.items()},
            "sheets": pictures.sheets,
        },
        **boxes(fitted, (pictures.height, pictures.width)),
        "clips": {str(row): samples.tolist() for row, samples in films.items()},
        "saliency": feature_saliency(fitted, mapped, pictures.kept, progress),
    }


def _evaluation(fitted: LoadedSAE, progress: Progress) -> dict[str, Any] | None:
    """Returns by condition with their intervals, if `sae evaluate` has measured them."""
    path = fitted.run.outputs / "analyses" / "evaluation.json"
    if not path.is_file():
        return None
    measured = read_json(path, _AGAIN)
    require(measured, path, _AGAIN, returns=dict)
    if measured.get("made_from", fitted.made_from) != fitted.made_from:  # earlier versions did not record it
        progress.warn(
            f"{path} is left out: it is of a different dictionary, agent or activations; run `rl-interp sae evaluate`."
        )
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


def _concepts(fitted: LoadedSAE, known: Labelled, detectors: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Each concept's best detector, chosen in training and scored held out: a feature, and the controls."""
    store, labels = fitted.store, (known.train_labels, known.held_out_labels)

    def best(train: Features, held_out: Features) -> NDArray[np.float64]:
        return sae_package.best_per_concept(train, held_out, *labels)

    random = sae_package.random_dictionary(store, fitted.config, fitted.train_rows)
    sides = known.train, known.held_out
    columns = {
        "feature": detectors,
        "neuron": best(*sae_package.both_signs(*(store.read(rows) for rows in sides))),
        "random": best(*(Features(sae_package.encode_rows(random, store, rows)) for rows in sides)),
    }
    rates = np.concatenate(labels).mean(0)
    return [
        {
            "name": name,
            "meaning": known.meanings[c],
            "rate": float(rates[c]),
            **{detector: _number(scores[c]) for detector, scores in columns.items()},
        }
        for c, name in enumerate(known.names)
    ]


def _why_none(fitted: LoadedSAE) -> str:
    """Why a report has no concepts."""
    if fitted.store.positions == 1 and (outdated := labels_outdated(fitted)):
        return outdated
    return (
        f"{fitted.agent.env.id} has no ground truth for {fitted.hook}, or too few states were collected to tell it by."
    )


def _features(
    fitted: LoadedSAE,
    features: Features,
    matches: list[list[sae_package.ConceptMatch]],
    tops: list[NDArray[np.int64]],
    progress: Progress,
) -> list[dict[str, Any]]:
    sae, store, encoded = fitted.sae, fitted.store, fitted.rows
    levels = features.quantile(CLAMP_QUANTILE)
    effects = clamps = None
    on = states_of(fitted, fitted.held_out_rows, CLAMP_STATES)
    if on is not None:
        with progress.bar("Clamping features", features.d_sae, "features") as update:
            clamps = sae_package.clamp_effects(
                sae, on.x, on.head, torch.from_numpy(levels), progress=update, continuous=fitted.agent.agent.continuous
            )
            if isinstance(on.head, torch.nn.Linear):
                effects = levels[:, None] * sae_package.direct_effects(sae, on.head.weight).numpy()
            elif on.x.dim() == 2:  # without positions
                with suppress(NoGradientError):
                    effects = sae_package.integrated_effects(sae, on.x, on.head).numpy()
    counts, columns = features.counts(), {name: store.column(name) for name in ("episode", "step")}
    alike, places = sae_package.neighbours(features), _map(sae, features)
    actions = store.actions()
    described, where, named = [], Positions(fitted, features), names_of(fitted.run)
    for f in range(features.d_sae):
        values, rows = features.values(f), encoded[features.rows(f)]
        strength = dict(zip(rows.tolist(), values.tolist(), strict=True))
        described.append(
            {
                **asdict(named.get(f, Named())),
                "density": _short(counts[f] / features.samples),
                "max": _short(values.max(initial=0)),
                "histogram": features.histogram(f, 16)[0].tolist(),
                "effects": None if effects is None else _rounded(effects[f]),
                "concepts": [_match(match) for match in matches[f]],
                "clamp": _clamp(levels[f], clamps[f]) if clamps and counts[f] else None,
                "alike": [[near.feature, round(near.similarity, 3), round(near.together, 3)] for near in alike[f]],
                "place": places[f],
                "where": where.rates(f),
                "top": [
                    {"frame": int(r), "activation": _short(strength[int(r)]), "mask": where.mask(f, int(r))}
                    | {k: int(c[r // store.positions]) for k, c in columns.items()}
                    | {"action": _action(actions[r // store.positions])}
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
    # A coarser summary of far points than by default: a quarter faster, and no further from what it approximates.
    settings = {"init": "pca", "random_state": 0, "max_iter": 500, "angle": 0.8}
    method = TSNE(perplexity=min(30, (len(living) - 1) / 3), **settings)
    found = method.fit_transform(directions)  # of unit vectors, distances order pairs as cosines do
    found = (found - found.min(0)) / np.ptp(found, axis=0).clip(min=1e-9)
    for f, place in zip(living.tolist(), found, strict=True):
        places[f] = [round(float(x), 4) for x in place]
    return places


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _short(value: float) -> float:
    """Six digits, of more than which nothing can be seen."""
    return float(f"{value:.6g}")


def _action(taken: Any) -> int | list[float]:
    """The number of an action, or the numbers of a continuous one."""
    return _rounded(taken) if np.ndim(taken) else int(taken)


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def _match(match: sae_package.ConceptMatch) -> dict[str, Any]:
    precision = None if match.precision is None else _short(match.precision)
    return {"concept": match.concept, "auroc": _short(match.auroc), "precision": precision}


def _clamp(level: float, effect: sae_package.ClampEffect) -> dict[str, Any]:
    changed, control = _rounded([effect.changed, effect.changed_control])
    return {
        "level": _short(level), "changed": changed, "changed_control": control, "towards": _rounded(effect.towards)
    }  # fmt: skip
