"""What saliency means for a vector of numbers, which has no places and can't be blurred.

An entry is set beside what it is at other moments, the rows of `data [N, D]`, such as the observations of an episode:

- `perturbation` replaces it by its mean. The map has a sign, and an entry at its mean has none to show, however much
  the agent goes by it.
- `resample` replaces it by its values at other moments, and gives the root mean square of the changes: how much the
  agent goes by it, whatever it is now.
- `gradient` is multiplied by the entry's standard deviation, so that entries in different units can be compared;
  `smoothgrad` is the same, averaged over noise of 15% of it.
- `input-gradient` is the gradient times the distance to the mean; `integrated-gradients` go from the mean of all
  entries to what they are.

Entries that depend on each other, such as a position and the distance to a wall, are still replaced one at a time: the
agent may see what never happens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rl_interp.core.agent import Agent, State
from rl_interp.saliency.methods.gradients import Gradient, InputGradient, SmoothGrad
from rl_interp.saliency.methods.integrated import IntegratedGradients
from rl_interp.saliency.methods.perturbation import Ablation, drops
from rl_interp.saliency.targets import Target

DRAWS = 32
"""Values that an entry is replaced by in turn."""


@dataclass(frozen=True, eq=False)
class Resample:
    """For vectors `[B, D]`: the root mean square of target(obs) − target(obs with one entry as in another row)."""

    data: Tensor
    """`[N, D]`; of more than `DRAWS` rows, so many evenly spread ones are used."""
    signed: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, D]` float32."""
        at = torch.linspace(0, len(self.data) - 1, min(DRAWS, len(self.data))).round().long()
        others = self.data.to(obs)[at]

        def replaced(vector: Tensor) -> Iterator[Tensor]:
            for entry in range(obs.shape[1]):
                many = vector.repeat(len(others), 1)
                many[:, entry] = others[:, entry]
                yield many

        changes = drops(agent, obs, obs, target, state, replaced).unflatten(1, (obs.shape[1], len(others)))
        return changes.square().mean(2).sqrt().numpy()


VECTOR_METHODS: dict[str, Callable[[Tensor], Callable[..., np.ndarray]]] = {
    "perturbation": lambda data: Ablation(data.mean(0)),
    "greydanus": lambda data: Ablation(data.mean(0)),
    "resample": Resample,
    "gradient": lambda data: Gradient(data.std(0, correction=0)),
    "smoothgrad": lambda data: SmoothGrad(noise=0.15 * data.std(0, correction=0), scale=data.std(0, correction=0)),
    "input-gradient": lambda data: InputGradient(data.mean(0)),
    "integrated-gradients": lambda data: IntegratedGradients(data.mean(0)),
}
"""By name, what makes the method from the data."""
