"""How much of what is known about the game a set of features tells: concept by concept from the best single feature,
from a few features, and from all of them by a probe."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from rl_interp.core.errors import UserError
from rl_interp.sae.data import sample_rows
from rl_interp.sae.evaluation.features import Features, best_per_concept

_COMPONENTS = 64
_FITTED_ROWS = 20_000
FEW = 16
"""Features of a sparse probe."""
_NEGLIGIBLE = 1e-3
"""Directions that vary less, relative to the first, are left to rounding."""


@dataclass(frozen=True)
class Coverage:
    """Of `C` concepts, on held-out episodes; everything is chosen on the training episodes."""

    auroc: NDArray[np.float64]
    """`[C]`: of the feature that tells each best."""
    f1: NDArray[np.float64]
    """`[C]`: of the feature and threshold that detect each best."""
    few_f1: NDArray[np.float64]
    """`[C]`: of a logistic regression on the `FEW` features whose means, with the concept and without, lie farthest
    apart in their own deviations, and the threshold that detects each best (sparse probing; Gurnee et al. 2023,
    arXiv 2305.01610). A feature that fires in a hundredth of the samples can't detect a common concept alone, but a
    few can together."""
    probe: NDArray[np.float64]
    """`[C]`: AUROC of a logistic regression on all features."""


def coverage(
    train: Features,
    held_out: Features,
    train_labels: NDArray[np.bool_],
    held_out_labels: NDArray[np.bool_],
    probe_rows: int = 8_000,
) -> Coverage:
    """Of one set of features; labels are `[N, C]`.

    Raises:
        UserError: a concept that all or no samples of a split have.
    """
    for labels in (train_labels, held_out_labels):
        if not (labels.any(0) & ~labels.all(0)).all():
            raise UserError("a concept that all or no samples of a split have can't be scored; leave it out.")
    few_f1, probe = _probes(train, held_out, train_labels, held_out_labels, probe_rows)
    return Coverage(
        auroc=best_per_concept(train, held_out, train_labels, held_out_labels),
        f1=_best_f1(train, held_out, train_labels, held_out_labels),
        few_f1=few_f1,
        probe=probe,
    )


def coordinates(
    train: NDArray[np.float32], held_out: NDArray[np.float32], seed: int = 0
) -> Iterator[tuple[str, tuple[Features, Features]]]:
    """What to hold a dictionary against, one after the other: the raw neurons, and the components of PCA, ICA and,
    where no activation is negative, NMF, fitted on the training rows. Each component counts in both signs, as its sign
    means nothing."""
    # Here, as scikit-learn takes as long to import as PyTorch.
    from sklearn.decomposition import NMF, PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(seed)
    sample = train[np.sort(rng.choice(len(train), min(_FITTED_ROWS, len(train)), replace=False))]
    strengths = np.linalg.svd(sample[:2048] - sample.mean(0), compute_uv=False)
    count = min(_COMPONENTS, int((strengths > _NEGLIGIBLE * strengths[0]).sum()))
    yield "neurons", both_signs(train, held_out)
    methods = {"PCA": PCA(count, random_state=seed), "ICA": FastICA(count, random_state=seed, max_iter=100, tol=1e-3)}
    if min(train.min(), held_out.min()) >= 0:
        methods["NMF"] = NMF(count, init="nndsvda", random_state=seed, max_iter=100, tol=1e-3)  # pyright: ignore[reportArgumentType]
    for name, method in methods.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as baselines they need not be exact
            method.fit(sample)
            found = _transformed(name, method, train), _transformed(name, method, held_out)
        yield name, both_signs(*found)


def _transformed(name: str, method: Any, rows: NDArray[np.float32]) -> NDArray[np.floating]:
    """A part at a time, as some methods copy what they are given in double precision; NMF's rows depend on one another,
    since they are found together, until all of them have converged."""
    parts = 1 if name == "NMF" else 1 + len(rows) // 8192
    return np.concatenate([method.transform(part) for part in np.array_split(rows, parts)])


def both_signs(train: NDArray[np.floating], held_out: NDArray[np.floating]) -> tuple[Features, Features]:
    """Coordinates `[N, D]` of two splits as features; where some of either are negative, each counts in both signs."""
    if min(train.min(), held_out.min()) < 0:
        train, held_out = (np.concatenate([values, -values], axis=1) for values in (train, held_out))
    return Features.dense(train), Features.dense(held_out)


def _best_f1(
    train: Features, held_out: Features, train_labels: NDArray[np.bool_], held_out_labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """F1 = 2 TP / (2 TP + FP + FN) of "at least the threshold" as a detector. The pair of feature and threshold is
    chosen in training, among all positive activations: a rare concept may be told by the topmost hundredth of a neuron
    that nearly always fires."""
    true, concepts = train_labels.sum(0), np.arange(train_labels.shape[1])
    best, chosen, threshold = np.zeros(len(concepts)), np.zeros(len(concepts), int), np.full(len(concepts), np.inf)
    for feature in range(train.d_sae):
        values = train.values(feature)
        order = np.argsort(-values, kind="stable")[: int((values > 0).sum())]
        values = values[order]
        # What is equal is above a threshold together.
        ends = np.flatnonzero(np.append(values[1:] < values[:-1], True)[: len(values)])
        if not len(ends):
            continue
        hits = train_labels[train.rows(feature)[order]].cumsum(0, dtype=np.int32)[ends]
        scores = 2 * hits / (1 + ends[:, None] + true)
        at = scores.argmax(0)
        better = scores[at, concepts] > best
        best[better], chosen[better] = scores[at, concepts][better], feature
        threshold[better] = values[ends[at[better]]]
    found = np.zeros(len(concepts))
    for concept in concepts:
        named = held_out.rows(chosen[concept])[held_out.values(chosen[concept]) >= threshold[concept]]
        wanted = held_out_labels[:, concept]
        found[concept] = 2 * wanted[named].sum() / (len(named) + wanted.sum())
    return found


def _probes(
    train: Features,
    held_out: Features,
    train_labels: NDArray[np.bool_],
    held_out_labels: NDArray[np.bool_],
    rows: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The F1 of few features, scaled by their deviations, and the AUROC of all, by their largest activations: of an
    L2-penalised logistic regression for each concept, on some of the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    fitted = sample_rows(np.arange(train.samples), rows, np.random.default_rng(0))
    x, held = train.at(fitted).astype(np.float64), held_out.at(np.arange(held_out.samples)).astype(np.float64)
    deviation = np.sqrt(np.maximum(_mean(x.multiply(x)) - _mean(x) ** 2, 0))
    largest = train.largest()
    by_largest, by_deviation = (
        np.divide(1, size, out=np.zeros(len(size)), where=size > 0) for size in (largest, deviation)
    )
    all_of_them = [csr_array(each @ diags_array(by_largest)) for each in (x, held)]

    def scored(sides: Sequence[Any], labels: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How likely a concept is by a regression, on the fitted and on the held-out rows."""
        model = LogisticRegression(C=1.0, max_iter=200, tol=1e-3).fit(sides[0], labels)
        fit, seen = (model.decision_function(side) for side in sides)
        return fit, seen

    few_f1, scores = [], []
    for concept in range(train_labels.shape[1]):
        labels, truth = train_labels[fitted, concept], held_out_labels[:, concept]
        if labels.all() or not labels.any():
            few_f1.append(_detection(np.zeros(len(labels)), labels, np.zeros(len(truth)), truth))
            scores.append(0.5)
            continue
        apart = np.abs(_mean(x[np.flatnonzero(labels)]) - _mean(x[np.flatnonzero(~labels)])) * by_deviation
        few = np.argsort(-apart, kind="stable")[:FEW]
        of_few, seen_few = scored([each[:, few].toarray() * by_deviation[few] for each in (x, held)], labels)
        few_f1.append(_detection(of_few, labels, seen_few, truth))
        scores.append(roc_auc_score(truth, scored(all_of_them, labels)[1]))
    return np.array(few_f1), np.array(scores)


def _mean(rows: csr_array) -> NDArray[np.float64]:
    return np.asarray(rows.mean(0)).ravel()


def _detection(
    fitted: NDArray[np.float64], labels: NDArray[np.bool_], held_out: NDArray[np.float64], truth: NDArray[np.bool_]
) -> float:
    """F1 on held-out samples of "at or above the threshold" that has the highest on those it was fitted to."""
    from sklearn.metrics import f1_score, precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, fitted)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(f1_score(truth, held_out >= thresholds[f1[:-1].argmax()], zero_division=0.0))
