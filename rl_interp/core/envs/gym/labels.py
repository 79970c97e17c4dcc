"""Ground truth that a user knows: what his function says of a state, or entries of the environment's `info`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rl_interp.core.code import call_code
from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.envs.gym.game import GymGame
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.errors import UserError


def labels_of(config: GymConfig, game: GymGame) -> dict[str, float | bool]:
    """What is true of a game's present state; empty where nothing is known.

    Raises:
        UserError: a label is no finite number, or an entry of `info` is not there.
    """
    if config.labels:
        given = call_code(config.code_of(config.labels), game.told, game.shown)
        return _numbers(given, config.labels)
    missing = [name for name in config.info if name not in game.told]
    if missing:
        raise UserError(
            f"info={missing[0]} given, and {config.id} gave {_listed(game.told)} as info; what is not there in every "
            "state, after a reset too, a function can say (labels)."
        )
    return _numbers({name: game.told[name] for name in config.info}, f"info of {config.id}")


def kinds(labels: Mapping[str, float | bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the labels that are true or false, and of the others."""
    yes_or_no = tuple(name for name, value in labels.items() if isinstance(value, bool))
    return yes_or_no, tuple(name for name in labels if name not in yes_or_no)


def concepts(config: GymConfig) -> dict[str, Concept]:
    """What the labels mean, as far as the suite can know: who says so."""
    sha256 = config.code_of(config.labels).sha256 if config.labels else ""
    who = f"as {config.labels} says (sha256 {sha256})" if config.labels else f"of the info of {config.id}"
    spaces = config.spaces
    return {name: Concept(f"{name}, {who}") for name in spaces.yes_or_no} | {
        name: Concept(f"{name}, {who}", "number") for name in spaces.numbers
    }


def _numbers(given: object, who: str) -> dict[str, float | bool]:
    if not isinstance(given, Mapping):
        raise UserError(f"{who} gave {type(given).__name__}; wanted is a dict of numbers by name.")
    return {str(name): _number(name, value, who) for name, value in given.items()}


def _number(name: object, value: Any, who: str) -> float | bool:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise UserError(f"{who} gave {value!r:.60} for {name!r}, where true, false or a finite number is wanted.")
    return float(value)


def _listed(info: Mapping[str, Any]) -> str:
    return ", ".join(map(str, info)) or "nothing"
