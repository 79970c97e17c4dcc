"""What is asked of the checkpoints of a training, and what is known of each."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError, require_numbers


@dataclass(frozen=True)
class Settings:
    """What is measured of each checkpoint."""

    samples: int = 20_000
    """Number of steps to play, by the agent as it is at the end, that all checkpoints follow."""
    episodes: int = 30
    """Number of whole episodes that each checkpoint plays itself."""
    maps: int = 24
    """Number of states whose saliency maps are compared, where what the agent sees has places; 0 for none."""
    latents: int = 0
    """Width of a dictionary that is fitted to each checkpoint; 0 for none."""
    crosscoder: int = 0
    """Width of one dictionary of all checkpoints together, with a decoder for each; 0 for none."""
    k: int = 16
    """Latents that are active in one sample."""
    epochs: float = 8.0
    """Passes over the samples."""
    seed: int = 0
    """Seed of the episodes, the probes and the dictionaries."""

    def __post_init__(self) -> None:
        require_numbers(
            self, at_least_1=("samples", "k"), at_least_0=("episodes", "maps", "latents", "crosscoder", "seed"),
            positive=("epochs",),
        )  # fmt: skip
        for width in (self.latents, self.crosscoder):
            if 0 < width <= self.k:
                raise UserError(f"k={self.k} given for {width} latents; fewer than all must be active: lower k.")


@dataclass
class Checkpoint:
    """One of them, on the states that all follow; N states, P positions, D units."""

    step: int
    values: NDArray[np.float32]
    """`[N, P, D]`; of a layer without positions P is 1."""
    preferences: NDArray[np.float32]
    """`[N, A]`: of actions, or the continuous action itself."""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def flat(self) -> NDArray[np.float32]:
        """`[N, P · D]`: the layer as a whole."""
        return self.values.reshape(len(self.values), -1)
