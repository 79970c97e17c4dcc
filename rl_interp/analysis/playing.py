"""A run's agent at play: scored over whole episodes, watched step by step, and collected into an activation store."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import dropwhile, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment, Player
from rl_interp.core import rollout
from rl_interp.core.config import to_plain
from rl_interp.core.envs import EnvConfig, LabelledEnv, make_vector
from rl_interp.core.envs.sokoban.config import PUBLISHED, SokobanConfig
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.interventions import Intervention
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run
from rl_interp.core.stats import bootstrap, iqm, mean, plain

if TYPE_CHECKING:
    from rl_interp.core.store import ActivationStore

ENVS = 16
"""That play at once, at most."""
_FEW_BOARDS = 5_000
"""Boards to look at in each of a user's levels before it is played: most dead ones show at once."""
_NAMED = 5


def score(
    loaded: Loaded,
    episodes: int,
    seed: int,
    epsilon: float,
    progress: Progress = SILENT,
    interventions: Sequence[Intervention] = (),
    thinking: int = 0,
) -> Episodes:
    """Play whole episodes in the run's own environment.

    Args:
        epsilon: probability of a random action.
        interventions: under which the agent plays.
        thinking: how often it sees the first observation of an episode before it acts.

    Raises:
        UserError: no episodes, or an agent whose preferences are not finite.
    """
    at_least_one(episodes=episodes)
    env = make_vector(loaded.env, min(episodes, ENVS))
    with progress.bar("Playing", episodes, "episodes") as update:
        scores = rollout.evaluate(
            loaded.agent, env, episodes, seed=seed, epsilon=epsilon, interventions=interventions,
            thinking=thinking, progress=update,
        )  # fmt: skip
    env.close()
    return scores


def on_levels(loaded: Loaded, levels: str, progress: Progress = SILENT) -> Loaded:
    """The same agent, to play other levels of Sokoban: all of a set, a file or a folder. Those that can't be solved are
    said, and played all the same.

    Raises:
        UserError: no agent of Sokoban, or levels that can't be read or are larger than its boards.
    """
    from rl_interp.core.envs.sokoban.files import load  # with what is compiled, which takes long to import
    from rl_interp.core.envs.sokoban.solve import solve_all

    if not isinstance(loaded.env, SokobanConfig):
        raise UserError(f"--levels {levels} given for an agent in {loaded.env.id}; only Sokoban has levels.")
    env = replace(loaded.env, levels=levels, held_out="", part="all")
    if levels not in PUBLISHED:
        given = load(levels, env.rows, env.columns)
        plans = solve_all(given, _FEW_BOARDS, progress=progress)
        dead = [level for level, plan in zip(given.ids, plans, strict=True) if plan.solvable is False]
        if dead:
            more = f" and {len(dead) - _NAMED} more" if len(dead) > _NAMED else ""
            progress.warn(f"no play solves {', '.join(dead[:_NAMED])}{more}; they are played all the same.")
    return replace(loaded, env=env)


def scores_json(scores: Episodes, env: EnvConfig, seed: int, epsilon: float, thinking: int = 0) -> dict[str, Any]:
    """Returns with mean and IQM, the 95% bootstrap interval of either (None of too few), the environment's own scores,
    and the protocol under which they were played."""
    return {
        "episodes": len(scores.returns),
        "returns": scores.returns.tolist(),
        "mean": (average := bootstrap([scores.returns], mean)).value,
        "mean_interval": plain(average),
        "iqm": iqm(scores.returns),
        "interval": plain(bootstrap([scores.returns])),
        "length_mean": float(scores.lengths.mean()),
        **scores.summary(env),
        "protocol": {
            **to_plain(env),
            "epsilon": epsilon,
            "seed": seed,
            "thinking": thinking,
            "autoreset": "next_step",
            "reward_clipping": False,
        },
    }


def store_path(run: Run, hook: str) -> Path:
    """Where a run keeps the activations of a hook point."""
    return run.outputs / "activations" / hook


def collect_store(
    loaded: Loaded,
    hook: str,
    samples: int,
    path: Path,
    seed: int = 0,
    epsilon: float = 0.01,
    dtype: str = "float32",
    progress: Progress = SILENT,
) -> "ActivationStore":
    """`collect` with the run's agent and environment; the store records which checkpoint it is of."""
    from rl_interp.core.collect import collect  # reads and writes Parquet, which takes long to import

    with progress.bar(f"Collecting {hook}", samples, "samples") as update:
        return collect(
            loaded.agent, loaded.env, hook, samples, path,
            seed=seed, epsilon=epsilon, provenance=loaded.source, dtype=dtype, progress=update,
        )  # fmt: skip


def watch(loaded: Loaded, env: LabelledEnv, steps: int, skip: int | None, seed: int) -> list[Moment]:
    """The moments of `watching`."""
    return list(watching(loaded, env, steps, skip, seed))


def watching(loaded: Loaded, env: LabelledEnv, steps: int, skip: int | None, seed: int) -> Iterator[Moment]:
    """`steps` moments of an episode, or fewer if it ends before: greedy in Q-values, sampled from a policy.

    Args:
        skip: steps to play before the first; None: those at the start in which no action makes a difference, such as
            a game's pause before play begins.

    Raises:
        UserError: the episode ends before the first.
    """
    played = follow(loaded, env, seed)
    if skip is None:
        played = dropwhile(lambda moment: not moment.controllable, played)
    played = islice(played, skip or 0, (skip or 0) + steps)
    first = next(played, None)
    if first is None:
        until = "it has been in the agent's control" if skip is None else f"step {skip}"
        raise UserError(f"the episode of seed {seed} ends before {until}; skip fewer steps, or give a different seed.")
    yield first
    yield from played


def follow(loaded: Loaded, env: LabelledEnv, seed: int) -> Iterator[Moment]:
    """Every moment of an episode."""
    player = Player(loaded, env, seed)
    while not player.ended:
        yield (moment := player.look())
        player.act(moment.action)
