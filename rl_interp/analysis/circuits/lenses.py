"""What a transformer would say if it broke off after a block: two lenses on its residual stream.

- The OCA lens (optimal constant attention; Li & Janson 2024, arXiv 2409.09951) puts a constant in the place of what
  each later attention adds; later MLPs, the last norm and the unembedding compute as they do. So it says what the
  word's own stream holds, without anything more being read of other words.
- The tuned lens (Belrose et al. 2023, arXiv 2303.08112) adds an affine map of the stream to it, and reads that out.

Both are fitted to what the transformer says in the end, KL(transformer ‖ lens).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.transformer import Transformer
from rl_interp.agents.transformer.network import Block
from rl_interp.core.errors import require_numbers


@dataclass(frozen=True)
class LensConfig:
    """How a lens is fitted."""

    updates: int = 300
    """Number of steps of Adam."""
    rate: float = 1e-2
    """Step size at first; it falls linearly to 0."""
    batch: int = 512
    """Words in a step."""
    seed: int = 0
    """Seed of the batches."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_1=("updates", "batch"), positive=("rate",), seed=("seed",))


class OCALens(nn.Module):
    """Logits `[N, V]`, from streams `[N, D]` before the block of number `at`."""

    def __init__(self, agent: Transformer, at: int):
        super().__init__()
        self._agent = (agent,)  # no submodule: it is not fitted
        self.at = at
        self.constants = nn.Parameter(torch.zeros(agent.shape.layers - at, agent.shape.width))

    def forward(self, x: Tensor) -> Tensor:
        (agent,) = self._agent
        for block, constant in zip(list(agent.blocks)[self.at :], self.constants, strict=True):
            assert isinstance(block, Block)
            x = block.think(x + constant)
        return agent.read_out(x)


class TunedLens(nn.Module):
    """Logits `[N, V]`, from streams `[N, D]` before any block."""

    def __init__(self, agent: Transformer):
        super().__init__()
        self._agent = (agent,)
        self.map = nn.Linear(agent.shape.width, agent.shape.width)
        nn.init.zeros_(self.map.weight)  # at first the plain logit lens
        nn.init.zeros_(self.map.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._agent[0].read_out(x + self.map(x))


def fit_lens(lens: nn.Module, streams: Tensor, logits: Tensor, config: LensConfig = LensConfig()) -> list[float]:
    """Fit a lens to streams `[N, D]` and what the transformer says in the end, `[N, V]`; the loss of each step, in
    nats."""
    optimizer = torch.optim.Adam(lens.parameters(), config.rate)
    generator, losses = torch.Generator().manual_seed(config.seed), []
    for update in range(config.updates):
        for group in optimizer.param_groups:
            group["lr"] = config.rate * (1 - update / config.updates)
        rows = torch.randint(len(streams), (config.batch,), generator=generator)
        loss = lens_loss(lens(streams[rows]), logits[rows]).mean()
        optimizer.zero_grad()
        (*gradients,) = torch.autograd.grad(loss, list(lens.parameters()))
        for weight, gradient in zip(lens.parameters(), gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def lens_loss(said: Tensor, logits: Tensor) -> Tensor:
    """`[N]`: KL(transformer ‖ lens) in nats, of logits `[N, V]` each."""
    return F.kl_div(said.log_softmax(-1), logits.log_softmax(-1), reduction="none", log_target=True).sum(-1)


@torch.no_grad()
def streams_of(agent: Transformer, texts: Tensor) -> tuple[list[Tensor], Tensor]:
    """The streams before each block, `[B, S, D]` each, and what is said in the end, `[B, S, V]`, of texts `[B, S]`."""
    x, found = agent.embed(texts.clamp(min=0)), []
    for block in agent.blocks:
        found.append(x)
        x = block(x)
    return found, agent.read_out(x)
