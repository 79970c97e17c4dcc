"""The suite's convention for many environments at once.

`send` hands over the actions and returns at once where the environments run in threads or processes
of their own, so that a learner works meanwhile; `recv` waits for the result. Autoreset is Gymnasium's
NEXT_STEP: the step that ends an episode returns its last observation, and the next step ignores its
action, resets, and returns the new episode's first observation with reward 0. That step is no
transition; `Step.first` marks it.

A user's vector environment may reset within the step that ends an episode instead (Gymnasium's SAME_STEP). `Step.first`
and `Step.done` are then set both, and the step is a transition.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Step:
    """What one step of N environments gave; arrays are `[N, ...]` and not reused by later steps."""

    obs: NDArray[Any]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    first: NDArray[np.bool_]
    """Whether `obs` starts an episode."""
    info: dict[str, NDArray[Any]]

    @property
    def done(self) -> NDArray[np.bool_]:
        return self.terminated | self.truncated

    @property
    def moved(self) -> NDArray[np.bool_]:
        """Whether the action was taken; if not, the step only reset."""
        return ~self.first | self.done


class VectorEnv(Protocol):
    """N environments stepped together; those that `make_vector` makes have NEXT_STEP autoreset."""

    num_envs: int
    observation_shape: tuple[int, ...]
    action_names: tuple[str, ...]

    def reset(self, seed: int) -> NDArray[Any]:
        """Seed every environment from `seed`, each differently, start all, and return observations `[N, ...]`."""
        ...

    def send(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        """Hand over actions: int64 `[N]`, or float32 `[N, D]` where they are continuous."""
        ...

    def recv(self) -> Step: ...

    def scene(self) -> NDArray[Any]:
        """`[N, *scene_shape]`: what a change is taken of, now (CBET): MiniGrid's panorama, elsewhere the frame."""
        ...

    def close(self) -> None: ...
