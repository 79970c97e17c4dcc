"""The suite's convention for many environments at once, and for the configs that make them.

`send` hands over the actions and returns at once where the environments run in threads or processes
of their own, so that a learner works meanwhile; `recv` waits for the result. Autoreset is Gymnasium's
NEXT_STEP: the step that ends an episode returns its last observation, and the next step ignores its
action, resets, and returns the new episode's first observation with reward 0. That step is no
transition; `Step.first` marks it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import LabelledEnv


@dataclass(frozen=True)
class Step:
    """What one step of N environments gave; arrays are `[N, ...]` and not reused by later steps."""

    obs: NDArray[Any]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    first: NDArray[np.bool_]
    """Whether this step was a reset: `obs` starts an episode, and the action was ignored."""
    info: dict[str, NDArray[Any]]

    @property
    def done(self) -> NDArray[np.bool_]:
        return self.terminated | self.truncated


class VectorEnv(Protocol):
    """N environments stepped together, with NEXT_STEP autoreset."""

    num_envs: int
    observation_shape: tuple[int, ...]
    action_names: tuple[str, ...]

    def reset(self, seed: int) -> NDArray[Any]:
        """Seed every environment from `seed`, each differently, start all, and return observations `[N, ...]`."""
        ...

    def send(self, actions: NDArray[np.int64]) -> None: ...

    def recv(self) -> Step: ...

    def scene(self) -> NDArray[np.integer]:
        """`[N, *scene_shape]`: what a change is taken of, now (CBET): MiniGrid's panorama, elsewhere the frame."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class EnvConfig(ABC):
    """An environment and its conventions. They are part of every result."""

    id: str
    """Gymnasium id."""

    @property
    def categories(self) -> tuple[int, ...] | None:
        """How many categories each channel of an observation can have; None where bytes are intensities."""
        return None

    @property
    def observation_kind(self) -> Literal["pixels", "symbols"]:
        """Whether an observation's bytes are intensities or categories."""
        return "pixels" if self.categories is None else "symbols"

    @property
    def frames_per_step(self) -> int:
        """Frames of the emulator per decision."""
        return 1

    @property
    def decisions_per_second(self) -> int:
        """The pace at which a person would watch it."""
        return 5

    @property
    def cell_pixels(self) -> tuple[int, int] | None:
        """Where an observation shows a grid: pixels along a cell, and above and left of the first; else None."""
        return None

    @property
    def scored(self) -> "EnvConfig":
        """How it is played for scores and analyses, where training has made it easier."""
        return self

    @property
    @abstractmethod
    def action_names(self) -> tuple[str, ...]:
        """The actions, in order; raises `UserError` for an unknown `id`."""

    @property
    @abstractmethod
    def observation_shape(self) -> tuple[int, ...]: ...

    @property
    def scene_shape(self) -> tuple[int, ...]:
        """Shape of `VectorEnv.scene`."""
        return self.observation_shape

    @abstractmethod
    def vector(self, num_envs: int, workers: int) -> VectorEnv:
        """Make `num_envs` of it, in `workers` threads or processes (0: as many as pay)."""

    @abstractmethod
    def labelled(self) -> LabelledEnv:
        """Make one, with ground truth and a screen, equal to those of `vector`."""

    def picture(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An observation `[C, H, W]`, or what a model takes for one, as RGB `[H', W', 3]`: of a stack of grey frames
        the newest."""
        rgb = obs if len(obs) == 3 else np.repeat(obs[-1:], 3, 0)
        return np.ascontiguousarray(rgb.transpose(1, 2, 0))

    def summary(self, returns: NDArray[np.float64], last: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The environment's own scores of whole episodes: from their returns `[N]` and the `Step.info` that each
        ended with, `[N, ...]`."""
        return {}

    @classmethod
    def concrete(cls, values: Mapping[str, Any]) -> type["EnvConfig"]:
        """The class of a config saved as plain values."""
        from rl_interp.core.envs import env_config

        return type(env_config(values["id"]))
