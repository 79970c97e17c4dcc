"""Optimal constants of a circuit: what takes the place of all that it cuts, fitted so that it decides like the agent.

Li & Janson 2024, "Optimal ablation for interpretability", arXiv 2409.09951, section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Values, count_passes, operands
from rl_interp.core.errors import UserError, require_numbers


class Constants(nn.Module):
    """A number for each unit that an operand holds (a vector for units that are vectors), in standard deviations of the
    operand, added to what a behaviour puts there (of `optimal`, the mean, position by position). So readers of one unit
    may be given different constants, where one a unit is all that ablating whole units has."""

    def __init__(self, behaviour: Behaviour):
        super().__init__()
        self.graph: Graph = behaviour.graph
        self.start: Values = behaviour.reference
        some = behaviour.states[: min(len(behaviour), 64)]
        with torch.no_grad():
            _, read = operands(behaviour.agent, self.graph, some.obs, some.memory or None)
        self.scale = {key: float(value.std()) for key, value in read.items()}
        self.names = list(self.graph.keys)
        self.offsets = nn.ModuleList(
            nn.ParameterDict({_safe(s): nn.Parameter(torch.zeros(n)) for s, n in self._sources(key).items()})
            for key in self.names
        )

    def _sources(self, key: str) -> dict[str, tuple[int, ...]]:
        """The shape of the numbers of each node that an operand holds."""
        nodes = (self.graph.nodes[link.source] for link in self.graph.keys[key])
        return {node.name: (node.units,) if node.width == 1 else (node.units, node.width) for node in nodes}

    def forward(self) -> dict[str, Tensor]:
        """By operand, `[1, ...]`; differentiable."""
        found = {}
        for key, offsets in zip(self.names, self.offsets, strict=True):
            values: Mapping[str, Tensor] = {source: offsets[_safe(source)] for source in self._sources(key)}  # pyright: ignore[reportIndexIssue]
            start = self.start[key]
            found[key] = start + self.scale[key] * self.graph.spread(key, values, start)
        return found


@dataclass(frozen=True)
class ConstantsConfig:
    """Settings of the fit of constants."""

    rate: float = 0.02
    """Step size of AdamW, in standard deviations of each operand."""
    updates: int = 200
    """Number of steps; 0 for none."""
    batch: int = 32
    """States in a step."""
    seed: int = 0
    """Seed of the batches."""

    def __post_init__(self) -> None:
        require_numbers(self, positive=("rate",), at_least_0=("updates",), at_least_1=("batch",), seed=("seed",))


def fit_constants(
    behaviour: Behaviour, mask: Mask, config: ConstantsConfig = ConstantsConfig(), start: Constants | None = None
) -> Values:
    """Constants with which a circuit decides most like the agent, by operand; those at the start, or the
    means, if none are better.

    Raises:
        UserError: constants that diverge.
    """

    def now(constants: Constants) -> tuple[float, Values]:
        with torch.no_grad():
            values = {key: value.detach().clone() for key, value in constants().items()}
            return float(behaviour.with_reference(values).mean_distances(mask)), values

    starts = [Constants(behaviour), *([start] if start else ())]
    constants = min(starts, key=lambda each: now(each)[0])
    first, generator = now(constants), torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(constants.parameters(), lr=config.rate, weight_decay=0.0)
    for _ in range(config.updates):
        some = behaviour[torch.randint(len(behaviour), (config.batch,), generator=generator)]
        with torch.enable_grad():
            loss = some.distances(mask, constants()).mean()
        optimizer.zero_grad()
        loss.backward()
        count_passes(backward=len(some))
        optimizer.step()
    last = now(constants)
    if not last[0] < 10 * first[0] + 1e-9:
        raise UserError(
            f"the constants of the circuit diverge: after {config.updates} steps of {config.rate:g} the distance is "
            f"{last[0]:.3g}, and was {first[0]:.3g}; give a smaller rate."
        )
    return min(first, last, key=lambda each: each[0])[1]


def _safe(name: str) -> str:
    """A node's name as that of a parameter."""
    return name.replace(".", "/")
