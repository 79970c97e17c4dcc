"""One feature of a dictionary: when it fires, what it tells, and what it does. What it takes to know all features is
computed once, when the first is asked for."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import rl_interp.sae as sae_package
from rl_interp.analysis.sae.concepts import labelled, unlabelled
from rl_interp.analysis.sae.names import Named, names_of
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.analysis.sae.states import states_of
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import read_json
from rl_interp.core.replay import revisit
from rl_interp.sae import ConceptMatch, Features, States

_STATES, _QUANTILE, _BINS = 512, 0.99, 16


@dataclass(frozen=True)
class Peak:
    """One of the strongest moments of a feature."""

    episode: int
    """Its number in the store."""
    step: int
    activation: float
    screen: NDArray[np.uint8]
    """`[H, W, 3]`."""


@dataclass(frozen=True)
class Described:
    """What is known of a feature."""

    feature: int
    named: Named
    density: float
    """Share of the samples in which it fires."""
    largest: float
    """Of its activations."""
    histogram: NDArray[np.int64]
    """`[16]`: of its activations where it fires, from 0 to the largest."""
    peaks: list[Peak]
    """Strongest first, each of another episode."""
    concepts: list[ConceptMatch]
    """That it tells best: chosen in training, scored on held-out episodes."""
    clamp: sae_package.ClampEffect | None
    """What holding it at the 99th percentile of its activations does on held-out states; None where the agent has a
    memory between the layer and its actions."""
    level: float
    """That percentile."""
    statements: list[dict[str, Any]]
    """Hypotheses about it that were tested by `rl-interp sae test`, with their outcomes."""


class Catalogue:
    """A dictionary's features, each described when it is asked for. Serves several threads."""

    def __init__(self, fitted: LoadedSAE, progress: Progress = SILENT):
        self.fitted, self._progress, self._lock = fitted, progress, Lock()

    def describe(self, feature: int, peaks: int = 6) -> Described:
        """One feature, with its strongest moments.

        Raises:
            UserError: there is no such feature, or the recorded episodes can't be played again.
        """
        fitted = self.fitted
        if not 0 <= feature < fitted.sae.d_sae:
            raise UserError(f"feature {feature} was asked for; {fitted.run.path} has 0 to {fitted.sae.d_sae - 1}.")
        with self._lock:
            known, matches, states = self._features, self._matches, self._states
            values = known.values(feature)
            level = float(np.quantile(values, _QUANTILE)) if len(values) else 0.0
            clamp = None if states is None or not len(values) else self._clamp(states, feature, level)
        return Described(
            feature, names_of(fitted.run).get(feature, Named()), len(values) / known.samples,
            float(values.max(initial=0)), known.histogram(feature, _BINS)[0], self._peaks(feature, peaks),
            matches[feature], clamp, level, self._statements(feature),
        )  # fmt: skip

    @cached_property
    def _features(self) -> Features:
        return Features(self.fitted.encoding)

    @cached_property
    def _matches(self) -> list[list[ConceptMatch]]:
        known = labelled(self.fitted, self._progress) or unlabelled(self.fitted)
        train, held_out = (Features(self.fitted.encoded(side)) for side in (known.train, known.held_out))
        return sae_package.match_concepts(train, held_out, known.train_labels, known.held_out_labels, known.names)

    @cached_property
    def _states(self) -> States | None:
        return states_of(self.fitted, self.fitted.held_out_rows, _STATES)

    def _clamp(self, states: States, feature: int, level: float) -> sae_package.ClampEffect:
        [effect] = sae_package.clamp_effects(
            self.fitted.sae, states.x, states.head, torch.tensor([level]), features=[feature],
            continuous=self.fitted.agent.agent.continuous,
        )  # fmt: skip
        return effect

    def _peaks(self, feature: int, count: int) -> list[Peak]:
        fitted, store = self.fitted, self.fitted.store
        episodes = store.column("episode")
        rows = fitted.rows[self._features.top(feature, episodes[fitted.rows // store.positions], count)]
        pairs = zip(fitted.rows[self._features.rows(feature)].tolist(), self._features.values(feature), strict=True)
        strength, screens = dict(pairs), {}
        for seen in revisit(fitted.env, store, rows // store.positions):
            screens[seen.sample] = seen.env.render(), seen.episode, seen.step
        found = []
        for row in rows.tolist():
            screen, episode, step = screens[row // store.positions]
            found.append(Peak(episode, step, float(strength[row]), screen))
        return found

    def _statements(self, feature: int) -> list[dict[str, Any]]:
        path = self.fitted.run.outputs / "analyses" / "hypotheses.json"
        if not path.is_file():
            return []
        tested = read_json(path, "run `rl-interp sae test` again")
        if tested.get("made_from") != self.fitted.made_from:
            return []  # of another dictionary, agent or store
        return [each for each in tested.get("features", []) if each["feature"] == feature]


def as_json(described: Described) -> dict[str, Any]:
    """All but the moments, as plain values."""
    plain = asdict(replace(described, peaks=[]))
    return plain | {"histogram": described.histogram.tolist()}
