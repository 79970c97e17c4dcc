"""Many levels played side by side, each once and to its end, with the agent's state at hand at every step.

The likeliest action is taken, as Bush et al. 2025 and Taufeeque et al. 2024 do, so that what is to come follows from
the state.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import rl_interp.core.envs.sokoban.rules as rules
from rl_interp.agents.load import Loaded
from rl_interp.core.agent import Agent, State, evaluating, tree_map
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.levels import boxes_left, canonical, players
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Intervention, intervened
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import Estimate, bootstrap, by_group, mean, wilson

_TOGETHER = 256
_SYMMETRIES = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


@dataclass(frozen=True)
class Game:
    """An episode that has been played."""

    board: NDArray[np.uint8]
    """`[H, W]`: as it began."""
    actions: NDArray[np.int64]
    """`[T]`"""
    solved: bool


@dataclass(frozen=True)
class Turn:
    """One step of all games that still go on, A of them, before it is taken."""

    games: NDArray[np.int64]
    """`[A]`: their numbers."""
    step: int
    boards: NDArray[np.uint8]
    """`[A, H, W]`"""
    obs: Tensor
    """`[A, ...]`"""
    state: State
    """The agent's, before the step."""


Interventions = Callable[[Turn], Sequence[Intervention]]
"""What the agent plays under, by the turn: it may depend on the level and on the board."""


class Play:
    """The games of some boards; iterating plays them and gives every turn.

    Attributes:
        games: those that are over, in the order of the boards; all of them once the iteration is.
    """

    def __init__(
        self,
        agent: Agent,
        boards: NDArray[np.uint8],
        env: SokobanConfig,
        *,
        thinking: int | NDArray[np.int64] = 0,
        state: State | None = None,
        limits: NDArray[np.int64] | None = None,
        forced: Sequence[NDArray[np.int64]] | None = None,
        interventions: Interventions = lambda turn: (),
        progress: Progress = SILENT,
    ):
        """
        Args:
            boards: `[N, H, W]`, each with its player.
            env: whose observations, and whose limit of steps, hold.
            thinking: how often the agent sees a board before its first action; or by game, `[N]`.
            state: the agent's, by game, before that; by default that of the start of an episode.
            limits: steps after which each game ends, `[N]`; by default the environment's.
            forced: actions to take instead of the agent's own, by game; one ends with them, or when it is solved.
        """
        self.agent, self.boards, self.games = agent, boards, []
        self._env, self._forced, self._interventions, self._progress = env, forced, interventions, progress
        self._thinking, self._state = np.broadcast_to(thinking, len(boards)), state
        self._limits = np.full(len(boards), env.max_steps) if limits is None else limits
        if forced is not None:
            self._limits = np.array([len(actions) for actions in forced])

    def finish(self) -> list[Game]:
        """Play them all; returns the games."""
        for _ in self:
            pass
        return self.games

    @torch.no_grad()
    def __iter__(self) -> Iterator[Turn]:
        self.games = []
        with evaluating(self.agent), self._progress.bar("Playing", len(self.boards), "levels") as update:
            for start in range(0, len(self.boards), _TOGETHER):
                yield from self._some(start)
                update(len(self.games))

    def _some(self, start: int) -> Iterator[Turn]:
        boards = self.boards[start : start + _TOGETHER].copy()
        count, channels = len(boards), self._env.observation_shape[0]
        at, left, obs = players(boards), boxes_left(boards), rules.observe(boards, channels)
        steps, reward = np.zeros(count, np.int64), np.zeros(count, np.float32)
        limits = self._limits[start : start + count]
        taken = np.zeros((count, max(1, limits.max())), np.int64)
        active, step = np.flatnonzero(limits > 0), 0
        state = rows_of(self._thought(start, obs), limits > 0)
        while len(active):
            seen = torch.from_numpy(obs[active]).to(self.agent.device)
            turn = Turn(start + active, step, boards[active], seen, state)
            yield turn
            with intervened(self.agent, self._interventions(turn)):
                out = self.agent.step(seen, state)
            actions = out.preferences.argmax(-1).cpu().numpy()
            if self._forced is not None:
                actions = np.array([self._forced[start + i][step] for i in active.tolist()])
            state = self.agent.after_action(out.state, torch.from_numpy(actions).to(self.agent.device))
            taken[active, step] = actions
            over = np.ones(count, bool)
            over[active] = False
            rules.step(taken[:, step], over, boards, at, left, steps, reward, obs)
            step += 1
            going = (left[active] > 0) & (step < limits[active])
            active, state = active[going], rows_of(state, going)
        self.games += [
            Game(self.boards[start + i].copy(), taken[i, : steps[i]], bool(left[i] == 0)) for i in range(count)
        ]

    def _thought(self, start: int, obs: NDArray[np.uint8]) -> State:
        """The agent's state once it has seen the first boards as often as it is to."""
        chunk = slice(start, start + len(obs))
        seen, thinking = torch.from_numpy(obs).to(self.agent.device), self._thinking[chunk]
        given = self._state
        state = self.agent.initial_state(len(obs)) if given is None else tree_map(lambda leaf: leaf[chunk], given)
        for thought in range(thinking.max(initial=0)):
            still = torch.from_numpy(thinking > thought)
            new = self.agent.step(seen, state).state
            state = where(still, new, state)
        return state


def where(chosen: Tensor, new: State, old: State) -> State:
    """A state whose rows are those of `new` where `chosen [B]`, else those of `old`."""
    return tree_map(lambda a, b: torch.where(chosen.to(a.device).view(-1, *[1] * (a.dim() - 1)), a, b), new, old)


def rows_of(state: State, kept: NDArray[np.bool_]) -> State:
    """Some rows of an agent's state."""
    chosen = torch.from_numpy(kept)
    return state if kept.all() else tree_map(lambda leaf: leaf[chosen.to(leaf.device)], state)


def sokoban_env(loaded: Loaded) -> SokobanConfig:
    """The environment of an agent of Sokoban.

    Raises:
        UserError: it plays something else.
    """
    if not isinstance(loaded.env, SokobanConfig):
        raise UserError(f"{loaded.run.path} plays {loaded.env.id}; give a run of an agent in Sokoban.")
    return loaded.env


@dataclass(frozen=True)
class Boards:
    """Boards to play, and which level each is of: symmetric ones are of the same."""

    boards: NDArray[np.uint8]
    """`[N, H, W]`"""
    level: NDArray[np.int64]
    """`[N]`: its number in the set; the same for mirror images and turns of one level."""


def boards_of(env: SokobanConfig, count: int, seed: int, past: int = 0) -> Boards:
    """`count` boards of an environment: generated ones from `seed` on, or those of its set, which are played as they
    are, and then turned and mirrored. The first `past` levels are passed over.

    Raises:
        UserError: there are fewer, with all symmetries.
    """
    choice = Choice(env)
    if choice.set is None:
        boards, _ = choice.levels(np.arange(seed + past, seed + past + count))
        # In small rooms many are the same, turned or mirrored.
        return Boards(boards, np.unique([canonical(board) for board in boards], return_inverse=True)[1])
    if past >= len(choice.set):
        raise UserError(
            f"{env.levels} has {len(choice.set)} levels, which leaves none beside the first {past}; use fewer of them, "
            "or give other levels."
        )
    levels = choice.set[past:]
    symmetries = _SYMMETRIES if env.rows == env.columns else [each for each in _SYMMETRIES if each[0] % 2 == 0]
    if count > len(levels) * len(symmetries):
        raise UserError(
            f"{count} episodes asked for, and {env.levels} has {len(levels)} levels{' more' if past else ''}, or "
            f"{len(levels) * len(symmetries)} turned and mirrored; ask for fewer, or give other levels."
        )
    used = symmetries[: -(-count // len(levels))]
    boards = np.concatenate([levels.symmetric(*each).boards for each in used])[:count]
    return Boards(boards, np.tile(past + np.arange(len(levels)), len(used))[:count])


def over_levels(cases: NDArray[np.bool_], level: NDArray[np.int64]) -> Estimate:
    """The share of `cases [D, N]` that are true, of D draws over the same N games, with an interval over their levels.
    Draws on a level, and its mirror images and turns, are too alike to count each. A single draw over different levels
    has Wilson's interval."""
    if len(cases) == 1 and len(np.unique(level)) == len(level):
        return wilson(cases[0])
    return bootstrap([by_group(cases.mean(0), level)], mean)


def range_of(draws: Sequence[NDArray[np.bool_]] | NDArray[np.bool_]) -> list[float]:
    """The lowest and the highest share of true cases of some draws, each `[N]`."""
    shares = [float(each.mean()) for each in draws]
    return [min(shares), max(shares)]
