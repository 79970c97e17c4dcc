"""What each feature responds to: its statistics, its strongest moments, and the concepts it tells."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from rl_interp.core.errors import UserError
from rl_interp.sae.encoding import Encoding

_ENTRIES = 2_000_000
"""Activations that are ranked or copied at a time: some ten bytes each on the way, wherever all together are many."""


_AT_ONCE = 256
"""Features that are compared with all others at a time."""


class Features:
    """The active samples of every feature, from an encoding: features in rows, as in a CSR matrix.

    `rows(f)` and `values(f)` are the samples in which feature f fires and its activations there, in
    order of the samples.
    """

    def __init__(self, encoding: Encoding):
        self.samples, self.d_sae = len(encoding), encoding.d_sae
        order = np.argsort(encoding.latents, kind="stable")
        self._sample, self._value = encoding.rows()[order].astype(np.int32), encoding.values[order]
        self._start = np.searchsorted(encoding.latents[order], np.arange(self.d_sae + 1))

    @classmethod
    def dense(cls, activations: NDArray[np.floating]) -> "Features":
        """The same of a dense `[N, F]`, such as raw neurons, as a control. Negative values are kept: there
        a feature "fires" wherever it is not 0."""
        features = cls.__new__(cls)
        features.samples, features.d_sae = activations.shape
        counts = np.count_nonzero(activations, axis=0)
        features._start = np.concatenate([[0], np.cumsum(counts)])
        features._sample = np.empty(counts.sum(), np.int32)
        features._value = np.empty(counts.sum(), np.float32)
        # Column by column: np.nonzero of all would take sixteen bytes an entry on the way.
        for feature, (start, end) in enumerate(pairwise(features._start)):
            column = activations[:, feature]
            features._sample[start:end] = rows = np.flatnonzero(column)
            features._value[start:end] = column[rows]
        return features

    def rows(self, feature: int) -> NDArray[np.int32]:
        return self._sample[self._start[feature] : self._start[feature + 1]]

    def values(self, feature: int) -> NDArray[np.float32]:
        return self._value[self._start[feature] : self._start[feature + 1]]

    def matrix(self) -> csr_array:
        """`[F, N]`, a copy."""
        shape = (self.d_sae, self.samples)
        return csr_array((self._value.astype(np.float64), self._sample.copy(), self._start.copy()), shape=shape)

    def parts(self) -> "Iterator[tuple[slice, Features]]":
        """The features a part at a time, with their numbers, for what takes memory for every entry."""
        start = 0
        while start < self.d_sae:
            within = self._start[start] + _ENTRIES
            end = max(start + 1, int(np.searchsorted(self._start, within, side="right")) - 1)
            part = Features.__new__(Features)
            part.samples, part.d_sae = self.samples, end - start
            entries = slice(self._start[start], self._start[end])
            part._start = self._start[start : end + 1] - self._start[start]
            part._sample, part._value = self._sample[entries], self._value[entries]
            yield slice(start, end), part
            start = end

    def largest(self) -> NDArray[np.float32]:
        """`[F]`: the largest absolute activation of each feature, 0 for one that never fires."""
        return np.array([np.abs(self.values(f)).max(initial=0) for f in range(self.d_sae)], np.float32)

    def at(self, rows: NDArray[np.integer]) -> csr_array:
        """`[n, F]`: the activations in some of the samples, which are in rising order."""
        number = np.full(self.samples, -1, np.int32)
        number[rows] = np.arange(len(rows))
        found = []
        for _, part in self.parts():
            row = number[part._sample]
            kept = row >= 0
            starts = np.concatenate([[0], np.cumsum(kept)])[part._start]
            found.append(csr_array((part._value[kept], row[kept], starts), shape=(part.d_sae, len(rows))))
        return csr_array(vstack(found, format="csr").T)

    def counts(self) -> NDArray[np.int64]:
        """`[F]`: samples in which each feature fires."""
        return np.diff(self._start)

    def quantile(self, q: float) -> NDArray[np.float32]:
        """`[F]`: a quantile of each feature's positive activations, 0 for one that has none."""
        positive = (values[values > 0] for values in map(self.values, range(self.d_sae)))
        return np.array([np.quantile(values, q) if len(values) else 0 for values in positive], np.float32)

    def histogram(self, feature: int, bins: int = 20) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Counts and edges of a feature's positive activations, from 0."""
        values = self.values(feature)
        return np.histogram(values, bins, (0, float(values.max(initial=1e-9))))

    def top(self, feature: int, episodes: NDArray[np.integer], count: int) -> NDArray[np.int32]:
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
        if len(labels) != self.samples:
            raise UserError(f"{len(labels)} labels given for {self.samples} samples; give one row of labels a sample.")
        positives, true = labels.sum(0).astype(np.float64), labels.astype(np.float64)
        negatives = len(labels) - positives
        rank_sum = np.empty((self.d_sae, labels.shape[1]))
        for numbers, part in self.parts():
            # The rank-sum form: the silent samples' rank, all tied, is the base, so that only the others are summed.
            ranks, silent_rank = part._ranks()
            matrix = csr_array((ranks, part._sample, part._start), shape=(part.d_sae, part.samples))
            rank_sum[numbers] = matrix @ true + silent_rank[:, None] * positives
        with np.errstate(invalid="ignore", divide="ignore"):
            return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)

    def precision(self, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
        """`[F, C]`: share of the samples in which each feature fires that have each concept; NaN if it never fires.

        What AUROC hides for a sparse feature: one that fires in a hundredth of the samples with a concept, and
        nowhere else, has an AUROC near 0.5 and a precision of 1.
        """
        fired = csr_array(
            (np.ones(len(self._sample), np.float32), self._sample, self._start), shape=(self.d_sae, self.samples)
        )
        with np.errstate(invalid="ignore"):
            return (fired @ labels.astype(np.float32)) / self.counts()[:, None]

    def _ranks(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mid-ranks among all samples of the entries, less that of the silent samples, and that `[F]`."""
        ranks, silent_rank = np.empty(len(self._value)), np.empty(self.d_sae)
        for feature, (start, end) in enumerate(pairwise(self._start)):
            values = self._value[start:end]
            silent = self.samples - len(values)
            silent_rank[feature] = (values < 0).sum() + (silent + 1) / 2
            own = _mid_ranks(values) + np.where(values > 0, silent, 0)
            ranks[start:end] = own - silent_rank[feature]
        return ranks, silent_rank


@dataclass(frozen=True)
class Neighbour:
    """A feature that fires together with another."""

    feature: int
    similarity: float
    """Cosine of their activations over the samples."""
    together: float
    """Share of the other's samples in which this one fires too."""


def neighbours(features: Features, count: int = 5) -> list[list[Neighbour]]:
    """For each feature the `count` whose activations are most like its own, most alike first; features that never fire
    have none."""
    matrix, counts = features.matrix(), features.counts()
    fired = csr_array((np.sign(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    found: list[list[Neighbour]] = []
    for start in range(0, features.d_sae, _AT_ONCE):  # of all pairs together, most of which share samples, are too many
        of_part = slice(start, start + _AT_ONCE)
        products, shared = (matrix[of_part] @ matrix.T).toarray(), (fired[of_part] @ fired.T).toarray()
        for f, product, both in zip(range(start, features.d_sae), products, shared, strict=False):
            others = np.flatnonzero(product)
            others = others[others != f]
            cosine = product[others] / (norms[f] * norms[others])
            nearest = np.argsort(-cosine, kind="stable")[:count]
            found.append(
                [Neighbour(int(others[i]), float(cosine[i]), float(both[others[i]] / counts[f])) for i in nearest]
            )
    return found


def _mid_ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Ranks from 1, ties sharing their mean."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(values)])
    sizes = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


@dataclass(frozen=True)
class ConceptMatch:
    """The concept a feature tells best: chosen on the training episodes, scored on held-out ones."""

    concept: str
    auroc: float
    precision: float | None
    """Share of the held-out samples in which the feature fires that have the concept; None if it fires in none."""


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
    precision = held_out.precision(held_out_labels)
    usable = np.isfinite(chosen) & np.isfinite(scored)
    ranked = np.argsort(np.where(usable, -chosen, np.inf), axis=1, kind="stable")
    fires = train.counts() > 0

    def match(f: int, c: int) -> ConceptMatch:
        share = float(precision[f, c])
        return ConceptMatch(names[c], float(scored[f, c]), share if np.isfinite(share) else None)

    return [[match(f, c) for c in ranked[f, :count] if usable[f, c]] if fires[f] else [] for f in range(train.d_sae)]


def best_per_concept(
    train: Features, held_out: Features, train_labels: NDArray[np.bool_], held_out_labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """`[C]`: held-out AUROC of the feature that tells each concept best in training; NaN where it can't be told."""
    chosen, scored = train.auroc(train_labels), held_out.auroc(held_out_labels)
    best = np.argmax(np.nan_to_num(chosen, nan=-1.0), axis=0)
    return scored[best, np.arange(len(best))]
