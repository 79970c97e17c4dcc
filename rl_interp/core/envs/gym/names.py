"""What the numbers and actions of an environment are called: as it says itself, or as Gymnasium documents them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import gymnasium
from gymnasium import wrappers


@dataclass(frozen=True)
class _Known:
    observations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


_LANDER = (
    "x", "y", "x velocity", "y velocity", "angle", "angular velocity", "left leg on ground", "right leg on ground",
)  # fmt: skip
_KNOWN = {
    "CartPole": _Known(("cart position", "cart velocity", "pole angle", "pole velocity"), ("left", "right")),
    "MountainCar": _Known(("position", "velocity"), ("left", "none", "right")),
    "MountainCarContinuous": _Known(("position", "velocity"), ("force",)),
    "Acrobot": _Known(
        ("cos angle 1", "sin angle 1", "cos angle 2", "sin angle 2", "velocity 1", "velocity 2"),
        ("torque -1", "torque 0", "torque +1"),
    ),
    "Pendulum": _Known(("cos angle", "sin angle", "velocity"), ("torque",)),
    "LunarLander": _Known(_LANDER, ("none", "left engine", "main engine", "right engine")),
    "LunarLanderContinuous": _Known(_LANDER, ("main engine", "side engines")),
    "FrozenLake": _Known(actions=("left", "down", "right", "up")),
    "FrozenLake8x8": _Known(actions=("left", "down", "right", "up")),
    "CliffWalking": _Known(actions=("up", "right", "down", "left")),
    "CliffWalkingSlippery": _Known(actions=("up", "right", "down", "left")),
    "Taxi": _Known(actions=("south", "north", "east", "west", "pickup", "dropoff")),
    "Blackjack": _Known(("player", "dealer", "ace"), ("stick", "hit")),
}
"""By id without version: of a vector's numbers or a tuple's members, and of the actions."""


_KEEP = (wrappers.RescaleObservation, wrappers.DtypeObservation, wrappers.ClipAction, wrappers.RescaleAction)
"""Wrappers that give an environment other spaces, in which each number means what it did."""


def observation_names(env: gymnasium.Env, count: int) -> tuple[str, ...]:
    """Names of the `count` numbers of a vector or members of a tuple: the `observation_names` of the environment or a
    wrapper, or known ones; empty without any."""
    for layer in _layers(env, "_observation_space"):
        if names := _fitting(count, getattr(layer, "observation_names", None), _known(layer).observations):
            return names
    return ()


def action_names(env: gymnasium.Env, count: int) -> tuple[str, ...]:
    """Names of `count` actions, or numbers of a continuous one: the `action_names` of the environment or a wrapper,
    what its `get_action_meanings` gives, its enumeration `actions`, or known ones; empty without any."""
    for layer in _layers(env, "_action_space"):
        meanings, listed = getattr(layer, "get_action_meanings", None), getattr(layer, "actions", None)
        names = _fitting(
            count,
            getattr(layer, "action_names", None),
            meanings() if callable(meanings) else None,
            [each.name for each in listed] if isinstance(listed, type) and issubclass(listed, Enum) else None,
            _known(layer).actions,
        )
        if names:
            return names
    return ()


def _layers(env: gymnasium.Env, changed: str) -> Iterator[gymnasium.Env]:
    """An environment from the outside in, up to where a wrapper changes what its numbers mean."""
    yield env
    while isinstance(env, gymnasium.Wrapper) and (getattr(env, changed) is None or isinstance(env, _KEEP)):
        env = env.env
        yield env


def _known(layer: gymnasium.Env) -> _Known:
    if isinstance(layer, gymnasium.Wrapper) or layer.spec is None:
        return _Known()
    return _KNOWN.get(layer.spec.id.partition("-v")[0], _Known())


def _fitting(count: int, *each: Any) -> tuple[str, ...]:
    """The first of several lists of names that has as many as there are things."""
    for names in each:
        if isinstance(names, tuple | list) and len(names) == count:
            return tuple(map(str, names))
    return ()
