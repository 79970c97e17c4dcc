"""Imitation of solutions: before reinforcement learning, or instead of it, an agent learns to play as a solver does.

The policy is taught the solution's actions (cross-entropy) and the value what the solution still earns. Solutions are
read from a file, or searched as they are needed. Levels come in their mirror images and turns, so that few go far.
"""

import csv
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rl_interp.agents.impala.agent import load_start, make_agent
from rl_interp.agents.impala.config import SOLVER, IMPALAConfig
from rl_interp.agents.impala.learner import Learner
from rl_interp.agents.loop import check_finite, restored_state, score
from rl_interp.core.device import keep_memory, pick_device
from rl_interp.core.envs import EnvConfig, SokobanConfig
from rl_interp.core.envs.sokoban import ACTIONS, MOVES
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.levels import Levels
from rl_interp.core.envs.sokoban.rules import observe
from rl_interp.core.envs.sokoban.solve import solve
from rl_interp.core.envs.sokoban.vector import SokobanVector
from rl_interp.core.errors import UserError
from rl_interp.core.read import open_file, reading
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import load_into

_BOARDS = 20_000
"""Boards that a search for a solution looks at, at most."""
_PATIENCE = 100
"""Levels without one that are drawn in a row before giving up."""
_KEPT = 20_000
"""Solutions that are searched once, if they are asked for again."""
_SEEDS = 2**31
"""Generated levels."""
_REMEDY = "give a CSV file with the columns level and actions, the actions of a level as letters such as LURRD"
_LETTERS = {name[0].upper(): number for number, name in enumerate(ACTIONS)}


class Demonstration(NamedTuple):
    """A level solved, step by step; L steps."""

    boards: NDArray[np.uint8]
    """`[L, H, W]`: kinds of cells before each step."""
    actions: NDArray[np.int64]
    """`[L]`"""
    rewards: NDArray[np.float32]
    """`[L]`"""


class Imitation:
    """The state of a training by imitation; see `agents.loop.Training`. A step is one action of a solution.

    `config.num_envs` solutions are gone through side by side, `config.unroll` steps an update. The agent keeps its
    memory from one update to the next.
    """

    def __init__(self, config: IMPALAConfig, seed: int, device: str = "auto"):
        keep_memory()
        torch.manual_seed(seed)
        self.config, self.seed = config, seed
        shown = _Solved(config.env) if config.imitate == SOLVER else demonstrations(config)
        self._streams = _Streams(shown, config, np.random.default_rng(seed))
        self.agent = make_agent(config)
        load_start(self.agent, config)
        self.learner = Learner(self.agent, config, pick_device(device))
        self._memory: tuple[Tensor, ...] = self.agent.initial_state(config.num_envs)
        self.agent_steps = 0
        self._figures: dict[str, float] = {}

    def advance(self) -> None:
        """One update, on the next steps of all streams."""
        config, device = self.config, self.learner.device
        batch = {name: torch.from_numpy(array).to(device) for name, array in self._streams.next().items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=self.learner.bf16):
            out = self.agent.unroll(batch["obs"], self._memory, batch["first"])
        assert out.logits is not None
        assert out.value is not None
        policy = F.cross_entropy(out.logits.flatten(0, 1), batch["actions"].flatten())
        value = 0.5 * (batch["returns"] - out.value).square().mean()
        self.learner.descend(policy + config.baseline_cost * value, self.agent_steps / config.agent_steps)
        self._memory = tuple(leaf.detach() for leaf in out.state)
        self.agent_steps += batch["actions"].numel()
        alike = (out.logits.argmax(-1) == batch["actions"]).float().mean()
        self._figures = {
            "loss": policy.item(), "value_loss": value.item(), "accuracy": alike.item(),
            "updates": self.learner.updates,
        }  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """Of the last update: cross-entropy of the solutions' actions, value loss, and how often the likeliest action
        is the solution's."""
        check_finite(self._figures.get("loss", 0.0), self.agent_steps)
        return self._figures

    def score(self) -> Episodes:
        """Evaluate, with the policy sampled from."""
        return score(self.agent, self.config, self.seed)

    def state(self) -> dict[str, Any]:
        return {
            "agent_steps": self.agent_steps,
            "learner": self.learner.state(),
            "memory": list(self._memory),
            "streams": self._streams.state(),
        }

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any], source: Path) -> None:
        load_into(self.agent, weights, source)
        self.learner.restore(state["learner"])
        self._memory = restored_state(state["memory"], self._memory)
        self._streams.restore(state["streams"])
        self.agent_steps = state["agent_steps"]

    def continue_from(self, weights: Mapping[str, Tensor], agent_steps: int, source: Path) -> None:
        """Go on from weights alone: the optimiser and the streams start afresh."""
        load_into(self.agent, weights, source)
        self.agent_steps = agent_steps

    def close(self) -> None:
        pass


def demonstrations(config: IMPALAConfig) -> list[Demonstration]:
    """The solved levels of `config.env` that `config.imitate` has solutions of, replayed.

    Raises:
        UserError: no such file, no solutions of these levels, or one that does not solve its level.
    """
    env = config.env
    assert isinstance(env, SokobanConfig)
    assert config.imitate is not None
    levels = Choice(env).set
    if levels is None:
        raise UserError(f"imitate given for generated levels; give --env.levels FOLDER, of which {config.imitate} has "
                        "solutions.")  # fmt: skip
    solutions = read_solutions(config.imitate)
    solved = [i for i, name in enumerate(levels.ids) if name in solutions]
    if not solved:
        raise UserError(
            f"{config.imitate} has solutions of levels such as {next(iter(solutions))!r}, but none of those of "
            f"{env.levels}, such as {levels.ids[0]!r}; {_REMEDY}."
        )
    game = SokobanVector(env, len(solved))
    return _replayed(game, levels[solved], [solutions[levels.ids[i]] for i in solved], config.imitate)


def read_solutions(path: Path | str) -> dict[str, NDArray[np.int64]]:
    """A solution's actions by the name of its level: that in the column `level`, or `file:level` where there is a
    column `file`, as in the published A* solutions of Boxoban."""
    with open_file(path, _REMEDY) as file, reading(path, _REMEDY):
        rows = csv.DictReader(file.read().decode().splitlines())
        if not {"level", "actions"} <= set(rows.fieldnames or ()):
            raise ValueError(f"its columns are {rows.fieldnames}")
        found = {}
        for row in rows:
            name = f"{row['file']}:{row['level']}" if "file" in row else row["level"]
            if strange := set(row["actions"]) - set(_LETTERS):
                raise ValueError(f"level {name} has the action {min(strange)!r}")
            found[name] = np.array([_LETTERS[letter] for letter in row["actions"]], np.int64)
    if not found:
        raise UserError(f"{path} has no solutions; {_REMEDY}.")
    return found


def _replayed(
    game: SokobanVector, levels: Levels, solutions: list[NDArray[np.int64]], source: str
) -> list[Demonstration]:
    """All of them at once, each until it is solved."""
    longest = max(map(len, solutions))
    game.reset(0)
    game.set_state(levels, steps=-longest)  # so that none is truncated
    boards, rewards = [], []
    lengths = np.zeros(len(levels), np.int64)
    for t in range(longest):
        boards.append(game.boards)
        game.send(np.array([actions[t] if t < len(actions) else 0 for actions in solutions]))
        step = game.recv()
        rewards.append(step.reward)
        lengths[step.terminated & (lengths == 0)] = t + 1
    for i in np.flatnonzero(lengths != [len(actions) for actions in solutions])[:1]:
        raise UserError(f"the solution of level {levels.ids[i]} in {source} does not solve it with its last action; "
                        f"{_REMEDY}.")  # fmt: skip
    return [
        Demonstration(
            np.stack([board[i] for board in boards[:length]]),
            solutions[i],
            np.array([reward[i] for reward in rewards[:length]], np.float32),
        )
        for i, length in enumerate(lengths)
    ]


class _Solved:
    """The levels of an environment with the solutions that a search finds, those with the fewest steps, when they are
    asked for."""

    def __init__(self, env: EnvConfig):
        assert isinstance(env, SokobanConfig)
        self._game = SokobanVector(env, 1)
        self._search = lru_cache(_KEPT)(self._searched)

    def __len__(self) -> int:
        levels = self._game.choice.set
        return _SEEDS if levels is None else len(levels)

    def __getitem__(self, number: int) -> Demonstration | None:
        """None where the search finds no solution."""
        return self._search(number)

    def _searched(self, number: int) -> Demonstration | None:
        choice = self._game.choice
        board = choice.levels(np.array([number]))[0][0]
        actions = solve(board, _BOARDS, "steps").actions
        level = Levels(board[None], (choice.level_id(number),))
        return None if actions is None else _replayed(self._game, level, [actions], SOLVER)[0]


class _Streams:
    """Endless rows of solutions, each in a random symmetry, side by side."""

    def __init__(
        self, demonstrations: Sequence[Demonstration] | _Solved, config: IMPALAConfig, rng: np.random.Generator
    ):
        self._all, self._config, self._rng = demonstrations, config, rng
        self._turns = range(4) if config.env.observation_shape[1] == config.env.observation_shape[2] else (0, 2)
        count = config.num_envs
        self._at = np.zeros(count, np.int64)
        self._drawn = np.zeros((count, 3), np.int64)
        """Number, quarter turns, and whether mirrored."""
        self._episodes = [self._draw(i) for i in range(count)]

    def next(self) -> dict[str, NDArray[Any]]:
        """The next steps: `obs [T, B, C, H, W]`, `first`, `actions` and `returns [T, B]`."""
        columns = [self._take(i) for i in range(self._config.num_envs)]
        return {name: np.stack([column[name] for column in columns], 1) for name in columns[0]}

    def _take(self, i: int) -> dict[str, NDArray[Any]]:
        parts, missing = [], self._config.unroll
        while missing:
            episode, at = self._episodes[i], self._at[i]
            part = {name: values[at : at + missing] for name, values in episode.items()}
            parts.append(part)
            missing -= len(part["actions"])
            self._at[i] += len(part["actions"])
            if self._at[i] == len(episode["actions"]):
                self._at[i], self._episodes[i] = 0, self._draw(i)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _draw(self, i: int) -> dict[str, NDArray[Any]]:
        for _ in range(_PATIENCE):
            number = int(self._rng.integers(len(self._all)))
            if self._all[number] is not None:
                self._drawn[i] = number, self._rng.choice(self._turns), self._rng.integers(2)
                return self._episode(*self._drawn[i])
        raise UserError(f"no solution found of {_PATIENCE} levels; give others, or --imitate FILE with solutions.")

    def _episode(self, number: int, turns: int, mirrored: int) -> dict[str, NDArray[Any]]:
        shown = self._all[number]
        assert shown is not None
        boards, actions, rewards = shown
        boards = np.rot90(boards, turns, (1, 2))
        boards = boards[..., ::-1] if mirrored else boards
        first = np.zeros(len(actions), bool)
        first[0] = True
        rewards = self._config.reward_scale * rewards
        returns = np.empty_like(rewards)
        following = np.float32(0)
        for t in reversed(range(len(rewards))):
            returns[t] = following = rewards[t] + self._config.gamma * following
        obs = observe(boards, self._config.env.observation_shape[0])
        return {"obs": obs, "first": first, "actions": _TURNED[mirrored][turns][actions], "returns": returns}

    def state(self) -> dict[str, Any]:
        return {"at": self._at.tolist(), "drawn": self._drawn.tolist(), "rng": self._rng.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._at[:], self._drawn[:] = state["at"], state["drawn"]
        self._episodes = [self._episode(*drawn) for drawn in self._drawn]
        self._rng.bit_generator.state = state["rng"]


def _turned(turns: int, mirrored: bool) -> NDArray[np.int64]:
    """Which action leads, on a board that was turned counterclockwise and then mirrored, where each one led before."""
    found = []
    for down, right in MOVES:
        for _ in range(turns):
            down, right = -right, down
        found.append(MOVES.index((down, -right if mirrored else right)))
    return np.array(found)


_TURNED = [[_turned(turns, mirrored) for turns in range(4)] for mirrored in (False, True)]
