"""What each feature responds to: its statistics, its strongest moments, and the concepts it tells."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae.metrics import Encoding


class Features:
    """The active samples of every feature, from an encoding: features in rows, as in a CSR matrix.

    `rows(f)` and `values(f)` are the samples in which feature f fires and its activations there, in
    order of the samples.
    """

    def __init__(self, encoding: Encoding):
        self.samples, self.d_sae = len(encoding.values), encoding.d_sae
        sample, slot = np.nonzero(encoding.values > 0)
        feature = encoding.indices[sample, slot]
        order = np.argsort(feature, kind="stable")
        self._sample, self._value = sample[order], encoding.values[sample, slot][order]
        self._start = np.searchsorted(feature[order], np.arange(self.d_sae + 1))

    @classmethod
    def dense(cls, activations: NDArray[np.floating]) -> "Features":
        """The same of a dense, non-negative `[N, F]`, such as raw neurons, as a control."""
        index = np.broadcast_to(np.arange(activations.shape[1], dtype=np.int32), activations.shape)
        return cls(Encoding(activations.astype(np.float32), index, activations.shape[1]))

    def rows(self, feature: int) -> NDArray[np.int64]:
        return self._sample[self._start[feature] : self._start[feature + 1]]

    def values(self, feature: int) -> NDArray[np.float32]:
        return self._value[self._start[feature] : self._start[feature + 1]]

    def counts(self) -> NDArray[np.int64]:
        """`[F]`: samples in which each feature fires."""
        return np.diff(self._start)

    def quantile(self, q: float) -> NDArray[np.float32]:
        """`[F]`: a quantile of each feature's positive activations, 0 for one that never fires."""
        return np.array(
            [np.quantile(self.values(f), q) if len(self.values(f)) else 0 for f in range(self.d_sae)], np.float32
        )

    def histogram(self, feature: int, bins: int = 20) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Counts and edges of a feature's positive activations, from 0."""
        values = self.values(feature)
        return np.histogram(values, bins, (0, float(values.max(initial=1e-9))))

    def top(self, feature: int, episodes: NDArray[np.integer], count: int) -> NDArray[np.int64]:
        """The rows of its strongest activations, at most one an episode, strongest first."""
        rows = self.rows(feature)
        strongest = rows[np.argsort(-self.values(feature), kind="stable")]
        _, first = np.unique(episodes[strongest], return_index=True)
        return strongest[np.sort(first)[:count]]

    def auroc(self, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
        """`[F, C]`: the probability that a sample with the concept activates the feature more than one without.

        `labels [N, C]`. Ties, the samples in which it does not fire among them, count half, as in the
        Mann-Whitney statistic. NaN for a concept that all or no samples have.
        """
        positives = labels.sum(0).astype(np.float64)
        negatives = len(labels) - positives
        scores = np.empty((self.d_sae, labels.shape[1]))
        for feature in range(self.d_sae):
            scores[feature] = self._mann_whitney(feature, labels, positives, negatives)
        with np.errstate(invalid="ignore", divide="ignore"):
            return scores / (positives * negatives)

    def _mann_whitney(
        self, feature: int, labels: NDArray[np.bool_], positives: NDArray[np.float64], negatives: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        values = self.values(feature)
        order = np.argsort(values, kind="stable")
        has = labels[self.rows(feature)[order]].astype(np.float64)
        starts = np.flatnonzero(np.diff(values[order], prepend=-1.0))
        tied_positive = np.add.reduceat(has, starts) if len(has) else np.zeros((0, labels.shape[1]))
        size = np.diff(np.append(starts, len(has)))[:, None]
        tied_negative = size - tied_positive
        silent_negative = negatives - tied_negative.sum(0)
        silent_positive = positives - tied_positive.sum(0)
        below = silent_negative + np.cumsum(tied_negative, 0) - tied_negative
        wins = (tied_positive * (below + 0.5 * tied_negative)).sum(0)
        return wins + 0.5 * silent_positive * silent_negative


@dataclass(frozen=True)
class ConceptMatch:
    """The concept a feature tells best: chosen on the training episodes, scored on held-out ones."""

    concept: str
    auroc: float


def match_concepts(
    train: Features,
    held_out: Features,
    train_labels: NDArray[np.bool_],
    held_out_labels: NDArray[np.bool_],
    names: list[str],
    count: int = 3,
) -> list[list[ConceptMatch]]:
    """For each feature its `count` best concepts by training AUROC, each with its held-out AUROC.

    Features that fire in no training sample, and concepts that a split lacks, get no match.
    """
    chosen, scored = train.auroc(train_labels), held_out.auroc(held_out_labels)
    usable = np.isfinite(chosen) & np.isfinite(scored)
    ranked = np.argsort(np.where(usable, -chosen, np.inf), axis=1, kind="stable")
    fires = train.counts() > 0
    return [
        [ConceptMatch(names[c], float(scored[f, c])) for c in ranked[f, :count] if usable[f, c]] if fires[f] else []
        for f in range(train.d_sae)
    ]


def best_per_concept(
    train: Features, held_out: Features, train_labels: NDArray[np.bool_], held_out_labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """`[C]`: held-out AUROC of the feature that tells each concept best in training; NaN where it can't be told."""
    chosen, scored = train.auroc(train_labels), held_out.auroc(held_out_labels)
    best = np.argmax(np.nan_to_num(chosen, nan=-1.0), axis=0)
    return scored[best, np.arange(len(best))]
