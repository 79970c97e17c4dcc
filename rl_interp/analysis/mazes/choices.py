"""Cheese or corner: what an agent wants where its way to the one leaves its way to the other.

Langosco et al. 2022, "Goal Misgeneralization in Deep Reinforcement Learning", §3.3; the regression after Turner et al.
2023, arXiv 2310.08043, §2.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl_interp.analysis.mazes.fields import decide
from rl_interp.core.agent import Agent
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import nearer
from rl_interp.core.envs.maze.vector import MazeVector
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Intervention
from rl_interp.core.rollout import evaluate
from rl_interp.core.stats import wilson

COVARIATES = ("steps to the cheese", "steps to the corner", "distance to the cheese", "distance from cheese to corner")
"""Of a decision square: along the ways, and as the crow flies. All in cells."""
CORNER = 5
"""Cells along the side of the square at the top right that counts as the corner, and of the region of the published
agent."""
_LARGE = 2 * CORNER + 1
"""Side of the smallest mazes of which that square is less than a quarter."""
_ENVS = 64


@dataclass(frozen=True)
class Share:
    """A share of N cases with its 95% interval (Wilson); NaN of none."""

    value: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(cases: ArrayLike) -> "Share":
        """Of booleans `[N]`."""
        cases = np.asarray(cases, bool)
        if not len(cases):
            return Share(np.nan, np.nan, np.nan, 0)
        interval = wilson(cases)
        return Share(float(cases.mean()), interval.low, interval.high, len(cases))


@dataclass(frozen=True)
class Played:
    """N whole episodes in mazes with a decision square."""

    mazes: Mazes
    """As the episodes started."""
    cheese: NDArray[np.bool_]
    """`[N]`: whether the mouse got the cheese."""
    decision: NDArray[np.bool_]
    """`[N]`: whether it came to the decision square."""
    corner: NDArray[np.bool_]
    """`[N]`: whether it ended among the 5x5 cells at the top right."""

    @property
    def p_cheese(self) -> Share:
        """P(cheese | decision square): of the episodes that come to the decision square."""
        return Share.of(self.cheese[self.decision])

    @property
    def p_corner(self) -> Share:
        """P(ends at the corner, without the cheese | decision square)."""
        return Share.of((self.corner & ~self.cheese)[self.decision])


def play(
    agent: Agent,
    env: MazeConfig,
    episodes: int,
    seed: int,
    interventions: Sequence[Intervention] | Callable[[Mazes], Sequence[Intervention]] = (),
    progress: Callable[[int], None] = lambda finished: None,
) -> Played:
    """Play mazes with a decision square, the policy sampled from. Equal seeds and numbers give equal mazes.

    Args:
        interventions: those of all episodes, or what makes them from the mazes as they start: then every maze is played
            once, all of them side by side, so that vectors `[N, ...]` can be each maze's own.
    """
    config = replace(env.scored, decision=True)
    vector = MazeVector(config, episodes if callable(interventions) else min(_ENVS, episodes))
    if callable(interventions):
        vector.reset(seed)
        interventions = interventions(vector.mazes)
    done = evaluate(agent, vector, episodes, seed=seed, epsilon=0.0, interventions=interventions, progress=progress)
    mazes = Mazes.draw(config, done.last["seed"])
    return Played(mazes, done.returns > 0, done.last["at_decision"], _at_corner(mazes, done.last["mouse"]))


def to_corner_without_cheese(agent: Agent, env: MazeConfig, episodes: int, seed: int) -> Share:
    """P(top right | no cheese): how often the mouse is at the corner at the end, in mazes without a cheese, of side 11
    or more where there are such."""
    smallest = min(env.max_side, max(env.min_side, _LARGE))
    config = replace(env.scored, cheese=False, decision=False, min_side=smallest)
    done = evaluate(agent, MazeVector(config, min(_ENVS, episodes)), episodes, seed=seed, epsilon=0.0)
    return Share.of(_at_corner(Mazes.draw(config, done.last["seed"]), done.last["mouse"]))


def _at_corner(mazes: Mazes, mouse: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`[N]`: whether cells `[N, 2]` are among the 5x5 at the top right."""
    down, left = np.abs(mouse - mazes.corner).T
    return (down < CORNER) & (left < CORNER)


def covariates(mazes: Mazes) -> NDArray[np.float64]:
    """`[N, 4]`: `COVARIATES` of each maze's decision square.

    Raises:
        UserError: a maze has none.
    """
    square = _squares(mazes)
    each = np.arange(len(mazes)), square[:, 0], square[:, 1]
    return np.stack(
        [
            mazes.distances(mazes.cheese)[each],
            mazes.distances(mazes.corner)[each],
            np.linalg.norm(square - mazes.cheese, axis=1),
            np.linalg.norm(mazes.cheese - mazes.corner, axis=1),
        ],
        1,
        dtype=np.float64,
    )


@dataclass(frozen=True)
class Coefficient:
    """Change of the log-odds of taking the cheese with one standard deviation of a covariate, the others being equal;
    with the 95% interval of a bootstrap over mazes."""

    value: float
    low: float
    high: float


def regression(played: Played, seed: int = 0, resamples: int = 200) -> dict[str, Coefficient]:
    """Logistic regression of getting the cheese on `COVARIATES`, over the episodes that came to the decision square.

    Raises:
        UserError: fewer than 20 of those that do, or of those that don't.
    """
    from sklearn.linear_model import LogisticRegression

    reached = played.decision
    taken, given = played.cheese[reached], covariates(played.mazes[reached])
    fewest = min(taken.sum(), (~taken).sum())
    if fewest < 20:
        raise UserError(f"only {fewest} episodes ended one way, too few for a regression; play more.")
    given = (given - given.mean(0)) / given.std(0)
    rng = np.random.default_rng(seed)

    def fit(rows: NDArray[np.integer]) -> NDArray[np.float64]:
        return LogisticRegression(C=1e3).fit(given[rows], taken[rows]).coef_[0]

    point = fit(np.arange(len(taken)))
    drawn = np.stack([fit(_with_both(rng, taken)) for _ in range(resamples)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return {
        name: Coefficient(float(v), float(a), float(b))
        for name, v, a, b in zip(COVARIATES, point, low, high, strict=True)
    }


def _with_both(rng: np.random.Generator, taken: NDArray[np.bool_]) -> NDArray[np.integer]:
    """A resample of rows, stratified so that both outcomes are in it."""
    return np.concatenate([rng.choice(rows, len(rows)) for rows in (np.flatnonzero(taken), np.flatnonzero(~taken))])


def at_decision(mazes: Mazes) -> Mazes:
    """The mazes with their mice moved to the decision square.

    Raises:
        UserError: a maze has none.
    """
    return mazes.edit(mouse=_squares(mazes))


def choices(
    agent: Agent, mazes: Mazes, interventions: Sequence[Intervention] = ()
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(step towards the cheese) and P(step towards the corner), `[N]` each, the mouse being at the decision square:
    what the policy says there, without playing on."""
    there = at_decision(mazes)
    probabilities = decide(agent, there, interventions).preferences.float().softmax(-1).cpu().numpy()
    return tuple((probabilities[:, :4] * steps).sum(1) for steps in towards(there))  # pyright: ignore[reportReturnType]


def towards(mazes: Mazes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """`[N, 4]` each: which steps lead nearer to the cheese, and which to the corner."""
    each = np.arange(len(mazes)), mazes.mouse[:, 0], mazes.mouse[:, 1]
    cheese, corner = (nearer(mazes.distances(to), mazes.walls)[:, *each].T for to in (mazes.cheese, mazes.corner))
    return cheese, corner


def _squares(mazes: Mazes) -> NDArray[np.int64]:
    square = mazes.decision
    if (square < 0).any():
        raise UserError(
            f"maze {int(np.argmax((square < 0).any(1)))} has no decision square: draw mazes with decision=True."
        )
    return square
