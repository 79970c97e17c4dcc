"""A circuit by reinforcement learning: parts of the graph are candidates, and a policy learns which can go."""

from contextlib import suppress
from dataclasses import dataclass, field

import torch

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.discovery import Discovery, Report, measured
from rl_interp.circuits.discovery.rl.candidates import parts_by_attribution
from rl_interp.circuits.discovery.rl.task import BehaviourScorer, BudgetSpent, Ledger, Task
from rl_interp.circuits.discovery.rl.training import RLConfig, follow, train
from rl_interp.circuits.mask import Mask
from rl_interp.core.errors import require_numbers


@dataclass(frozen=True)
class PruningConfig:
    """Settings of discovery by reinforcement learning."""

    candidates: int = 32
    """Number of parts that the graph is divided into, finer where attribution is greater."""
    masks: int = 1000
    """The most masks that are scored."""
    states: int = 32
    """Number of the behaviour's states that each mask is scored on."""
    steps: int = 5
    """Steps of the integrated attribution that chooses the parts."""
    training: RLConfig = field(default_factory=lambda: RLConfig(episodes=8))
    """How the policy is trained; it ends sooner when so many masks have been scored."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_1=("candidates", "masks", "states", "steps"))


def prune(
    behaviour: Behaviour,
    config: PruningConfig = PruningConfig(),
    tau: float = 0.9,
    seed: int = 0,
    report: Report = lambda done: None,
) -> Discovery:
    """The circuit of greatest potential that was seen while a policy learned to prune this behaviour.

    Args:
        tau: faithfulness below which the potential falls.

    Raises:
        UserError: no behaviour, or no edge with any attribution.
    """
    some = behaviour[: config.states]
    with measured() as cost:
        some.require()
        scores = attribute(some, config.steps).scores
        selection = parts_by_attribution(behaviour.graph, scores, config.candidates)
        ledger = Ledger(Task("", selection.candidates, BehaviourScorer(some, selection), tau), config.masks)
        policy = train([ledger], config.training, seed, report)
        with suppress(BudgetSpent):
            follow(policy, ledger)
        best = ledger.best()
        # What has no attribution at all, such as a head that decides nothing, is no part of a circuit.
        kept = selection.mask(best.kept).vector * (scores != 0)
        mask = Mask.of_vector(behaviour.graph, kept).without_dangling()
    order = scores.abs() / scores.abs().max()
    details = {
        "parts": len(selection.candidates), "parts_kept": int(best.kept.sum()), "masks": ledger.scored,
        "potential": best.potential, "states": len(some),
    }  # fmt: skip
    return Discovery(
        "rl", behaviour.graph, (order + kept).to(torch.float32), behaviour.reference, mask, cost=cost, details=details
    )
