"""Claims about features, tested: "feature 12 held high makes RIGHT more likely".

A hypothesis is about what the agent does, so it is tested by intervening: on held-out states the feature is set to a
value, everything else left as it is, and the probability of the actions is compared with what it was, and with what
random directions of the same norm do over the same distances. Any direction differs from the mean of many others, so a
hypothesis has to stand out from them one by one. It must come from elsewhere than from such interventions: the most
effective of 2,048 random directions stand out as well.

An interval over episodes alone, held against the mean of the random directions, would pass nearly every direction,
since each differs from the mean of the others. Hypotheses that are proposed were selected, so their control is
selected too: the features of a random dictionary, put to the same test. Chosen by clamping, features of a random
dictionary change more actions than those of a fitted one; so features are chosen by what the agent does when they
fire. That too favours directions to which the head listens, in a random dictionary as well.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.errors import UserError, unknown
from rl_interp.sae.evaluation.effects import activation, moves, random_directions
from rl_interp.sae.evaluation.features import Features
from rl_interp.sae.model import SAE

CONTROLS = 100
"""Random directions."""
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Of the value that counts as high."""
_PRIOR = 50
"""Samples with the usual shares of actions that are counted to each feature's own, so that rare ones weigh less."""
_T = (np.arange(200) + 0.5) / 200
"""Quantiles by which Student's distribution is represented."""
_FORM = re.compile(r"\s*(\S+)\s+(high|off)\s*:\s*(.+?)\s+(more|less)\s*")


@dataclass(frozen=True)
class Hypothesis:
    """`FEATURE high|off: ACTION[,ACTION...] more|less`."""

    feature: int
    change: Literal["high", "off"]
    actions: tuple[int, ...]
    claim: Literal["more", "less"]
    text: str

    @classmethod
    def parse(cls, text: str, actions: Sequence[str], feature_of: Callable[[str], int]) -> "Hypothesis":
        """From e.g. `12 high: LEFT,UPLEFT less`; `feature_of` names the feature of what is no number, a concept.

        Raises:
            UserError: a different form, or an unknown action.
        """
        match = _FORM.fullmatch(text)
        if not match:
            raise UserError(
                f"{text!r} given; a hypothesis is FEATURE high|off: ACTION more|less, such as '12 high: LEFT more'."
            )
        name, change, listed, claim = match.groups()
        named = [action.strip() for action in listed.split(",")]
        for action in named:
            if action not in actions:
                raise UserError(unknown("action", action, actions))
        feature = int(name) if name.isdecimal() else feature_of(name)
        chosen = tuple(dict.fromkeys(actions.index(action) for action in named))
        return cls(feature, change, chosen, claim, text)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class States:
    """N recorded states, and what the agent makes of them."""

    x: Tensor
    """`[N, D]`: activations; `[N, P, D]` at all of a layer's P positions."""
    episodes: NDArray[np.integer]
    """`[N]`."""
    head: Callable[[Tensor], Tensor]
    """What the agent would prefer, `[N, A]`, given other activations like `x` in their place."""
    greedy: bool
    """The agent takes its largest preference; otherwise it samples from their softmax."""

    @cached_property
    def preferences(self) -> Tensor:
        """`[N, A]`: as they are."""
        return self.head(self.x)

    def probability(self, preferences: Tensor, actions: Sequence[int]) -> Tensor:
        """`[N]`: of taking one of the actions."""
        if self.greedy:
            return torch.isin(preferences.argmax(1), torch.as_tensor(actions).to(preferences.device)).float().cpu()
        return preferences.softmax(1)[:, list(actions)].sum(1).cpu()

    def change(self, distance: Tensor, along: Tensor, actions: Sequence[int]) -> Tensor:
        """`[C, N]`: of the actions' probability, where each state is moved by `distance [N]` or `[N, P]` along
        directions `[C, D]`."""
        before, move = self.probability(self.preferences, actions), moves(self.head, self.x, self.preferences, along)
        return torch.stack([self.probability(move(c, distance), actions) - before for c in range(len(along))])


@dataclass(frozen=True)
class Outcome:
    """Changes of the probability of a hypothesis's actions: of a Q-value agent's greedy choice, of a policy's own."""

    hypothesis: str
    feature: int
    value: float
    """What the feature was set to."""
    before: float
    """The actions' probability, nothing changed; this and what follows are means over episodes."""
    effect: float
    """Mean change."""
    control: float
    """Mean change by the random directions."""
    exceeds: float
    """Share of the random directions whose mean change is less than the effect, in the claimed sense."""
    difference: float
    """Effect less control."""
    interval: tuple[float, float]
    """95% interval of the effect less one random direction's: over directions, and over episodes by Student's
    distribution."""
    passed: bool
    """Whether the interval is on the claimed side of zero."""
    dose: list[tuple[float, float]]
    """Values of the feature, and the effect of each."""


@torch.no_grad()
def evaluate_hypothesis(hypothesis: Hypothesis, sae: SAE, states: States, high: float) -> Outcome:
    """Test one hypothesis on held-out states. Of random directions at most 2.5% pass; of those whose claim was chosen
    because a head favours it, as `predictive_features` does, more: hold them against the features of a random
    dictionary.

    Args:
        high: the value that counts as high for the feature.

    Raises:
        UserError: no such feature, or states of fewer than two episodes.
    """
    if not 0 <= hypothesis.feature < sae.d_sae:
        raise UserError(f"feature {hypothesis.feature} given; the autoencoder has features 0 to {sae.d_sae - 1}.")
    if len(np.unique(states.episodes)) < 2:
        raise UserError("the states are of one episode; a test needs several: collect more.")
    direction = sae.W_dec[[hypothesis.feature]]
    active = activation(sae.encode_sparse(states.x.flatten(0, -2)), hypothesis.feature).view(states.x.shape[:-1])

    def change(value: float, along: Tensor) -> NDArray[np.float64]:
        return _episode_means(states.change(value - active, along, hypothesis.actions), states.episodes)

    value = high if hypothesis.change == "high" else 0.0
    effect = change(value, direction)
    others = change(value, random_directions(direction.expand(CONTROLS, -1), seed=hypothesis.feature))
    interval = students_over_controls(effect - others)
    sign = 1 if hypothesis.claim == "more" else -1
    return Outcome(
        hypothesis=hypothesis.text,
        feature=hypothesis.feature,
        value=value,
        before=float(
            _episode_means(states.probability(states.preferences, hypothesis.actions)[None], states.episodes).mean()
        ),
        effect=float(effect.mean()),
        control=float(others.mean()),
        exceeds=float((sign * effect.mean() > sign * others.mean(1)).mean()),
        difference=float((effect - others).mean()),
        interval=interval,
        passed=bool(min(sign * interval[0], sign * interval[1]) > 0),
        dose=[(dose * high, float(change(dose * high, direction).mean())) for dose in DOSES],
    )


def predictive_features(features: Features, actions: NDArray[np.integer], count: int) -> list[tuple[int, int]]:
    """`count` features, each with the action `[N]` that it predicts: which is taken in its samples most often beyond
    its share of all, the rarer a feature the less that counts. First come the best features of each action, then the
    second best. What a feature predicts is what its label says."""
    taken = np.eye(actions.max() + 1)[actions]
    fires = features.matrix()
    fires.data = np.ones_like(fires.data)
    beyond = (fires @ (taken - taken.mean(0))) / (features.counts() + _PRIOR)[:, None]
    action, order = beyond.argmax(1), np.argsort(-beyond.max(1), kind="stable")
    order = order[features.counts()[order] > 0]
    rank = np.empty(len(order), np.int64)  # of each feature among those of its action
    for a in range(taken.shape[1]):
        of_action = action[order] == a
        rank[of_action] = np.arange(of_action.sum())
    return [(int(f), int(action[f])) for f in order[np.argsort(rank, kind="stable")][:count]]


def _episode_means(values: Tensor, episodes: NDArray[np.integer]) -> NDArray[np.float64]:
    """`[C, E]` from `[C, N]`."""
    _, index = np.unique(episodes, return_inverse=True)
    sums = np.stack([np.bincount(index, each) for each in values.numpy()])
    return sums / np.bincount(index)


def students_over_controls(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95% of `[C, E]`, whose rows are equally likely and each known as well as its mean over episodes is."""
    from scipy import stats  # takes long to import

    episodes = differences.shape[1]
    error = differences.std(1, ddof=1, keepdims=True) / np.sqrt(episodes)
    draws = differences.mean(1, keepdims=True) + error * stats.t.ppf(_T, episodes - 1)
    low, high = np.percentile(draws, [2.5, 97.5], method="hazen")  # the draws are at the middles of their shares
    return float(low), float(high)
