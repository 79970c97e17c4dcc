"""Edge attribution patching: how much each edge matters, for all edges at once, from gradients.

An edge's mask M goes from 1, where it carries what it does, to 0, where that is replaced; the derivative by M is the
edge's term times the gradient there, which is what edge attribution patching computes (Syed et al. 2023, "Attribution
patching outperforms automated circuit discovery", arXiv 2310.10348), summed over states by one backward pass, without a
number for each edge and state.

- `eap` takes it at M = 1, of the log-odds of the agent's own action against all others. The distance of decisions would
  not do: at M = 1 it is least, and its gradient is zero.
- `eap-ig` averages it along the way on which all masks go from 0 to 1 together, by midpoints, of the distance. So the
  masks are integrated along, not activations (Hanna et al. 2024, "Have faith in faithfulness", arXiv 2403.17806, walk
  through the network's inputs), and the scores of all edges add up to the distance without any edge (Sundararajan et
  al. 2017, arXiv 1703.01365, prop. 1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.discovery import Discovery, Report, measured
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import count_passes
from rl_interp.core.errors import NotFiniteError, at_least_one
from rl_interp.core.gradients import NoGradientError

_AT_ONCE = 64
"""States in one backward pass: few enough for what they keep to stay below a gigabyte."""


def attribute(
    behaviour: Behaviour, steps: int = 0, absolute: bool = True, report: Report = lambda done: None
) -> Discovery:
    """Scores of all edges.

    Args:
        steps: of `eap-ig`; 0 for `eap`.
        absolute: whether an edge matters that speaks against the agent's decisions as well as one that speaks for them.
            Signed, the former come last; and so do edges that only serve together, as two halves of a number do, whose
            distance rises on the way before it falls.

    Raises:
        NotFiniteError: gradients that are NaN or infinite.
        NoGradientError: an agent that detaches or rounds what edges carry.
    """
    with measured() as cost:
        if steps:
            at_least_one(steps=steps)
            places, objective = [(step + 0.5) / steps for step in range(steps)], nearness
        else:
            places, objective = [1.0], log_odds
        total = torch.zeros(behaviour.graph.edges)
        for done, place in enumerate(places, 1):
            total += gradient(behaviour, Mask.full(behaviour.graph, place), objective)
            report(done / len(places))
        scores = total / len(places)
        if not scores.isfinite().all():
            raise NotFiniteError("the gradients of the edges")
    return Discovery(
        "eap-ig" if steps else "eap", behaviour.graph, scores.abs() if absolute else scores, behaviour.reference,
        cost=cost, details={"steps": steps, "absolute": absolute},
    )  # fmt: skip


Objective = Callable[[Behaviour, Tensor], Tensor]
"""`objective(behaviour, preferences [S, A])`, a number for each state: the higher, the more like the agent's own."""


def log_odds(behaviour: Behaviour, preferences: Tensor) -> Tensor:
    """Of the agent's own choice, the greedy one, against all other actions."""
    scaled = preferences.double() / behaviour.distance.temperature
    own = behaviour.preferences.argmax(-1, keepdim=True)
    others = scaled.scatter(-1, own, -torch.inf).logsumexp(-1)
    return scaled.gather(-1, own)[..., 0] - others


def nearness(behaviour: Behaviour, preferences: Tensor) -> Tensor:
    """How near the decisions are to the agent's own: less their distance, in nats."""
    return -behaviour.distance(behaviour.preferences, preferences)


def gradient(behaviour: Behaviour, mask: Mask, objective: Objective = nearness) -> Tensor:
    """float32 `[edges]`: of the mean of an objective over the states, by the mask."""
    total = torch.zeros(behaviour.graph.edges)
    for start in range(0, len(behaviour), _AT_ONCE):
        some = behaviour[start : start + _AT_ONCE]
        vector = mask.vector.detach().clone().requires_grad_()
        with torch.enable_grad():
            score = objective(some, some.decisions(Mask.of_vector(behaviour.graph, vector))).sum()
        (slope,) = torch.autograd.grad(score, vector, allow_unused=True)
        if slope is None:
            raise NoGradientError
        total += slope
        count_passes(backward=len(some))
    return total / len(behaviour)
