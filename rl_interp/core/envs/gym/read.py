"""From what a user names to a config: what a config must tell is read from an environment that is made and played."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rl_interp.core.code import code_of
from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.envs.gym.game import GymGame
from rl_interp.core.envs.gym.labels import kinds, labels_of
from rl_interp.core.envs.gym.make import make, reference
from rl_interp.core.envs.gym.spaces import spaces_of
from rl_interp.core.envs.gym.wrappers import is_harmless, wrapper
from rl_interp.core.errors import UserError

_STEPS, _SECONDS = 100, 0.3
"""Of the play by which it is seen whether an episode follows from its seed and its actions, at most."""


def gym_config(
    env_id: str,
    *,
    kwargs: Sequence[str] = (),
    wrappers: Sequence[str] = (),
    symbols: Sequence[int] = (),
    labels: str = "",
    info: Sequence[str] = (),
) -> GymConfig:
    """The config of an environment that the user names himself, whose code is trusted for him by that.

    Args:
        env_id, kwargs, wrappers, symbols, labels, info: as the fields of `GymConfig`.

    Raises:
        UserError: the environment can't be made or played, the suite has no form for its spaces, or its labels are no
            numbers.
    """
    _require_one(labels, info)
    named = _code(env_id, wrappers, labels)
    config = GymConfig(
        env_id, tuple(kwargs), tuple(wrappers), tuple(symbols), labels, tuple(info), tuple(map(code_of, named))
    )
    env = make(config)
    config = replace(config, spaces=spaces_of(env, env_id, config.symbols))
    env.close()
    return _played(config)


def labelled_by(config: EnvConfig, labels: str = "", info: Sequence[str] = ()) -> EnvConfig:
    """The same environment with ground truth that the user names now. What else the config names must be trusted
    already.

    Args:
        labels, info: as the fields of `GymConfig`.

    Raises:
        UserError: the environment is of a family whose ground truth is the suite's, it can't be made, or its labels are
            no numbers.
    """
    _require_one(labels, info)
    if not isinstance(config, GymConfig):
        raise UserError(
            f"labels of {config.id} given, whose ground truth is the suite's own; an agent that is imported with "
            "--env.labels plays Gymnasium's environment of that id instead."
        )
    kept = tuple(code for code in config.code if code.reference != config.labels)
    named = (code_of(labels),) if labels else ()
    config = replace(config, labels=labels, info=tuple(info), code=kept + named)
    game = GymGame(config)
    game.reset(0)
    yes_or_no, numbers = kinds(labels_of(config, game))
    game.close()
    return replace(config, spaces=replace(config.spaces, yes_or_no=yes_or_no, numbers=numbers))


def _require_one(labels: str, info: Sequence[str]) -> None:
    if labels and info:
        raise UserError("both labels and info given; let the function of the labels look into info.")


def _code(env_id: str, wrappers: Sequence[str], labels: str) -> list[str]:
    """What is named that is no part of Gymnasium."""
    named = [needed] if (needed := reference(env_id)) else []
    named += [name for name, *_ in map(wrapper, wrappers) if not is_harmless(name)]
    return [*named, labels] if labels else named


def _played(config: GymConfig) -> GymConfig:
    """The config with what is seen by playing: labels, and whether episodes follow from seeds and actions."""
    game = GymGame(config)
    game.reset(0)
    labels = labels_of(config, game)
    first = _episode(game, config, _STEPS, seed=1, seconds=_SECONDS)
    _episode(game, config, len(first) - 1, seed=2)  # what came before must not matter
    seeded = first == _episode(game, config, len(first) - 1, seed=1)
    game.close()
    yes_or_no, numbers = kinds(labels)
    return replace(config, spaces=replace(config.spaces, seeded=seeded, yes_or_no=yes_or_no, numbers=numbers))


def _episode(
    game: GymGame, config: GymConfig, steps: int, seed: int, seconds: float = math.inf
) -> list[tuple[bytes, float]]:
    """What up to so many steps of random actions, and so many seconds of them, show and pay."""
    rng, count = np.random.default_rng(seed), len(config.action_names)
    obs = np.empty(config.observation_shape, config.observation_dtype)
    game.reset(seed)
    game.observe(obs)
    seen, start = [(obs.tobytes(), 0.0)], time.perf_counter()
    while len(seen) <= steps and time.perf_counter() - start < seconds:
        discrete = config.action_kind == "discrete"
        action = int(rng.integers(count)) if discrete else rng.uniform(-1, 1, count).astype(np.float32)
        reward, *ended = game.step(action)
        game.observe(obs)
        seen.append((obs.tobytes(), reward))
        if any(ended):
            break
    return seen
