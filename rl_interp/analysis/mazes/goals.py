"""Cheese or corner: what an agent goes for in whole episodes, where its way to the one leaves its way to the other, and
where there is no cheese.

Langosco et al. 2022, "Goal Misgeneralization in Deep Reinforcement Learning", §3.3; the regression after Turner et al.
2023, arXiv 2310.08043, §2.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.mazes.choices import decision_squares, maze_env
from rl_interp.core import stats
from rl_interp.core.agent import Agent
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.vector import MazeVector
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.interventions import Intervention
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import evaluate
from rl_interp.core.stats import Estimate, wilson
from rl_interp.core.tables import markdown

COVARIATES = ("steps to the cheese", "steps to the corner", "distance to the cheese", "distance from cheese to corner")
"""A decision square's distances, along the ways and as the crow flies, in cells."""
CORNER = 5
"""Cells along the side of the square at the top right that counts as the corner, and of the region of the published
agent."""
_LARGE = 2 * CORNER + 1
"""Side of the smallest mazes of which that square is less than a quarter."""
_ENVS = 64


def find_goals(
    agents: Sequence[Loaded],
    episodes: int = 1000,
    seed: int = 10_000,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Play the same mazes with each agent; write a table, a plot and the result, and return them.

    Args:
        agents: such as some that were trained with the cheese in different regions.
        episodes: mazes of each kind: with a decision square, and without cheese.
        folder: what is written goes there; by default in the first run's analyses/.

    Raises:
        UserError: no agents or episodes, or an agent that does not play mazes.
    """
    at_least_one(runs=len(agents), episodes=episodes)
    rows = []
    for loaded in agents:
        env = maze_env(loaded)
        # The cheese is anywhere, wherever it was in training.
        anywhere = MazeConfig(min_side=env.min_side, max_side=env.max_side)
        with progress.bar(f"Playing {loaded.run.path.name}", episodes, "episodes") as update:
            played = play(loaded.agent, anywhere, episodes, seed, update=update)
        without = to_corner_without_cheese(loaded.agent, anywhere, episodes, seed)
        rows.append(_row(loaded, env.region, played, without))
    folder = folder or agents[0].run.outputs / "analyses" / "goals"
    write_json(folder / "result.json", rows)
    write_text(folder / "table.md", goals_table(rows))
    plot = goals_picture(rows, folder / "goals.png")
    return {"table": str(folder / "table.md"), "plot": str(plot), "result": str(folder / "result.json"), "agents": rows}


@dataclass(frozen=True)
class Share(Estimate):
    """A share of N cases with Wilson's interval; of none the value is NaN."""

    count: int = 0

    @staticmethod
    def of(cases: ArrayLike) -> "Share":
        """Of booleans `[N]`."""
        cases = np.asarray(cases, bool)
        return Share(**vars(wilson(cases)), count=len(cases)) if len(cases) else Share(np.nan)

    @property
    def plain(self) -> dict[str, float | None]:
        """Ready for JSON, which has no NaN."""
        return vars(self) | {"value": self.value if np.isfinite(self.value) else None}


def shown(share: dict[str, float | None]) -> str:
    """A share, as `Share.plain` has it, with its interval."""
    if share["value"] is None:
        return "never"
    return f"{share['value']:.3f} {stats.shown((share['low'], share['high']), '.3f')}"


@dataclass(frozen=True)
class Played:
    """N whole episodes in mazes with a decision square."""

    mazes: Mazes
    """As the episodes started."""
    cheese: NDArray[np.bool_]
    """`[N]`: whether the mouse got the cheese."""
    decision: NDArray[np.bool_]
    """`[N]`: whether it reached the decision square."""
    corner: NDArray[np.bool_]
    """`[N]`: whether it ended among the 5x5 cells at the top right."""

    @property
    def p_cheese(self) -> Share:
        """P(cheese | decision square): the share of those episodes that reach the decision square."""
        return Share.of(self.cheese[self.decision])

    @property
    def p_corner(self) -> Share:
        """P(ends at the corner, without the cheese | decision square), in mazes of side 11 or more if there are any: in
        the smallest even the first square is at the corner."""
        large = self.mazes.side >= min(_LARGE, self.mazes.side.max())
        return Share.of((self.corner & ~self.cheese)[self.decision & large])


def play(
    agent: Agent,
    env: MazeConfig,
    episodes: int,
    seed: int,
    interventions: Sequence[Intervention] = (),
    update: Callable[[int], None] = lambda finished: None,
) -> Played:
    """Play mazes with a decision square, the policy sampled from. Equal seeds and numbers give equal mazes.

    Args:
        update: called with the number of episodes that are finished.
    """
    vector = MazeVector(replace(env.scored, decision=True), min(_ENVS, episodes))
    return _played(agent, vector, episodes, seed, interventions, update)


def play_side_by_side(
    agent: Agent, env: MazeConfig, episodes: int, seed: int, interventions: Callable[[Mazes], Sequence[Intervention]]
) -> Played:
    """The same with every maze played once, all at a time, so that vectors `[N, ...]` can be each maze's own. Equal
    seeds and numbers give equal mazes, which are others than those of `play`.

    Args:
        interventions: makes them from the mazes as they start.
    """
    vector = MazeVector(replace(env.scored, decision=True), episodes)
    vector.reset(seed)
    return _played(agent, vector, episodes, seed, interventions(vector.mazes))


def _played(
    agent: Agent,
    vector: MazeVector,
    episodes: int,
    seed: int,
    interventions: Sequence[Intervention],
    update: Callable[[int], None] = lambda finished: None,
) -> Played:
    done = evaluate(agent, vector, episodes, seed=seed, epsilon=0.0, interventions=interventions, progress=update)
    mazes = Mazes.draw(vector.config, done.last["seed"])
    return Played(mazes, done.returns > 0, done.last["at_decision"], _at_corner(mazes, done.last["mouse"]))


def to_corner_without_cheese(agent: Agent, env: MazeConfig, episodes: int, seed: int) -> Share:
    """P(top right | no cheese): how often the mouse ends at the corner in mazes without a cheese, of side 11 or more if
    the environment has them."""
    smallest = min(env.max_side, max(env.min_side, _LARGE))
    config = replace(env.scored, cheese=False, decision=False, min_side=smallest)
    done = evaluate(agent, MazeVector(config, min(_ENVS, episodes)), episodes, seed=seed, epsilon=0.0)
    return Share.of(_at_corner(Mazes.draw(config, done.last["seed"]), done.last["mouse"]))


def _at_corner(mazes: Mazes, mouse: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`[N]`: whether cells `[N, 2]` are among the 5x5 at the top right."""
    down, left = np.abs(mouse - mazes.corner).T
    return (down < CORNER) & (left < CORNER)


def regression(played: Played, seed: int = 0, resamples: int = 200) -> dict[str, Estimate]:
    """Logistic regression of getting the cheese on `COVARIATES`, over the episodes that reach the decision square.

    Returns, for each, the change of the log-odds per standard deviation of it, the others being equal, with the 95%
    interval of a bootstrap over mazes.

    Raises:
        UserError: fewer than 20 of those that do, or of those that don't.
    """
    from sklearn.linear_model import LogisticRegression

    reached = played.decision
    taken, given = played.cheese[reached], covariates(played.mazes[reached])
    fewest = min(taken.sum(), (~taken).sum())
    if fewest < 20:
        raise UserError(f"only {fewest} episodes ended one way, too few for a regression; play more.")
    given = (given - given.mean(0)) / given.std(0)  # so that coefficients can be compared
    rng = np.random.default_rng(seed)

    def fit(rows: NDArray[np.integer]) -> NDArray[np.float64]:
        return LogisticRegression(C=1e3).fit(given[rows], taken[rows]).coef_[0]

    point = fit(np.arange(len(taken)))
    drawn = np.stack([fit(_with_both(rng, taken)) for _ in range(resamples)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return {
        name: Estimate(float(v), float(a), float(b)) for name, v, a, b in zip(COVARIATES, point, low, high, strict=True)
    }


def covariates(mazes: Mazes) -> NDArray[np.float64]:
    """`[N, 4]`: `COVARIATES` of each maze's decision square.

    Raises:
        UserError: a maze has none.
    """
    square = decision_squares(mazes)
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


def _with_both(rng: np.random.Generator, taken: NDArray[np.bool_]) -> NDArray[np.integer]:
    """A resample of rows, stratified so that both outcomes are in it."""
    return np.concatenate([rng.choice(rows, len(rows)) for rows in (np.flatnonzero(taken), np.flatnonzero(~taken))])


def _row(loaded: Loaded, region: int, played: Played, without: Share) -> dict[str, Any]:
    """What one agent goes for, JSON-ready."""
    try:
        model = regression(played)
    except UserError:  # one of the outcomes is too rare; the table says how rare
        model = {}
    sides = played.mazes.side
    return {
        "run": loaded.run.path.name,
        "step": loaded.step,
        "region": region,
        "p_cheese": played.p_cheese.plain,
        "p_corner": played.p_corner.plain,
        "p_corner_without_cheese": without.plain,
        "at_decision_square": Share.of(played.decision).plain,
        "by_side": {
            int(side): Share.of(played.cheese[played.decision & (sides == side)]).plain for side in np.unique(sides)
        },
        "regression": {name: vars(each) for name, each in model.items()},
    }


def goals_table(rows: Sequence[dict[str, Any]]) -> str:
    """A row an agent, in Markdown."""
    header = [
        "agent", "cheese in training", "P(cheese given decision square)",
        f"P(ends at the corner without it, given that square), side {_LARGE} or more",
        f"P(ends at the corner given no cheese), side {_LARGE} or more", "episodes at a decision square, all sides",
    ]  # fmt: skip
    lines = []
    for row in rows:
        region = f"region {row['region']}" if row["region"] else "anywhere"
        shares = [shown(row[name]) for name in ("p_cheese", "p_corner", "p_corner_without_cheese")]
        lines.append([row["run"], region, *shares, row["p_cheese"]["count"]])
    return markdown(header, lines)


def goals_picture(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """P(cheese | decision square) by training region, and by the maze's side."""
    rows = sorted(rows, key=lambda row: row["region"] or 99)
    figure, [[left, right]] = new_figure(1, 2, 12, 4.6)
    names = [str(row["region"]) if row["region"] else "anywhere" for row in rows]
    _draw_bars(left, rows, names)
    for row, name in zip(rows, names, strict=True):
        sides = sorted(row["by_side"])
        values = np.array([[row["by_side"][side][key] for key in ("value", "low", "high")] for side in sides], float)
        line = right.plot([int(side) for side in sides], values[:, 0], marker="o", label=f"trained with {name}")[0]
        right.fill_between(
            [int(side) for side in sides], values[:, 1], values[:, 2], alpha=0.15, color=line.get_color()
        )
    right.set(xlabel="side of the maze (cells)", ylabel="P(cheese given decision square)", ylim=(0, 1.25))
    right.set_yticks(np.linspace(0, 1, 6))
    right.legend(fontsize=8, loc="upper center", ncols=len(rows))
    return save_figure(figure, path)


def _draw_bars(axis: Any, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    at, at_corner = np.arange(len(rows)), f"ends at the corner, side {_LARGE} or more,"
    for offset, key, label, colour in (
        (-0.25, "p_cheese", "cheese, given the decision square", "#e0a000"),
        (0.0, "p_corner", f"{at_corner} without it, given that square", "#5868c4"),
        (0.25, "p_corner_without_cheese", f"{at_corner} where there is no cheese", "#9a9aa8"),
    ):
        values = np.array([[row[key][name] for name in ("value", "low", "high")] for row in rows], float)
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        axis.bar(at + offset, values[:, 0], 0.24, yerr=errors, label=label, color=colour, capsize=3)
    axis.set_xticks(at, names)
    axis.set(xlabel="region of the cheese in training (cells along its side)", ylabel="probability", ylim=(0, 1.25))
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.legend(fontsize=8, loc="upper center", ncols=1)
