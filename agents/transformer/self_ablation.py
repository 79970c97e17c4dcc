"""Self-ablation of a transformer: beside the model runs a second stream in which each block keeps its k most relevant
units, for each word anew (Ferrao et al. 2025, arXiv 2505.00509).

Units are the numbers that all heads have read, side by side, and the neurons of the MLP: k of each win in every block,
and the others are 0. A linear head scores them, of what the block is given (`local`), or, for all blocks at once, of
what the whole model comes to in a pass before (`global`). Winners and their gradients are those of
`agents.impala.self_ablation`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.impala.self_ablation import straight_through
from rl_interp.agents.transformer.config import Architecture
from rl_interp.core.hooks import Hook, Site

Scope = Literal["local", "global"]


class SelfAblation(nn.Module):
    """The linear heads that score units. Nothing that the model says depends on them; its ablated stream does."""

    def __init__(self, shape: Architecture, k: int, scope: Scope):
        super().__init__()
        self.k, self.scope = k, scope
        self.sizes = (shape.width, shape.hidden)
        self.heads = nn.ModuleList(nn.Linear(shape.width, sum(self.sizes)) for _ in range(shape.layers))

    def masks(self, block: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, S, D]` of attention's units and `[B, S, M]` of neurons: 1 where one wins, else 0; from `x [B, S, D]`."""
        scores = self.heads[block](x.float()).split(self.sizes, -1)
        attention, neurons = (straight_through(each, self.k) if self.k < each.shape[-1] else torch.ones_like(each)
                              for each in scores)  # fmt: skip
        return attention, neurons


@dataclass(frozen=True)
class Streams:
    """What a transformer and its ablated stream come to, on the same texts."""

    clean: Tensor
    """`[B, S, D]`: the stream after the last block."""
    ablated: Tensor
    masks: Mapping[str, Tensor]
    """By hook point, `block0.z` and `block0.mlp.post`: which units won, `[B, S, units]`."""

    @property
    def distance(self) -> Tensor:
        """The mean squared distance of both, each of length 1: a scalar in [0, 4]."""
        one, other = (F.normalize(each.float(), dim=-1) for each in (self.clean, self.ablated))
        return (one - other).square().sum(-1).mean()


def ablating(heads: SelfAblation, final: Tensor, masks: dict[str, Tensor]) -> dict[str, Hook]:
    """Those under which a transformer is its ablated stream; what wins is written into `masks`."""

    def choose(block: int, x: Tensor) -> None:
        masks[f"block{block}.z"], masks[f"block{block}.mlp.post"] = heads.masks(block, x)

    def before(block: int) -> Hook:
        return lambda value, site: choose(block, value)

    def cut_heads(value: Tensor, site: Site) -> Tensor:
        mask = masks[site.name].unflatten(-1, (value.shape[1], -1)).transpose(1, 2)
        return value * mask.to(value.dtype)

    def cut_neurons(value: Tensor, site: Site) -> Tensor:
        return value * masks[site.name].to(value.dtype)

    hooks: dict[str, Hook] = {}
    for block in range(len(heads.heads)):
        if heads.scope == "global":
            choose(block, final)
        else:
            hooks["embed" if block == 0 else f"block{block - 1}.sum"] = before(block)
        hooks |= {f"block{block}.z": cut_heads, f"block{block}.mlp.post": cut_neurons}
    return hooks
