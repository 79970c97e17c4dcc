"""A Gymnasium environment as a `Game`, and many of them at once."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import GameVector
from rl_interp.core.envs.gym.config import GymConfig, Spaces
from rl_interp.core.envs.gym.make import line, make
from rl_interp.core.envs.gym.spaces import converter, spaces_of, writer
from rl_interp.core.envs.vector import VectorEnv
from rl_interp.core.envs.workers import WorkerVector, worker_count
from rl_interp.core.errors import UserError

SLOW = 1e-3
"""Seconds of a step from which on environments are spread over processes: handing a step over takes a tenth of that."""


def make_vector(config: GymConfig, num_envs: int, workers: int) -> VectorEnv:
    """In this process, or spread over several: as many as asked for, or as pay where a step takes long."""
    games = partial(make_games, config)
    count = worker_count(num_envs, workers)
    if count > 1 and (workers or _seconds(config) > SLOW):
        return WorkerVector(config, games, num_envs, count)
    return (GymVector if config.spaces.seeded else UnseededVector)(config, games(num_envs))


def make_games(config: GymConfig, count: int) -> list["GymGame"]:
    return [GymGame(config) for _ in range(count)]


class GymVector(GameVector):
    """Gymnasium environments in this process, each episode with a seed of its own."""

    config: GymConfig
    games: Sequence["GymGame"]

    def close(self) -> None:
        for game in self.games:
            game.close()


class UnseededVector(GymVector):
    """Those whose episodes do not follow from seeds and actions. They have no `state()`, so that a resumed training
    begins new ones instead of joining two episodes."""

    @property
    def state(self) -> NoReturn:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise AttributeError("state")


class GymGame:
    """One environment. `shown` and `told` are its last observation and `info`, as it gave them."""

    def __init__(self, config: GymConfig):
        self.config = config
        self.env = make(config)
        _require_same(config, spaces_of(self.env, config.id, config.symbols))
        self._convert, self._write = converter(self.env.action_space), writer(self.env.observation_space, config.id)

    def reset(self, seed: int) -> None:
        try:
            self.shown, self.told = self.env.reset(seed=seed)
        except UserError:
            raise
        except Exception as error:  # whatever a package or the user's code raises
            raise UserError(f"{self.config.id} failed at a reset with seed {seed}: {line(error)}.") from error

    def step(self, action: Any) -> tuple[float, bool, bool]:
        try:
            self.shown, reward, terminated, truncated, self.told = self.env.step(self._convert(action))
            reward, terminated, truncated = float(reward), bool(terminated), bool(truncated)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.config.id} failed at a step with action {action}: {line(error)}.") from error
        if not math.isfinite(reward):
            raise UserError(f"{self.config.id} gave the reward {reward}; rewards must be finite.")
        return reward, terminated, truncated

    def observe(self, out: NDArray[Any]) -> None:
        self._write(self.shown, out)

    def scene(self, out: NDArray[Any]) -> None:
        self._write(self.shown, out)

    def info(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        self.env.close()


def _require_same(config: GymConfig, now: Spaces) -> None:
    """Raise a `UserError` where the config's agents could not play. Names may have become better meanwhile."""
    for name, what in _FORM.items():
        was, found = what(config.spaces), what(now)
        if was != found:
            raise UserError(
                f"{config.id} has {name} {found}, where {was} was recorded; restore what made it so, or make a new run."
            )


_FORM: dict[str, Callable[[Spaces], Any]] = {
    "observations": lambda spaces: (spaces.observation, *spaces.shape),
    "parts of observations": lambda spaces: [(each.name, *each.shape) for each in spaces.parts],
    "actions": lambda spaces: (spaces.action_kind, len(spaces.actions)),
}
"""What must not change, by what it is called."""


def _seconds(config: GymConfig) -> float:
    """What a step takes, seen over a few."""
    game, taken = GymGame(config), 0
    game.reset(0)
    action = 0 if config.action_kind == "discrete" else np.zeros(len(config.action_names), np.float32)
    start = time.perf_counter()
    while taken < 8 and time.perf_counter() - start < 0.1:
        taken += 1
        if any(game.step(action)[1:]):
            break
    spent = time.perf_counter() - start
    game.close()
    return spent / taken
