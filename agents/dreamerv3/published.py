"""Checkpoints of the published package `dreamerv3` 1.5.0, which are pickles: read without running code from them."""

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.dreamerv3.agent import DreamerV3, make_agent
from agents.dreamerv3.config import SIZES, DreamerV3Config
from agents.dreamerv3.convert import from_published
from rl_interp.core.envs import EnvConfig
from rl_interp.core.errors import RunError
from rl_interp.core.run import load_into

_NUMPY = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
"""All that pickled arrays are rebuilt with; none of it does anything else."""


class _Tuple(tuple):
    """Stands for the named tuples of an optimiser's state, which are read over."""

    def __new__(cls, *values: Any) -> "_Tuple":
        return super().__new__(cls, values)


class _Reader(pickle.Unpickler):
    """Admits numpy arrays, plain containers, and in place of optax's states bare tuples."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY:
            return _NUMPY[name]
        if re.fullmatch(r"optax\._src\.\w+", module) and re.fullmatch(r"\w+State", name):
            return _Tuple
        raise RunError(f"it holds {module}.{name}, which is neither a numpy array nor a plain container")


def read_checkpoint(path: Path | str) -> tuple[int, dict[str, NDArray[Any]]]:
    """The steps that a checkpoint was trained for, and the agent's arrays by their names in the package.

    Raises:
        RunError: it is no pickle, holds anything but arrays and plain containers, or no agent.
    """
    try:
        data = _Reader(io.BytesIO(Path(path).read_bytes())).load()
    except RunError as error:
        raise RunError(
            f"{path} was not read: {error}. Checkpoints saved by dreamerv3 1.5.0 hold no such thing."
        ) from None
    except Exception as error:
        raise RunError(f"{path} is no checkpoint of dreamerv3 1.5.0 ({type(error).__name__}: {error}).") from None
    step = data.get("step", 0) if isinstance(data, dict) else None
    if not isinstance(step, int) or not isinstance(data.get("agent"), dict):
        raise RunError(f"{path} holds no agent; give the checkpoint.ckpt that dreamerv3 1.5.0 saved.")
    arrays = {name: value for name, value in data["agent"].items() if isinstance(value, np.ndarray)}
    return step, arrays


def agent_of(arrays: Mapping[str, NDArray[Any]], env: EnvConfig, source: Path | str) -> DreamerV3:
    """The agent with a checkpoint's weights, of the size that they have.

    Raises:
        RunError: the weights are of no published size, or of an agent for other actions or observations than those of
            `env`.
    """
    sizes = {(size.deter, size.units, size.layers, size.stoch * size.classes): name for name, size in SIZES.items()}
    try:
        deter = arrays["agent/wm/rssm/initial"].shape[0]
        units, stoch = arrays["agent/wm/rssm/img_stats/kernel"].shape
    except KeyError as error:
        raise RunError(f"{source} has no weights named {error}; it is of another version of the package.") from None
    except (ValueError, IndexError):
        raise RunError(f"{source} has weights of other dimensions than dreamerv3 1.5.0 saves.") from None
    layers = sum(re.fullmatch(r"agent/wm/rew/h\d+/kernel", name) is not None for name in arrays)
    found = sizes.get((deter, units, layers, stoch))
    if found is None:
        raise RunError(
            f"{source} has a GRU of {deter}, layers of {units} and heads {layers} deep, which is none of the sizes "
            f"{', '.join(SIZES)}."
        )
    actions = arrays["agent/wm/rssm/img_in/kernel"].shape[0] - stoch
    if actions != len(env.action_names):
        raise RunError(f"{source} is of an agent with {actions} actions; {env.id} has {len(env.action_names)}.")
    if ("agent/wm/enc/cnn/s0res/kernel" in arrays) != (env.categories is None):
        raise RunError(f"{source} is of an agent that sees {'symbols' if env.categories is None else 'pixels'}; "
                       f"{env.id} gives {env.observation_kind}.")  # fmt: skip
    agent = make_agent(DreamerV3Config(env=env, size=found))  # pyright: ignore[reportArgumentType]
    load_into(agent, from_published(arrays), source)
    return agent.eval()
