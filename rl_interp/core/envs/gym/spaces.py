"""Gymnasium's spaces as the suite's: observations as bytes `[C, H, W]` or float32 `[D]`, actions as numbers or
float32 `[D]`."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rl_interp.core.envs.gym.config import Part, Spaces
from rl_interp.core.envs.gym.names import action_names, observation_names
from rl_interp.core.errors import UserError

MAX_ACTIONS = 4_096
"""The most that are made of an action of several choices."""

Write = Callable[[Any, NDArray[Any]], None]
"""`write(obs, out)` puts an observation as the environment gave it where agents get it."""
Convert = Callable[[Any], Any]
"""An action as agents give it to one as the environment takes it."""


def spaces_of(env: gymnasium.Env | gymnasium.vector.VectorEnv, name: str, symbols: tuple[int, ...] = ()) -> Spaces:
    """What an environment shows and takes, or each of several.

    Args:
        name: for messages.
        symbols: how many categories each channel has, where bytes are categories.

    Raises:
        UserError: the suite has no form for one of its spaces.
    """
    space, action_space = single_spaces(env)
    _require_readable(space, name)
    if _is_image(space):
        shape, parts = _image_shape(space.shape or ()), ()
    else:
        parts = tuple(_named(env, [part for part, _ in _leaves(space)], space))
        shape = (sum(int(np.prod(part.shape)) for part in parts),)
    if symbols and (not _is_image(space) or len(symbols) != shape[0]):
        raise UserError(
            f"symbols={symbols} given, and {name} shows {space}; they are the numbers of categories of each channel of "
            "bytes."
        )
    kind, actions = _actions(env, action_space, name)
    return Spaces(
        observation="vector" if not _is_image(space) else "symbols" if symbols else "pixels",
        shape=shape,
        parts=parts,
        action_kind=kind,
        actions=actions,
        fps=max(1, int(env.metadata.get("render_fps") or Spaces.fps)),
        max_steps=env.spec.max_episode_steps if env.spec else None,
    )


def single_spaces(env: gymnasium.Env | gymnasium.vector.VectorEnv) -> tuple[spaces.Space, spaces.Space]:
    """Of observations and actions of an environment, or of each of several."""
    if isinstance(env, gymnasium.Env):
        return env.observation_space, env.action_space
    return env.single_observation_space, env.single_action_space


def writer(space: spaces.Space, name: str) -> Write:
    """What writes observations of a space. It raises a `UserError` for one of another shape."""
    write = _image_writer(space.shape or ()) if _is_image(space) else _vector_writer(space)

    def checked(obs: Any, out: NDArray[Any]) -> None:
        try:
            write(obs, out)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise UserError(f"{name} showed {_described(obs)}, which is not of its {space}.") from None

    return checked


def converter(space: spaces.Space) -> Convert:
    """What makes actions of a space of those that agents give: of one, or, along a first axis, of several."""
    if isinstance(space, spaces.Discrete):
        start, kind = int(space.start), space.dtype.type  # as Gymnasium's vectors give them; ints it checks more slowly
        return lambda action: kind(action + start)
    if isinstance(space, spaces.Box):
        low, high, shape = space.low, space.high, space.shape
        return lambda action: np.clip(action.reshape(*action.shape[:-1], *shape), low, high).astype(low.dtype)
    choices = list(product(*(range(start, start + n) for n, start in _choices(space))))
    table = np.array(choices, space.dtype).reshape(-1, *(space.shape or ()))
    return lambda action: table[action].copy()


def _is_image(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3, 4)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`[C, H, W]` of an image: grey, or with its channels last or first; frames of a stack are channels."""
    match shape:
        case (height, width):
            return (1, height, width)
        case (first, height, last):
            return (first, height, last) if first < last else (last, first, height)
        case _:
            frames, *image = shape
            channels, height, width = _image_shape(tuple(image))
            return (frames * channels, height, width)


def _image_writer(shape: tuple[int, ...]) -> Write:
    frames = len(shape) == 4
    one = shape[1:] if frames else shape
    last = len(one) == 3 and one[0] >= one[2]
    order = (0, 3, 1, 2) if frames and last else (2, 0, 1) if last else tuple(range(len(shape)))

    def write(obs: Any, out: NDArray[Any]) -> None:
        if obs.shape != shape:
            raise ValueError
        turned = obs.transpose(order)
        out.reshape(turned.shape)[:] = turned

    return write


def _vector_writer(space: spaces.Space) -> Write:
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return _straight(space.shape)
    if isinstance(space, spaces.Discrete):
        return _one_hot(int(space.n), int(space.start))
    leaves, at = [], 0
    for part, get in _leaves(space):
        size = int(np.prod(part.shape))
        one = _one_hot(part.shape[0], part.start) if part.one_hot else _straight(part.shape)
        leaves.append((one, get, slice(at, at + size)))
        at += size

    def write(obs: Any, out: NDArray[Any]) -> None:
        for one, get, place in leaves:
            one(get(obs), out[place])

    return write


def _straight(shape: tuple[int, ...]) -> Write:
    flat = len(shape) == 1

    def write(obs: Any, out: NDArray[Any]) -> None:
        obs = np.asarray(obs)
        if obs.shape != shape:
            raise ValueError
        out[:] = obs if flat else obs.reshape(-1)

    return write


def _one_hot(count: int, start: int) -> Write:
    def write(obs: Any, out: NDArray[Any]) -> None:
        which = int(obs) - start
        if not 0 <= which < count:
            raise ValueError
        out[:] = 0
        out[which] = 1

    return write


def _leaves(space: spaces.Space, name: str = "", get: Convert = lambda obs: obs) -> Iterator[tuple[Part, Convert]]:
    """The parts of a flattened space, each with what takes it out of an observation."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, member in _members(space):
            yield from _leaves(member, f"{name}.{key}" if name else str(key), lambda obs, k=key: get(obs)[k])
    elif isinstance(space, spaces.Discrete):
        yield Part(name, (int(space.n),), one_hot=True, start=int(space.start)), get
    elif isinstance(space, spaces.MultiDiscrete):
        for i, (n, start) in enumerate(zip(space.nvec.flat, space.start.flat, strict=True)):
            part = Part(f"{name or 'obs'}[{i}]", (int(n),), one_hot=True, start=int(start))
            yield part, lambda obs, i=i: np.asarray(get(obs)).flat[i]
    else:
        yield Part(name, tuple(map(int, space.shape or ()))), get


def _members(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, spaces.Space]]:
    return list(space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces))


def _require_readable(space: spaces.Space, name: str) -> None:
    """Raise a `UserError` for texts, graphs and lists of any length, saying what could be kept of a dictionary."""
    if not (unread := _unread(space)):
        return
    kept = [key for key, member in _members(space) if not _unread(member)] if isinstance(space, spaces.Dict) else []
    hint = f', as in --env.wrappers "gymnasium.wrappers:FilterObservation(filter_keys={kept})"' if kept else ""
    raise UserError(f"{name} shows {unread}, which is neither numbers nor categories; leave it out by a wrapper{hint}.")


def _unread(space: spaces.Space, name: str = "") -> str:
    """The first leaf of which no numbers can be made; empty if there is none."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        found = (_unread(member, f"{name}.{key}" if name else str(key)) for key, member in _members(space))
        return next(filter(None, found), "")
    if isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return ""
    return f"a {type(space).__name__}" + (f" as {name!r}" if name else "")


def _named(env: Any, parts: list[Part], space: spaces.Space) -> list[Part]:
    """Parts with the names that are known: of a vector's numbers, or of the members of a tuple."""
    if isinstance(space, spaces.Tuple) and len(space.spaces) == len(parts):
        names = observation_names(env, len(parts)) or [part.name for part in parts]
        return [_renamed(part, name) for part, name in zip(parts, names, strict=True)]
    if len(parts) == 1 and not parts[0].one_hot:
        names = observation_names(env, int(np.prod(parts[0].shape)))
        return [Part(parts[0].name, parts[0].shape, names=names)]
    return parts


def _renamed(part: Part, name: str) -> Part:
    return Part(name, part.shape, part.one_hot, part.start, part.names)


def _actions(env: Any, space: spaces.Space, name: str) -> tuple[Any, tuple[str, ...]]:
    """Kind and names."""
    if isinstance(space, spaces.Box):
        count = int(np.prod(space.shape))
        return "continuous", action_names(env, count) or tuple(f"action[{i}]" for i in range(count))
    if isinstance(space, spaces.Discrete):
        return "discrete", action_names(env, int(space.n)) or tuple(f"action {i}" for i in range(int(space.n)))
    if not isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        raise UserError(
            f"{name} takes actions of {type(space).__name__}; wanted are Discrete, MultiDiscrete, MultiBinary or Box, "
            "which a wrapper can make of them."
        )
    choices = _choices(space)
    total = int(np.prod([n for n, _ in choices], dtype=np.float64))
    if total > MAX_ACTIONS:
        raise UserError(
            f"{name} takes actions of {space}, which are {total:,} joint ones; at most {MAX_ACTIONS:,} are taken, so "
            "leave some choices out by a wrapper."
        )
    said = action_names(env, total)
    joint = product(*(range(start, start + n) for n, start in choices))
    return "discrete", said or tuple("+".join(map(str, each)) for each in joint)


def _choices(space: spaces.Space) -> list[tuple[int, int]]:
    """How many values each choice of an action has, and the first of them."""
    if isinstance(space, spaces.MultiDiscrete):
        return [(int(n), int(start)) for n, start in zip(space.nvec.flat, space.start.flat, strict=True)]
    return [(2, 0)] * int(np.prod(space.shape or ()))


def _described(obs: Any) -> str:
    return f"an array of shape {obs.shape}" if isinstance(obs, np.ndarray) else f"{type(obs).__name__} {obs!r:.60}"
