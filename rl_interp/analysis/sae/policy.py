"""Which directions of a layer an agent's decisions depend on, for a dictionary to be exact in."""

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.states import play_states
from rl_interp.circuits.distance import Distance
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import atomic_path
from rl_interp.core.gradients import gradient
from rl_interp.core.hooks import hook_point
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import read_array

STATES = 512
"""That a fit plays to measure the policy in."""
_SEEDS = 3_000_000
"""Seeds of their episodes begin here, above the fit's own. Activations, those held out too, and what circuits are
measured on are of the seeds from 0 on, of 1,000,000 and of 2,000,000: features weighted by a metric of the same levels
would be judged where they were made to fit."""
_BATCH, _MOST = 64, 32
"""States at once; and actions, of which each takes a backward pass: of more, such as words, so many are drawn."""


def metric_of(loaded: Loaded, hook: str, width: int, seed: int, progress: Progress = SILENT) -> Tensor:
    """`policy_metric` `[width, width]` in `STATES` states that an agent plays, kept with its run for further fits.

    Args:
        seed: of the episodes, which are of a range of their own.

    Raises:
        UserError: what `policy_metric` raises, or an environment that is not there.
        RunError: what was kept is damaged.
    """
    first = _SEEDS + seed
    played = f"{loaded.source['weights_sha256'][:16]}-{STATES}-seed{first}"
    path = loaded.run.outputs / "analyses" / "policy" / hook / f"{played}.npy"
    if path.is_file():
        kept = np.array(read_array(path, (width, width), "<f8", "remove it, to have it measured again"))
        if not np.isfinite(kept).all():
            raise RunError(f"{path} holds NaN or infinity; remove it, to have it measured again.")
        return torch.from_numpy(kept)
    states = play_states(loaded, STATES, first, progress=progress)
    metric = policy_metric(loaded.agent, states, hook)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, metric.numpy())
    return metric


def policy_metric(agent: Agent, states: States, hook: str) -> Tensor:
    """float64 `[D, D]`: an error e `[D]` at a hook point changes the policy by ½ eᵀ M e nats to second order. M is
    the Fisher information of the policy with respect to the activations, Σ_a π(a) ∇log π(a) ∇log π(a)ᵀ, averaged over
    states and, where a layer has positions, summed over them. It is zero where decisions do not depend on the layer.

    Q-values are taken as a policy by their softmax at `Distance`'s temperature. What a change does to later steps
    through the agent's memory is left out.

    Raises:
        UserError: continuous actions.
        HookError: a hook point that the agent can't be run again from.
        NoGradientError: an agent that detaches or rounds what is there.
    """
    if agent.continuous:
        raise UserError(
            f"{type(agent).__name__} has continuous actions, and policy_weight is of the probabilities of discrete "
            "ones; leave it at 0."
        )
    axis = hook_point(agent, hook).feature_axis
    with torch.no_grad():
        distance = Distance.of(agent, agent.step(states.obs, states.memory).preferences)
    total, generator = torch.zeros((), dtype=torch.float64), torch.Generator(agent.device).manual_seed(0)
    for some in states.split(_BATCH):
        again = PartialForward(agent, some.obs, hook, some.memory)
        values = again.values.detach().requires_grad_()

        def log_policy(values: Tensor, again: PartialForward = again) -> Tensor:
            return (again(values).preferences / distance.temperature).log_softmax(-1)

        with torch.enable_grad():
            log_p = log_policy(values)
        p = log_p.detach().exp()
        for action in range(min(p.shape[-1], _MOST)):
            which, weight = torch.full((len(p), 1), action, device=p.device), p[:, action : action + 1].sqrt()
            if p.shape[-1] > _MOST:
                which = torch.multinomial(p, 1, generator=generator)
                weight = torch.full_like(weight, _MOST**-0.5)
            # A log-probability of -inf has no gradient.
            chosen = torch.where(p.gather(-1, which) > 0, log_p.gather(-1, which), 0)
            slope = gradient((weight * chosen).sum(), values, log_policy, retain_graph=True)
            rows = slope.movedim(axis, -1).flatten(0, -2).double()
            total = total + rows.T @ rows
    return total / len(states)
