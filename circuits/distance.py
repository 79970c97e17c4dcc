"""How far the decisions of a changed agent are from its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_interp.core.agent import Agent
from rl_interp.core.errors import NotFiniteError, UserError, require_numbers


@dataclass(frozen=True)
class Distance:
    """KL(agent ‖ changed) in nats, state by state: of the policy, or of the softmax of Q-values at a temperature.

    An action that both rule out, by -inf, adds nothing.

    Raises:
        UserError: a temperature that is not above 0.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_numbers(self, positive=("temperature",))

    def __call__(self, preferences: Tensor, changed: Tensor) -> Tensor:
        """`[..., A]`, which may broadcast, to `[...]`; differentiable, in double precision, as rounding in float may
        go below 0."""
        ruled_out = preferences.isneginf()
        log_p, log_q = ((each.double() / self.temperature).log_softmax(-1) for each in (preferences, changed))
        difference = torch.where(ruled_out & changed.isneginf(), 0, log_p - log_q)
        return torch.where(ruled_out, 0, log_p.exp() * difference).sum(-1)

    @staticmethod
    def of(agent: Agent, preferences: Tensor, temperature: float | None = None) -> "Distance":
        """The one to measure an agent by: at temperature 1 of a policy, and of Q-values `[N, A]` at the median gap
        between the best and the second best, so that typically the best action is e times as likely as the next.

        Raises:
            NotFiniteError: preferences that are NaN or infinite, but for -inf.
            UserError: continuous actions, a single one, or Q-values that are the same for all actions.
        """
        if agent.continuous:
            raise UserError(
                f"{type(agent).__name__} has continuous actions; circuits are measured by the probabilities of "
                "discrete ones."
            )
        if preferences.shape[-1] < 2:
            raise UserError(f"{type(agent).__name__} has a single action, so there is no decision to explain.")
        if not preferences.amax(-1).isfinite().all():
            raise NotFiniteError("the agent's preferences")
        if temperature is not None or agent.preference_kind == "logits":
            return Distance(1.0 if temperature is None else temperature)
        best, second = preferences.double().topk(2).values.unbind(-1)
        gaps = (best - second)[second.isfinite()]  # of states with a choice
        if not len(gaps) or not (gap := float(gaps.median())) > 0:
            raise UserError(
                "the two best Q-values are equal in most states, or all but one are ruled out, so they give no scale; "
                "give a temperature."
            )
        return Distance(gap)


def advantage_error(q_values: Tensor, changed: Tensor) -> Tensor:
    """`[...]`: squared change of the advantages Q − mean(Q) of `[..., N, A]`, as a share of their squares: over states
    and actions, Σ(A − Â)² / ΣA². An action that is ruled out, by -inf, is left out."""
    counted = q_values.isfinite()

    def advantages(q: Tensor) -> Tensor:
        known = torch.where(counted, q.double(), 0)
        return torch.where(counted, known - known.sum(-1, keepdim=True) / counted.sum(-1, keepdim=True), 0)

    own = advantages(q_values)
    return (advantages(changed) - own).square().sum((-2, -1)) / own.square().sum((-2, -1))
