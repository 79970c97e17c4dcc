"""An environment of your own, on which training, evaluation, collecting and films work. Copy it and replace the rules.

In the suite it becomes a folder `rl_interp/core/envs/<family>/` with `config.py`, `game.py` and `labelled.py`, and an
entry in `FAMILIES` of `rl_interp/core/envs/registry.py`. In a project of your own, one file and `register()` will do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.games import GameVector, LabelledGame
from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.registry import FAMILIES, Family

CELL = 8
"""Pixels along a cell of the picture."""


@dataclass(frozen=True)
class CorridorConfig(EnvConfig):
    """A corridor whose goal is at one end: data only, since it is saved with every result."""

    id: str = "Corridor-v0"
    length: int = 8
    """Cells."""
    max_steps: int = 20
    """Steps after which an episode is cut off."""

    @property
    def action_names(self) -> tuple[str, ...]:
        return ("LEFT", "RIGHT")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (3, CELL * self.length, CELL * self.length)


class Corridor:
    """The rules. An episode must follow from its seed and its actions alone: it is saved as these."""

    def __init__(self, config: CorridorConfig):
        self.config = config

    def reset(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.at = self.config.length // 2
        self.goal = int(rng.choice([0, self.config.length - 1]))
        self.steps = 0

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Reward, terminated, truncated."""
        self.at = int(np.clip(self.at + (1 if action else -1), 0, self.config.length - 1))
        self.steps += 1
        found = self.at == self.goal
        return float(found), found, self.steps >= self.config.max_steps and not found

    def observe(self, out: NDArray[np.uint8]) -> None:
        """Write the observation `[C, H, W]`: the goal is green, the agent red."""
        out[:] = 0
        for channel, cell in ((1, self.goal), (0, self.at)):
            out[channel, :CELL, CELL * cell : CELL * (cell + 1)] = 255

    def scene(self, out: NDArray[np.uint8]) -> None:
        """What the exploration bonus counts changes of; usually the observation."""
        self.observe(out)

    def info(self) -> Mapping[str, Any]:
        return {}


class CorridorLabelled(LabelledGame):
    """One corridor with its ground truth, for collecting, probes and films."""

    concepts = {
        "goal_right": Concept("the goal is at the right end"),
        "distance": Concept("cells to the goal", "number"),
        "controllable": Concept("actions act, as they always do here"),
    }
    game: Corridor

    def __init__(self, config: CorridorConfig):
        super().__init__(config, Corridor(config))

    def labels(self) -> dict[str, float]:
        game = self.game
        return {
            "goal_right": float(game.goal > game.at),
            "distance": float(abs(game.goal - game.at)),
            "controllable": 1.0,
        }

    def cells(self) -> Cells:
        """What is true of each cell in view; {} where an observation shows no cells."""
        return {}

    def render(self) -> NDArray[np.uint8]:
        return self.config.picture(self._observe())


def make_vector(config: CorridorConfig, num_envs: int, workers: int) -> GameVector:
    """`num_envs` games in this process. Another way to step them is a class with the methods of `VectorEnv`."""
    return GameVector(config, [Corridor(config) for _ in range(num_envs)])


def register() -> None:
    """Make ids that begin with "Corridor" known. What implements them is named, and imported when one is made."""
    FAMILIES.append(
        Family("Corridor", CorridorConfig, f"{__name__}:make_vector", f"{__name__}:CorridorLabelled"),
    )
