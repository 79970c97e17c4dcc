"""Fitted sparse autoencoders and transcoders.

Whatever it was fitted as, a dictionary is used in one of two ways: the K largest latents of a sample are active
(`TopK`), or those above their threshold (`JumpReLU`).

Shape letters: N samples, D = d_in, F = d_sae latents, K latents active in one sample. A transcoder's output is
d_out wide, an autoencoder's d_in.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SAE(nn.Module, ABC):
    """`f = activation((x − b_in) W_enc + b_enc)`, `x̂ = f W_dec + b_dec`, with `b_in` = `b_dec` in an autoencoder and 0
    in a transcoder.

    `W_enc [D, F]`, `b_enc [F]`, `W_dec [F, d_out]`, `b_dec [d_out]`. It takes raw activations: what the fit did to
    them beforehand (centring, whitening) is folded into the weights.
    """

    def __init__(self, d_in: int, d_sae: int, d_out: int | None = None):
        super().__init__()
        self.transcodes = d_out is not None
        self.metadata: dict[str, Any] = {}
        """Where it comes from, as `sae.save` was told: model, hook name."""
        self.W_enc = nn.Parameter(torch.zeros(d_in, d_sae))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_out or d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_out or d_in))

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        return self.W_dec.shape[1]

    def pre_activations(self, x: Tensor) -> Tensor:
        """`[N, F]` from `x [N, D]`, of whatever precision the agent computes in."""
        x = x.to(self.W_enc.dtype)
        return torch.addmm(self.b_enc, x if self.transcodes else x - self.b_dec, self.W_enc)

    @abstractmethod
    def activate(self, z: Tensor) -> Tensor:
        """Latents `[..., F]` from pre-activations `[..., F]`: zero but for the active ones."""

    @abstractmethod
    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The active latents of each sample: values `[N, K]`, zero where a sample has fewer, and indices `[N, K]`."""

    def encode(self, x: Tensor) -> Tensor:
        """`[N, F]`, zero but for the active latents."""
        return self.activate(self.pre_activations(x))

    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """`[N, d_out]` from what `encode_sparse` gave, without making `[N, F]`."""
        return F.embedding_bag(indices, self.W_dec, per_sample_weights=values, mode="sum") + self.b_dec

    def decode(self, latents: Tensor) -> Tensor:
        """`[N, d_out]` from `latents [N, F]`."""
        return torch.addmm(self.b_dec, latents, self.W_dec)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of `x [N, D]`, or a transcoder's prediction."""
        return self.decode_sparse(*self.encode_sparse(x))


class TopK(SAE):
    """`f = relu(topk(...))` (Gao et al. 2024, arXiv 2406.04093, eq. 5)."""

    def __init__(self, d_in: int, d_sae: int, k: int, d_out: int | None = None):
        super().__init__(d_in, d_sae, d_out)
        self.k = k

    def activate(self, z: Tensor) -> Tensor:
        values, indices = z.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(z).scatter(-1, indices, values.relu())

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = self.pre_activations(x).topk(self.k, dim=-1, sorted=False)
        return values.relu(), indices


class JumpReLU(SAE):
    """`f = z · 1(z > threshold)`, `threshold [F]` (Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 3)."""

    def __init__(self, d_in: int, d_sae: int, d_out: int | None = None):
        super().__init__(d_in, d_sae, d_out)
        self.threshold = nn.Parameter(torch.zeros(d_sae))

    def activate(self, z: Tensor) -> Tensor:
        return z * ((z > self.threshold) & (z > 0))

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.encode(x)
        most = max(1, int((latents > 0).sum(1).max())) if len(x) else 1
        return latents.topk(most, dim=-1, sorted=False)
