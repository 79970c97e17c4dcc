"""Self-ablation: training the agent beside a second stream in which each layer keeps its k most relevant units.

Ferrao et al. 2025, arXiv 2505.00509, of transformers; here of IMPALA. Which units win is said by a linear head on what
the layer reads, for each observation anew. The agent itself, the clean stream, stays as it is: what it learns changes
because its weights must serve the ablated stream too.

What an agent has in place of a transformer's parts:

- units: a fully connected layer's neurons and a convolution's channels, which win or lose at all positions at once and
  are scored from the mean over positions of what the convolution reads. Ablated are all layers with a `.post`
  (`conv1.post`, `block1.res1.post`, `mlp1.post`, `fc.post`) of more than k units. The residual stream of the ResNet and
  the LSTM's units are not.
- the last residual, through which both streams are drawn together: what the policy is linear in, `lstm.h` or `fc.post`.
- attention's past, which the published ablated stream takes from the clean one: the memory at an unroll's start is the
  one that the agent had; within the unroll the ablated stream has its own.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import Hook, Site, hooked
from rl_interp.core.interventions import Intervention, as_hooks
from rl_interp.core.partial_forward import answering

ABLATED_COST = 0.1
"""Weight of the ablated stream's loss beside the agent's own."""
SOFTNESS = 0.1
"""Temperature of the soft winners, as a share of the distance between the k-th and the next score."""


class SelfAblation(nn.Module):
    """The linear heads that score an agent's units, from what each layer reads. Nothing that the agent returns depends
    on them; its ablated stream does.

    Made after the layers, so that an agent starts with the same weights with and without them.

    Args:
        points: the agent's hook points; those of a layer are `name.pre` and `name.post`.
        k: units that win; layers of at most k are left whole.
    """

    def __init__(self, agent: nn.Module, points: Mapping[str, HookPoint], k: int):
        super().__init__()
        self.k = k
        self.names: list[str] = []
        self.heads = nn.ModuleList()
        for name, point in points.items():
            layer = agent.get_submodule(point.path)
            if not (name.endswith(".pre") and isinstance(layer, nn.Linear | nn.Conv2d)) or len(layer.weight) <= k:
                continue
            head = nn.Linear(layer.weight.shape[1], len(layer.weight))
            layer.register_forward_pre_hook(partial(_score, head))
            self.names.append(name.removesuffix(".pre"))
            self.heads.append(head)

    def points(self, path: str) -> dict[str, HookPoint]:
        """`fc.scores` and so on, where this module is at `path`."""
        return {f"{name}.scores": HookPoint(f"{path}.heads.{i}", "B D") for i, name in enumerate(self.names)}

    def interventions(self) -> list["Winners"]:
        """Those under which the agent is its ablated stream."""
        return [Winners(f"{name}.post", scores=f"{name}.scores", k=self.k) for name in self.names]


@dataclass(frozen=True)
class Winners(Intervention):
    """Keep the k units that score highest at the hook point `scores`, in the same forward pass, and set the others to
    zero. Gradients pass to the scores as if the units had been weighted by `soft_winners`."""

    scores: str = field(kw_only=True)
    k: int = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        raise HookError(f"{self.name} is at two hook points; place it with as_hooks([...]).")

    def hooks(self) -> dict[str, Hook]:
        read: list[Tensor] = []

        def on_scores(scores: Tensor, site: Site) -> None:
            read[:] = [scores]

        def on_units(value: Tensor, site: Site) -> Tensor:
            return kept(value, straight_through(read.pop(), self.k))

        return {self.scores: on_scores, self.at: on_units}


def winners(scores: Tensor, k: int) -> Tensor:
    """Of scores `[..., D]`, 1 at the k largest and 0 elsewhere."""
    return torch.zeros_like(scores).scatter_(-1, scores.topk(k).indices, 1.0)


def soft_winners(scores: Tensor, k: int) -> Tensor:
    """Weights `[..., D]` with the sum k: k · σ((x − γ) / T), normalised, with γ midway between the k-th and the next
    score, and T a tenth of their distance. Of equal ones, each counts half."""
    kth, following = scores.topk(k + 1).values[..., -2:].split(1, -1)
    temperature = SOFTNESS * (kth - following).clamp(min=torch.finfo(scores.dtype).eps)
    weights = ((scores - (kth + following) / 2) / temperature).sigmoid()
    return k * weights / weights.sum(-1, keepdim=True)


def straight_through(scores: Tensor, k: int) -> Tensor:
    """`winners`, with the gradients of `soft_winners`."""
    soft = soft_winners(scores, k)
    return winners(scores, k) + (soft - soft.detach())


def kept(value: Tensor, mask: Tensor) -> Tensor:
    """Units `[B, D]` or channels `[B, C, H, W]` times a mask of them, `[B, D]` or `[B, C]`."""
    return value * mask.to(value.dtype).reshape(*mask.shape, *(1,) * (value.dim() - mask.dim()))


def ablated(agent: Agent) -> list[Winners]:
    """The interventions under which an agent is its ablated stream.

    Raises:
        UserError: it was not trained with self-ablation.
    """
    trained = getattr(agent, "self_ablation", None)
    if not isinstance(trained, SelfAblation):
        raise UserError(
            f"{type(agent).__name__} was trained without self-ablation of a kind that can play; train an agent with "
            "`rl-interp train impala --self-ablation 32`."
        )
    return trained.interventions()


def both_streams(
    agent: Agent, torso: nn.Module, policy: nn.Module, obs: Tensor, state: State, first: Tensor | None
) -> tuple[PolicyOutput, PolicyOutput, Tensor]:
    """What an agent and its ablated stream return for an unroll, `obs [T, B, ...]`, and the mean squared distance of
    their last hidden representations, which `policy` is given, each of length 1: a scalar in [0, 4].

    `torso`, which sees the observations and nothing else, is computed once if none of its layers is ablated."""
    changes = ablated(agent)
    with _noted(policy, lambda given, gives: given[0]) as hidden, _noted(torso, lambda given, gives: gives) as features:
        clean = agent.unroll(obs, state, first)
        cut = {agent.get_submodule(agent.hook_points[each.at].path) for each in changes}
        known = {torso: lambda: features[0]} if cut.isdisjoint(torso.modules()) else {}
        with answering(known), hooked(agent, as_hooks(changes)):
            second = agent.unroll(obs, state, first)
    one, other = (F.normalize(each.float(), dim=-1) for each in hidden)
    return clean, second, (one - other).square().sum(-1).mean()


def _score(head: nn.Linear, layer: nn.Module, args: tuple[Any, ...]) -> None:
    """Before a layer computes: score its units, for hooks to read."""
    # In full precision: rounded scores would tie.
    with torch.autocast(args[0].device.type, enabled=False):
        x = args[0].to(head.weight.dtype)
        head(x.flatten(2).contiguous().mean(2) if x.dim() > 2 else x)  # the same sums in every memory layout


@contextmanager
def _noted(layer: nn.Module, what: Callable[[Any, Any], Tensor]) -> Iterator[list[Tensor]]:
    """Of what a layer is given and gives within a `with` block, in order of its calls, a tensor each."""
    noted: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, given, gives: noted.append(what(given, gives)))
    try:
        yield noted
    finally:
        handle.remove()
