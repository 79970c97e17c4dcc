"""Lessons of a solver: an agent plays, and is told at every step what the solver would do there (DAgger; Ross, Gordon &
Bagnell 2011, arXiv 1011.0686).

Solutions alone show what to do where nothing has gone wrong yet; an agent that has learned from them gets lost after
its first mistake. Here the mistakes are part of the lesson.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.core.agent import Agent, State
from rl_interp.core.compiled import compiled
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.envs.sokoban.kinds import BOX_ON_TARGET, MOVES
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.envs.sokoban.rules import BOX, SOLVED, STEP, push
from rl_interp.core.envs.sokoban.solve import solve
from rl_interp.core.envs.sokoban.vector import SokobanVector

_BOARDS = 20_000
"""Boards that a search looks at, at most: what takes longer is left out of the lesson."""
_MOVES = np.array(MOVES)


@dataclass
class _Plan:
    """What the solver would do from a board on; empty where it knows no way."""

    actions: NDArray[np.int64]
    returns: NDArray[np.float32]
    """What each step and those after it earn, discounted."""


class Lessons:
    """N boards that an agent plays, with the solver's actions.

    The agent's own actions are played, sampled from its policy, except for pushes after which the solver finds no way
    any more: the rest of such an episode would teach nothing, so the solver's action is played instead.
    """

    def __init__(self, config: IMPALAConfig, seed: int):
        assert isinstance(config.env, SokobanConfig)
        self._config = config
        own_seed, env_seed = np.random.SeedSequence(seed).generate_state(2)
        self._rng = np.random.default_rng(own_seed)
        self._env = SokobanVector(config.env, config.num_envs)
        self._obs, self._first = self._env.reset(int(env_seed >> 1)), np.ones(config.num_envs, bool)
        self._ended = np.zeros(config.num_envs, bool)
        self._plans = [self._solved(board) for board in self._env.boards]

    @torch.no_grad()
    def next(self, agent: Agent, state: State) -> dict[str, NDArray[Any]]:
        """The next T steps: `obs [T, N, C, H, W]`; `first`, `actions` (the solver's), `returns` (what they earn) and
        `known` (whether there are such), `[T, N]`."""
        rows = []
        for _ in range(self._config.unroll):
            obs, first = (torch.from_numpy(each).to(agent.device) for each in (self._obs, self._first))
            out = agent.step(obs, state, first)
            state = out.state
            assert out.logits is not None
            row = {"obs": self._obs, "first": self._first, **self._taught()}
            rows.append(row)
            self._play(self._sampled(out.logits), row["actions"], row["known"])
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _taught(self) -> dict[str, NDArray[Any]]:
        known = np.array([len(plan.actions) > 0 for plan in self._plans]) & ~self._ended
        actions, returns = np.zeros(len(known), np.int64), np.zeros(len(known), np.float32)
        for i in np.flatnonzero(known):
            actions[i], returns[i] = self._plans[i].actions[0], self._plans[i].returns[0]
        return {"actions": actions, "returns": returns, "known": known}

    def _sampled(self, logits: Tensor) -> NDArray[np.int64]:
        noise = self._rng.gumbel(size=tuple(logits.shape))
        return (logits.float().cpu().numpy() + noise).argmax(-1)

    def _play(self, actions: NDArray[np.int64], taught: NDArray[np.int64], known: NDArray[np.bool_]) -> None:
        """Take one step everywhere, and see how to go on from there."""
        for i in np.flatnonzero(known):
            plan = self._plans[i]
            if actions[i] != taught[i]:
                board = self._env.boards[i]
                pushed = _moved(board, int(actions[i]))
                after = plan if pushed < 0 else self._solved(board)
                if len(after.actions):
                    self._plans[i] = after
                    continue
                actions[i] = taught[i]
            self._plans[i] = _Plan(plan.actions[1:], plan.returns[1:])
        self._env.send(actions)
        step = self._env.recv()
        for i in np.flatnonzero(step.first):
            self._plans[i] = self._solved(self._env.boards[i])
        self._obs, self._first, self._ended = step.obs, step.first, step.done

    def _solved(self, board: NDArray[np.uint8]) -> _Plan:
        # Of solutions with the fewest pushes there are many, and which one is meant could not be learned.
        actions = solve(board, _BOARDS, "steps").actions
        return self._plan(board, np.empty(0, np.int64) if actions is None else actions)

    def _plan(self, board: NDArray[np.uint8], actions: NDArray[np.int64]) -> _Plan:
        scale, gamma = self._config.reward_scale, self._config.gamma
        return _Plan(actions, _returns(board.copy(), *players(board[None])[0], actions, scale, gamma))

    def state(self) -> dict[str, Any]:
        return {
            "env": self._env.state(),
            "rng": self._rng.bit_generator.state,
            "first": self._first.tolist(),
            "ended": self._ended.tolist(),
            "plans": [plan.actions.tolist() for plan in self._plans],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._obs = self._env.restore(state["env"])
        self._rng.bit_generator.state = state["rng"]
        self._first, self._ended = np.array(state["first"], bool), np.array(state["ended"], bool)
        self._plans = [
            self._plan(board, np.array(actions, np.int64))
            for board, actions in zip(self._env.boards, state["plans"], strict=True)
        ]


def _moved(board: NDArray[np.uint8], action: int) -> int:
    """Play an action on a board, in place; -1 where nothing moves."""
    return push(board, *players(board[None])[0], *_MOVES[action]) if action < len(_MOVES) else -1


@compiled()
def _returns(
    board: NDArray[np.uint8], row: int, column: int, actions: NDArray[np.int64], scale: float, gamma: float
) -> NDArray[np.float32]:
    """What each action and those after it earn as they are played on `board`, in place."""
    returns = np.empty(len(actions), np.float32)
    for t in range(len(actions)):
        down, right = _MOVES[actions[t]]
        before = board[row + down, column + right] == BOX_ON_TARGET
        returns[t] = STEP
        if push(board, row, column, down, right) == 1:
            on = board[row + 2 * down, column + 2 * right] == BOX_ON_TARGET
            returns[t] += BOX * (np.int64(on) - np.int64(before))
        row, column = row + down, column + right
    returns[-1:] += SOLVED
    following = 0.0
    for t in range(len(actions) - 1, -1, -1):
        following = scale * returns[t] + gamma * following
        returns[t] = following
    return returns
