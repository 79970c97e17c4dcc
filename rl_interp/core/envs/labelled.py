"""Environments to look inside: one at a time, with ground-truth labels and a rendered screen."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.observed import Observed


@dataclass(frozen=True)
class Concept:
    """A ground-truth quantity of a state: what it means, and whether it is yes or no."""

    meaning: str
    kind: Literal["boolean", "number"] = "boolean"


def concepts_sha256(concepts: Mapping[str, Concept]) -> str | None:
    """A checksum of names and meanings: labels under a different one mean something else. None without concepts."""
    plain = {name: asdict(concept) for name, concept in concepts.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest() if plain else None


Cells = Mapping[str, tuple[NDArray[np.int64], tuple[str, ...]]]
"""Ways to sort the cells that an observation shows into classes: name to class numbers `[rows, columns]`, -1 where it
does not apply, and the names of the classes."""


class LabelledEnv(Protocol):
    """A Gymnasium environment with the same observations as its vector form, and ground truth beside them.

    `info["labels"]` of `reset` and `step` maps each concept to a number. Of the suite's own families, `controllable` is
    one wherever there are some: whether the action chosen now can make any difference. Without it all states are used.
    A seed given to `reset` and the actions after it determine the episode.
    """

    @property
    def concepts(self) -> Mapping[str, Concept]: ...

    action_names: tuple[str, ...]

    def reset(self, *, seed: int | None = None) -> tuple[NDArray[Any], dict[str, Any]]: ...

    def step(self, action: int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]: ...

    def render(self) -> NDArray[np.uint8]:
        """The screen a person would see, uint8 `[H, W, 3]`."""
        ...

    def replay(
        self, seed: int, actions: Sequence[int] | NDArray[np.integer], steps: Collection[int]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Play a recorded episode again from its seed and actions, up to the last of some `steps` (from 0, in order).

        Yields each with its observation; the environment is then at that step, for `render` and `cells`. What lies
        between is played as fast as it can be, without what nobody looks at.
        """
        ...

    def cells(self) -> Cells:
        """The ground truth of each cell in view now; empty where there are no cells."""
        ...

    def hindsight(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Concepts that only the rest of the episode tells, from the columns `[steps]` of a whole one."""
        ...


@runtime_checkable
class Surveyed(Protocol):
    """An environment that can show more than what the agent sees of it."""

    def survey(self) -> tuple[NDArray[np.uint8], Observed]:
        """A screen uint8 `[H, W, 3]`, and which part of it the agent sees now."""
        ...
