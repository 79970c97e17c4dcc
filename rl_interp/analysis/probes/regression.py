"""Linear probes: how much of the ground truth can be read off a layer.

A probe is ridge regression onto a concept, fitted on some episodes and scored on others: a yes-or-no concept by the
area under the ROC curve (0.5 is chance), a number by R² (0 is chance). Alain & Bengio 2016, arXiv 1610.01644; that a
probe says little without a control: Hewitt & Liang 2019, arXiv 1909.03368.

The strength of the ridge is chosen on episodes that are left out in turn. Rows left out, whose neighbours stay in,
would choose too weak a one, the more so the wider a layer is, and layers could not be compared with their controls.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import Concept
from rl_interp.core.errors import UserError
from rl_interp.core.stats import FEWEST, Estimate, auroc

WIDEST = 512
"""Features that a probe sees; of more, the first principal components of what is fitted on."""
RARE = 10
"""A yes-or-no concept that is true (or false) less often than this among the episodes of either side is left out."""
ALPHAS = np.logspace(0, 5, 6)
"""Strengths of the ridge, on standardised features, from which each concept's is chosen."""
_FOLDS = 4


def probe(
    values: NDArray[np.floating],
    labels: Mapping[str, NDArray[Any]],
    concepts: Mapping[str, Concept],
    episodes: NDArray[np.integer],
    seed: int = 0,
    shuffles: int = 0,
    trees: bool = False,
) -> dict[str, Estimate]:
    """Score a probe of each concept on features `[N, D]`, with the 95% interval of a bootstrap over held-out episodes;
    concepts too rare to be scored are left out.

    Args:
        labels: `[N]` of each concept.
        episodes: `[N]`, the number of each row's episode: no episode is both fitted on and scored.
        seed: of the split and of the bootstrap.
        shuffles: for a control, fit on labels in random order this many times; the score is then the mean, and the
            interval holds 95% of them.
        trees: let boosted regression trees do it instead, which also find what is there in no linear form.

    Raises:
        UserError: there are fewer than 4 episodes.
    """
    # Held out are whole episodes, since the rows of one are alike.
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(episodes))
    if len(order) < 4:
        raise UserError(f"{len(order)} episodes given; probes need at least 4, to fit on some and be scored on others.")
    held_out = np.isin(episodes, order[: max(2, round(0.3 * len(order)))])
    truths = {name: np.asarray(labels[name], np.float64) for name in concepts}
    names = [name for name, concept in concepts.items() if _scorable(truths[name], concept, held_out)]
    if not names:
        return {}
    # All concepts, and all shuffled orders of them, are fitted at once: they share the decomposition of the features.
    fitted, scored = _prepared(values[~held_out], values[held_out], seed)
    wanted = np.stack([truths[name] for name in names], 1)
    centre, spread = wanted[~held_out].mean(0), wanted[~held_out].std(0)
    targets = (wanted - centre) / spread
    orders = [rng.permutation(len(fitted)) for _ in range(shuffles)] or [np.arange(len(fitted))]
    to_fit = np.concatenate([targets[~held_out][order] for order in orders], 1)
    if trees:
        predicted = _grown(fitted, to_fit, seed)(scored)
    else:
        predicted = _ridge(fitted, to_fit)(scored, chosen_alphas(fitted, to_fit, episodes[~held_out])[None])
    predicted = predicted.reshape(len(scored), len(orders), len(names))
    # The bootstrap draws episodes; its weights are how often each row is in a resample.
    which = np.unique(episodes[held_out], return_inverse=True)[1]
    count = which.max() + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=200)
    whole, resampled = np.ones((1, len(which))), drawn[:, which].astype(float)
    found = {}
    for i, name in enumerate(names):
        score = auroc if concepts[name].kind == "boolean" else r_squared
        truth = targets[held_out, i]
        scores = [score(truth, predicted[:, order, i], whole)[0] for order in range(len(orders))]
        spread_of = scores if shuffles else score(truth, predicted[:, 0, i], resampled)
        enough = (shuffles or drawn.shape[1]) >= FEWEST
        low, high = np.nanpercentile(spread_of, [2.5, 97.5]).tolist() if enough else (0.0, 0.0)
        ends = (low, high) if low < high else (None, None)  # one of no width would read as certainty
        found[name] = Estimate(float(np.mean(scores)), *ends)
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
    """Both sides standardised by the first, with at most `WIDEST` features. What is beyond the range of the first
    counts as the end of it: of a unit that hardly fired there, and then fires, one row would be thousands of spreads
    away, and alone decide a probe's R²."""
    # Summed in float64: in float32 a constant column's mean is not quite its value, and it would seem to vary.
    centre = fitted.mean(0, dtype=np.float64).astype(fitted.dtype)
    fitted, scored = fitted - centre, scored - centre
    spread = np.sqrt(np.square(fitted).mean(0, dtype=np.float64)).astype(fitted.dtype)
    live = spread > 1e-8 + 1e-6 * np.abs(centre)
    fitted, scored = (each[:, live] / spread[live] for each in (fitted, scored))
    scored = scored.clip(fitted.min(0), fitted.max(0))
    if fitted.shape[1] <= WIDEST:
        return fitted, scored
    # Components from products of rows, of which 2 · WIDEST are enough: pictures have tens of thousands of columns.
    some = fitted[np.random.default_rng(seed).choice(len(fitted), min(2 * WIDEST, len(fitted)), replace=False)]
    variances, mixtures = np.linalg.eigh(some @ some.T)
    strong = variances > 1e-6 * variances[-1]
    components = some.T @ (mixtures[:, strong] / np.sqrt(variances[strong]))[:, -WIDEST:]
    return fitted @ components, scored @ components


def chosen_alphas(
    x: NDArray[np.floating], y: NDArray[np.floating], episodes: NDArray[np.integer]
) -> NDArray[np.floating]:
    """`[T]`: of `ALPHAS`, for each target of `y [N, T]`, that with which ridge regression on `x [N, D]` has the highest
    R² in episodes that it is not fitted on, a quarter of them at a time."""
    from sklearn.model_selection import GroupKFold

    unexplained = np.zeros((len(ALPHAS), y.shape[1]))
    folds = GroupKFold(min(_FOLDS, len(np.unique(episodes))))
    for kept, left_out in folds.split(x, groups=episodes):
        guesses = _ridge(x[kept], y[kept])(x[left_out], ALPHAS[:, None])
        # Of each quarter's own variance: else one episode that is unlike all others, and read by none, would choose.
        variance = y[left_out].var(0)
        unexplained += np.square(guesses - y[left_out]).mean(1) / np.where(variance > 0, variance, np.inf)
    return ALPHAS[unexplained.argmin(0)]


def _ridge(
    x: NDArray[np.floating], y: NDArray[np.floating]
) -> Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.floating]]:
    """Ridge regression of `y [N, T]` on `x [N, D]` and a constant, for any strengths:
    `(rows [M, D], alphas [S, T] or [S, 1]) -> [S, M, T]`."""
    centre, level = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    weights = ridge_weights(x, y)
    return lambda rows, alphas: (rows - centre) @ weights(alphas) + level


def _grown(
    x: NDArray[np.floating], y: NDArray[np.floating], seed: int
) -> Callable[[NDArray[np.floating]], NDArray[np.floating]]:
    """Boosted regression trees of each target of `y [N, T]` on `x [N, D]`: `rows [M, D] -> [M, T]`."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    grown = [HistGradientBoostingRegressor(random_state=seed).fit(x, target) for target in y.T]
    return lambda rows: np.stack([each.predict(rows) for each in grown], 1)


def ridge_weights(
    x: NDArray[np.floating], y: NDArray[np.floating]
) -> Callable[[NDArray[np.floating]], NDArray[np.float64]]:
    """The same regression's weights, behind the mean of x: `(alphas [S, T] or [S, 1]) -> [S, D, T]`."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    variances, directions = np.linalg.eigh(x.T @ x)
    along = directions.T @ (x.T @ y)
    return lambda alphas: np.stack([directions @ (along / (variances.clip(0)[:, None] + each)) for each in alphas])


def r_squared(truth: NDArray[Any], guess: NDArray[Any], weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """Share of the variance `[R]` of `truth [N]` that guesses `[N]` explain, for weights of the rows `[R, N]`.

    NaN where the truth is the same in all rows that have weight.
    """
    mean, squares = weights @ truth / weights.sum(1), weights @ truth**2
    total = squares - weights.sum(1) * mean**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 1e-9 * squares, 1 - weights @ (truth - guess) ** 2 / total, np.nan)
