"""What an environment is, as data: its id, its conventions, and what follows from them.

A config makes nothing; `registry.py` knows what implements it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.observed import Observed


@dataclass(frozen=True)
class Goals:
    """Which numbers of an observation, a vector, say what is asked for."""

    state: tuple[int, ...]
    """Those of the state that the environment is in."""
    goal: tuple[int, ...]
    """Those of the goal."""
    achieved: tuple[int, ...]
    """Of the state's numbers, as places among `state`, those that the goal's are the wanted values of, in order."""


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
    def observation_kind(self) -> Literal["pixels", "symbols", "vector", "tokens"]:
        """What an observation is: uint8 `[C, H, W]` of intensities or of categories, float32 `[D]`, or int64 `[S]`, the
        words of a text."""
        return "pixels" if self.categories is None else "symbols"

    @property
    def observation_dtype(self) -> type[np.uint8] | type[np.float32] | type[np.int64]:
        return np.float32 if self.observation_kind == "vector" else np.uint8

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the D numbers of a vector; empty for other observations."""
        return ()

    @property
    def goals(self) -> Goals | None:
        """Where an observation says which goal is to be reached; None in an environment without goals."""
        return None

    @property
    def action_kind(self) -> Literal["discrete", "continuous"]:
        """Whether an action is one of `action_names`, or a number for each of them."""
        return "discrete"

    @property
    def stacked_frames(self) -> int | None:
        """How many frames an observation `[S, H, W]` stacks, oldest first; None where it is one of its own."""
        return None

    @property
    def eased(self) -> "EnvConfig":
        """How it is best trained in, with what makes it easier; `scored` takes that back."""
        return self

    @property
    def frames_per_step(self) -> int:
        """Frames of the emulator in an environment step."""
        return 1

    @property
    def steps_per_second(self) -> int:
        """The pace at which a person would watch it, for films."""
        return 5

    @property
    def cell_pixels(self) -> tuple[int, int] | None:
        """Where an observation shows a grid: pixels along a cell, and above and left of the first; else None."""
        return None

    @property
    def observations_recur(self) -> bool:
        """Whether the very same observations come again in play, so that counting them says which are rare. They do not
        where a world scrolls, or is drawn with noise."""
        return False

    def observed(self, height: int, width: int) -> Observed:
        """Which part of its screen, of that size in pixels, an observation shows: all of it, resized, unless an
        environment says otherwise."""
        return Observed(0, 0, height, width)

    @property
    def scored(self) -> "EnvConfig":
        """How it is played for scores and analyses, where training makes it easier."""
        return self

    @property
    @abstractmethod
    def action_names(self) -> tuple[str, ...]:
        """The actions, in order, or the numbers that a continuous one consists of; raises `UserError` for an unknown
        `id`."""

    @property
    @abstractmethod
    def observation_shape(self) -> tuple[int, ...]: ...

    @property
    def scene_shape(self) -> tuple[int, ...]:
        """Shape of `VectorEnv.scene`."""
        return self.observation_shape

    def picture(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An observation `[C, H, W]`, or what a model takes for one, as RGB `[H', W', 3]`: of a stack of grey frames
        the newest."""
        rgb = obs if len(obs) == 3 else np.repeat(obs[-1:], 3, 0)
        return np.ascontiguousarray(rgb.transpose(1, 2, 0))

    def summary(self, returns: NDArray[np.float64], last: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The environment's own scores of whole episodes: from their returns `[N]` and the `Step.info` that each
        ended with, `[N, ...]`."""
        return {}
