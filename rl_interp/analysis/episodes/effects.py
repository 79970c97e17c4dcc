"""What a change does to an agent's decision in one moment, beside random controls of the same size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes.changes import controlled
from rl_interp.analysis.player import Moment
from rl_interp.core.agent import PolicyOutput, evaluating, tree_map
from rl_interp.core.errors import at_least_one
from rl_interp.core.interventions import Intervention, intervened


@dataclass(frozen=True)
class Decision:
    """N times an agent's preferences `[N, A]` and values `[N]` (NaN where it has none)."""

    preferences: NDArray[np.float32]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Effect:
    """One moment's decision as it is, changed, and under C random controls."""

    before: Decision
    after: Decision
    controls: Decision
    kind: str
    """What preferences are: `Agent.preference_kind`."""

    @property
    def size(self) -> float:
        """How far the decision moves; see `moved`."""
        return float(moved(self.kind, self.before.preferences, self.after.preferences)[0])

    @property
    def control_sizes(self) -> NDArray[np.float64]:
        """`[C]`: the same of the controls."""
        return moved(self.kind, self.before.preferences, self.controls.preferences)

    @property
    def larger_than(self) -> int:
        """How many controls move the decision less."""
        return int((self.control_sizes < self.size).sum())

    @property
    def within_controls(self) -> bool:
        """Whether some control moves the decision as far. With 20 of them, an effect that is larger than all would come
        about by chance once in 21 times."""
        return self.larger_than < len(self.control_sizes)


def moved(kind: str, before: NDArray[np.floating], after: NDArray[np.floating]) -> NDArray[np.float64]:
    """`[N]`: how far decisions `after [N, A]` are from `before [1, A]`: of a policy the probability that moves to other
    actions (total variation), of Q-values the largest change of an advantage Q − mean(Q), of means the distance.
    Actions that either rules out, by -inf, have no advantage and are left out."""
    first, second = (torch.from_numpy(np.asarray(each, np.float64)) for each in (before, after))
    if kind == "logits":
        return ((second.softmax(-1) - first.softmax(-1)).abs().sum(-1) / 2).numpy()
    if kind == "q_values":
        possible = first.isfinite() & second.isfinite()
        change = (second - first).where(possible, 0)
        mean = change.sum(-1, keepdim=True) / possible.sum(-1, keepdim=True)
        return (change - mean).where(possible, 0).abs().amax(-1).numpy()
    return (second - first).norm(dim=-1).numpy()


def effect(loaded: Loaded, moment: Moment, changes: Sequence[Intervention], controls: int = 20) -> Effect:
    """Ask the agent in a moment as it is, under changes, and under random controls of them.

    Raises:
        UserError: no control, or a change that can't be made.
    """
    at_least_one(controls=controls)
    before, after = decide(loaded, moment, ()), decide(loaded, moment, changes)
    random = decide(loaded, moment, controlled(changes, *range(1, controls + 1)), controls)
    return Effect(before, after, random, loaded.agent.preference_kind)


@torch.no_grad()
def decide(loaded: Loaded, moment: Moment, changes: Sequence[Intervention], times: int = 1) -> Decision:
    """What the agent makes of a moment, several times in one batch."""
    obs = torch.from_numpy(moment.obs[None]).to(loaded.agent.device).expand(times, *moment.obs.shape)
    state = tree_map(lambda leaf: leaf.expand(times, *leaf.shape[1:]).clone(), moment.state)
    with evaluating(loaded.agent), intervened(loaded.agent, changes):
        out = loaded.agent.step(obs, state, torch.zeros(times, dtype=torch.bool, device=obs.device))
    return Decision(out.preferences.float().cpu().numpy(), _values(out))


def _values(out: PolicyOutput) -> NDArray[np.float32]:
    if out.value is None and out.q_values is None:
        return np.full(len(out.preferences), np.nan, np.float32)
    return out.state_value.float().cpu().numpy()
