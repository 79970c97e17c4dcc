"""Any Gymnasium environment, as data: what the user named, and what was read from one that was made."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.code import Code
from rl_interp.core.envs.config import EnvConfig, Goals
from rl_interp.core.envs.gym.wrappers import clips_rewards, wrapper
from rl_interp.core.errors import UserError, require_numbers


@dataclass(frozen=True)
class Part:
    """A leaf of an observation space that is flattened to a vector: numbers, or one number as a one-hot code."""

    name: str = ""
    """Its keys and places in the space, joined by dots; empty for a space that is a leaf."""
    shape: tuple[int, ...] = ()
    """Of the numbers; of a one-hot code, how many values there are."""
    one_hot: bool = False
    start: int = 0
    """The first of the values of a one-hot code."""
    names: tuple[str, ...] = ()
    """Of its entries, where they have some."""

    @property
    def input_names(self) -> tuple[str, ...]:
        if self.names:
            return tuple(f"{self.name}.{name}" if self.name else name for name in self.names)
        if self.one_hot:
            return tuple(f"{self.name or 'state'}={self.start + i}" for i in range(self.shape[0]))
        if not self.shape:
            return (self.name or "obs",)
        places = product(*map(range, self.shape))
        return tuple(f"{self.name or 'obs'}[{','.join(map(str, place))}]" for place in places)


@dataclass(frozen=True)
class Spaces:
    """What an environment shows and takes, as its agents get it and give it."""

    observation: Literal["pixels", "symbols", "vector"] = "vector"
    shape: tuple[int, ...] = ()
    """Of an observation: `[C, H, W]` of pixels and symbols, `[D]` of a vector."""
    parts: tuple[Part, ...] = ()
    """What a vector consists of, in order."""
    action_kind: Literal["discrete", "continuous"] = "discrete"
    actions: tuple[str, ...] = ()
    """Names of the actions, or of the numbers that a continuous one consists of."""
    fps: int = 15
    """The pace of the environment's own renderer, in steps a second."""
    max_steps: int | None = None
    """Steps after which Gymnasium truncates an episode; None if that is left to the environment."""
    seeded: bool = True
    """Whether an episode follows from its seed and its actions, as far as could be seen."""
    yes_or_no: tuple[str, ...] = ()
    """The labels that are true or false."""
    numbers: tuple[str, ...] = ()
    """The other labels."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_1=("shape", "fps", "max_steps"))


@dataclass(frozen=True)
class GymConfig(EnvConfig):
    """A Gymnasium environment, its wrappers and its labels. Made by `gym_config`, which looks at one."""

    id: str = "CartPole-v1"
    """Gymnasium id, also as `module:id`; or what makes the environment, as `file.py:function` or `module:function`."""
    kwargs: tuple[str, ...] = ()
    """What it is made with, as in `map_name=8x8 is_slippery=False`."""
    wrappers: tuple[str, ...] = ()
    """Around it, the innermost first, as in `gymnasium.wrappers:FlattenObservation` or `my.py:Half(factor=2)`."""
    symbols: tuple[int, ...] = ()
    """How many categories each channel of an observation has, where its bytes are categories, not intensities."""
    labels: str = ""
    """Function `labels(info, obs)` that gives the ground truth of a state as numbers by name, as `file.py:function`."""
    info: tuple[str, ...] = ()
    """Entries of the environment's `info` that are labels."""
    code: tuple[Code, ...] = ()
    """The files with what is named above, by hash. They are run only if this user trusts them."""
    spaces: Spaces = Spaces()
    """As they were when the config was made."""

    @property
    def scored(self) -> "GymConfig":
        """Without what clips rewards, which is to learn from."""
        kept = tuple(each for each in self.wrappers if not clips_rewards(wrapper(each)[0]))
        return replace(self, wrappers=kept)

    @property
    def categories(self) -> tuple[int, ...] | None:
        return self.symbols or None

    @property
    def observation_kind(self) -> Literal["pixels", "symbols", "vector"]:
        return self.spaces.observation

    @property
    def goals(self) -> Goals | None:
        """Of observations that are dicts with achieved_goal, desired_goal and observation, as those of goal-conditioned
        environments are: the state is the first and the last of these, side by side."""
        places, at = {}, 0
        for part in self.spaces.parts:
            size = int(np.prod(part.shape))
            places[part.name] = tuple(range(at, at + size))
            at += size
        if not {"achieved_goal", "desired_goal", "observation"} <= places.keys():
            return None
        achieved, wanted = places["achieved_goal"], places["desired_goal"]
        if len(achieved) != len(wanted):
            return None
        return Goals(state=achieved + places["observation"], goal=wanted, achieved=tuple(range(len(achieved))))

    @property
    def action_kind(self) -> Literal["discrete", "continuous"]:
        return self.spaces.action_kind

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.spaces.actions

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.spaces.shape

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(name for part in self.spaces.parts for name in part.input_names)

    @property
    def steps_per_second(self) -> int:
        return self.spaces.fps

    def picture(self, obs: NDArray[Any]) -> NDArray[np.uint8]:
        if self.observation_kind == "vector":
            raise UserError(f"{self.id} shows numbers, of which there is no picture.")
        newest = obs[-3:] if len(obs) % 3 == 0 else obs[-1:]  # of a stack of frames, in colour or grey
        return super().picture(newest)

    def code_of(self, reference: str) -> Code:
        """What is recorded of code that the config names.

        Raises:
            UserError: nothing is, as in a config that was altered.
        """
        for code in self.code:
            if code.reference == reference:
                return code
        raise UserError(f"{reference} is named by the environment {self.id!r} without a hash; restore its config.")
