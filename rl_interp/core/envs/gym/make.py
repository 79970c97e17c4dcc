"""From a config to the Gymnasium environment that it describes."""

import ast
import difflib
import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from rl_interp.core.code import call_code, import_code, load_code
from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.envs.gym.wrappers import is_harmless, normalises, wrapper
from rl_interp.core.errors import UserError

PACKAGES = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Packages that the suite itself needs, by the beginnings of the ids that they register when they are imported."""


def make(config: GymConfig) -> gymnasium.Env:
    """Make the environment, able to render a screen if it can.

    Raises:
        UserError: code that the config names is not trusted, has changed, or raises an error; the id is unknown; or
            what the environment needs is not installed.
    """
    kwargs = dict(_setting(each) for each in config.kwargs)
    needed = reference(config.id)
    env = _registered(config.id, kwargs) if needed is None else _named(config, needed, kwargs)
    for text in config.wrappers:
        env = _wrapped(config, env, text)
    return env


def reference(env_id: str) -> str | None:
    """The code that an environment needs beside Gymnasium and the packages of the suite.

    Of `file.py:function` and `module:function` the function, of `module:id` the module, and of an id that another
    package has registered, as its plugin for Gymnasium does, that package; else None.
    """
    where, colon, name = env_id.rpartition(":")
    if colon:
        return env_id if name.isidentifier() else f"{where}:*"
    _import_package(env_id)
    creator = gymnasium.registry[env_id].entry_point if env_id in gymnasium.registry else None
    package = creator.partition(":")[0].partition(".")[0] if isinstance(creator, str) else "gymnasium"
    return None if package in ("gymnasium", *PACKAGES.values()) else f"{package}:*"


def _import_package(env_id: str) -> None:
    for beginning, package in PACKAGES.items():
        if env_id.startswith(beginning):
            importlib.import_module(package)


def _named(config: GymConfig, needed: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    code = config.code_of(needed)
    if needed != config.id:
        import_code(code)
        return _registered(config.id.rpartition(":")[2], kwargs)
    mode = {"render_mode": "rgb_array"} if _takes_mode(load_code(code)) else {}
    return _environment(call_code(code, **{**mode, **kwargs}), config.id)


def _takes_mode(function: Callable[..., Any]) -> bool:
    try:
        return "render_mode" in inspect.signature(function).parameters
    except ValueError:  # what is not written in Python may not say what it takes
        return False


def _environment(made: object, by: str) -> gymnasium.Env:
    if not isinstance(made, gymnasium.Env):
        raise UserError(
            f"{by} gave {type(made).__name__}, where a gymnasium.Env is wanted; give one, or, of several at once, the "
            "function that makes one of them."
        )
    return made


def _registered(env_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    _import_package(env_id)
    if env_id not in gymnasium.registry:
        raise UserError(unknown_id(env_id))
    try:
        mode = {"render_mode": "rgb_array"} if _has_screen(env_id) else {}
        return gymnasium.make(env_id, disable_env_checker=True, **{**mode, **kwargs})
    except Exception as error:  # whatever a package raises
        raise UserError(f"{env_id} can't be made: {line(error)}.") from error


def _has_screen(env_id: str) -> bool:
    creator = gymnasium.spec(env_id).entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    return "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ())


def unknown_id(env_id: str) -> str:
    """The sentence for an id that nobody has registered, with the nearest first."""
    for package in PACKAGES.values():
        importlib.import_module(package)
    near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=3)
    hint = f"the nearest are {', '.join(near)}; " if near else ""
    return (
        f"unknown environment {env_id!r}; {hint}an id that a package registers when it is imported is given as "
        "package:id, and a function of yours as my.py:make."
    )


def _wrapped(config: GymConfig, env: gymnasium.Env, text: str) -> gymnasium.Env:
    name, positional, named = wrapper(text)
    if normalises(name):
        raise UserError(
            f"{text} scales by what this copy of the environment has seen, which is lost with it, so that an agent "
            "would be scored on other numbers than it learned from; leave it out, or give RescaleObservation or "
            "ClipReward."
        )
    if not is_harmless(name):
        return _environment(call_code(config.code_of(name), env, *positional, **named), name)
    try:
        return getattr(gymnasium.wrappers, name.partition(":")[2])(env, *positional, **named)
    except Exception as error:
        raise UserError(f"{text} can't wrap {config.id}: {line(error)}.") from error


def _setting(text: str) -> tuple[str, Any]:
    """`name=value`; what is no literal of Python's is a text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"{text!r} given as a setting of an environment; give name=value, as in is_slippery=False.")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def line(error: BaseException) -> str:
    """An error in one line; where it was raised, if it says nothing itself."""
    message = str(error).strip().partition("\n")[0].rstrip(".")
    if not message and (frames := traceback.extract_tb(error.__traceback__)):
        message = f"at `{frames[-1].line}` in {Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
