"""Linear probes: what of the ground truth can be read off a layer, and off what it is compared with.

A probe is ridge regression onto a concept, fitted on some episodes and scored on others: for a yes or no, by the area
under the ROC curve (0.5 is chance), for a number by R² (0 is chance). Alain & Bengio 2016, arXiv 1610.01644; that a
probe says little without a control: Hewitt & Liang 2019, arXiv 1909.03368.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

from rl_interp.core.agent import Agent
from rl_interp.core.envs import EnvConfig, make_labelled
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.store import ActivationStore

WIDEST = 512
"""Features that a probe sees; of more, the first principal components on the episodes fitted on."""
RARE = 10
"""A yes-or-no concept that is true (or false) less often than this among the episodes of either side is left out."""


@dataclass(frozen=True)
class Episode:
    """A recorded episode: `obs [T, C, H, W]` and the `actions [T]` taken after each."""

    obs: NDArray[np.uint8]
    actions: NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """On held-out episodes, with the 95% interval of a bootstrap over them."""

    value: float
    low: float
    high: float


def recorded(config: EnvConfig, store: ActivationStore) -> Iterator[Episode]:
    """The episodes of an activation store, played again from their seeds and actions."""
    env = make_labelled(config)
    number, seeds, actions = (store.column(name) for name in ("episode", "episode_seed", "action"))
    for episode in np.unique(number):
        rows = np.flatnonzero(number == episode)
        obs = [env.reset(seed=int(seeds[rows[0]]))[0]]
        obs.extend(env.step(int(action))[0] for action in actions[rows[:-1]])
        yield Episode(np.stack(obs), actions[rows].astype(np.int64))


@torch.no_grad()
def features(agent: Agent, episode: Episode, hooks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """`[T, D]` at each hook point, as the agent follows a recorded episode, whoever played it; spatial ones are
    flattened."""
    device = next(agent.parameters()).device
    obs, actions = torch.from_numpy(episode.obs)[:, None].to(device), torch.from_numpy(episode.actions)[:, None]
    _, cache = run_with_cache(agent, obs, names=list(hooks), actions=actions.to(device), unroll=True)
    return {hook: cache[hook].float().reshape(len(obs), -1).cpu().numpy() for hook in hooks}


def probe(
    values: NDArray[np.floating],
    labels: Mapping[str, NDArray[Any]],
    concepts: Mapping[str, Concept],
    episodes: NDArray[np.integer],
    seed: int = 0,
    shuffles: int = 0,
) -> dict[str, Score]:
    """Score a probe of each concept on features `[N, D]`; concepts too rare to be scored are left out.

    Args:
        labels: `[N]` of each concept.
        episodes: `[N]`, which episode a row is of: no episode is both fitted on and scored.
        seed: of the split and of the bootstrap.
        shuffles: fit on labels in random order, this many times, for a control: the score is then the mean, and the
            interval holds 95% of them.

    Raises:
        UserError: there are fewer than 4 episodes.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(episodes))
    if len(order) < 4:
        raise UserError(f"{len(order)} episodes given; probes need at least 4, to fit on some and be scored on others.")
    held_out = np.isin(episodes, order[: max(2, round(0.3 * len(order)))])
    truths = {name: np.asarray(labels[name], np.float64) for name in concepts}
    names = [name for name, concept in concepts.items() if _scorable(truths[name], concept, held_out)]
    if not names:
        return {}
    fitted, scored = _prepared(values[~held_out], values[held_out], seed)
    wanted = np.stack([truths[name] for name in names], 1)
    centre, spread = wanted[~held_out].mean(0), wanted[~held_out].std(0)
    targets = (wanted - centre) / spread
    orders = [rng.permutation(len(fitted)) for _ in range(shuffles)] or [np.arange(len(fitted))]
    to_fit = np.concatenate([targets[~held_out][order] for order in orders], 1)
    model = RidgeCV(np.logspace(0, 5, 6), alpha_per_target=True).fit(fitted, to_fit)
    predicted = model.predict(scored).reshape(len(scored), len(orders), len(names))
    groups = [np.flatnonzero(episodes[held_out] == each) for each in np.unique(episodes[held_out])]
    draws = [np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]) for _ in range(200)]
    found = {}
    for i, name in enumerate(names):
        truth, guesses, yes_or_no = targets[held_out, i], predicted[:, :, i].T, concepts[name].kind == "boolean"
        scores = [_score(truth, guess, yes_or_no) for guess in guesses]
        spread_of = scores if shuffles else [_score(truth[rows], guesses[0][rows], yes_or_no) for rows in draws]
        low, high = np.nanpercentile(spread_of, [2.5, 97.5])
        found[name] = Score(float(np.mean(scores)), float(low), float(high))
    return found


def _scorable(labels: NDArray[Any], concept: Concept, held_out: NDArray[np.bool_]) -> bool:
    for side in (labels[held_out], labels[~held_out]):
        if concept.kind == "boolean" and min((side > 0).sum(), (side <= 0).sum()) < RARE:
            return False
        if np.ptp(side) == 0:
            return False
    return True


def _prepared(
    fitted: NDArray[np.floating], scored: NDArray[np.floating], seed: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Standardised by what is fitted on, and of at most `WIDEST` features."""
    centre, spread = fitted.mean(0), fitted.std(0)
    live = spread > 1e-8
    fitted, scored = ((each[:, live] - centre[live]) / spread[live] for each in (fitted, scored))
    if fitted.shape[1] > WIDEST:
        pca = PCA(min(WIDEST, len(fitted)), svd_solver="randomized", random_state=seed).fit(fitted)
        fitted, scored = pca.transform(fitted), pca.transform(scored)
    return fitted, scored


def _score(truth: NDArray[np.floating], guess: NDArray[np.floating], yes_or_no: bool) -> float:
    if yes_or_no:
        positive = truth > 0
        return float(roc_auc_score(positive, guess)) if 0 < positive.sum() < len(positive) else np.nan
    total = ((truth - truth.mean()) ** 2).sum()
    return float(1 - ((truth - guess) ** 2).sum() / total) if total > 0 else np.nan
