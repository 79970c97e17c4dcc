"""The Top-K sparse autoencoder.

Shape letters: N samples, D = d_in, F = d_sae latents, K active latents.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sae.sparse import encode_topk
from sae.whiten import Whitening


class TopK(nn.Module):
    """`f = relu(topk((x − b_dec) W_enc + b_enc))`, `x̂ = f W_dec + b_dec` (Gao et al. 2024, eq. 5).

    `W_enc [D, F]`, `b_enc [F]`, `W_dec [F, D]`, `b_dec [D]`. A fitted one takes raw activations: what the fit
    did to them beforehand (centring, whitening) is folded into the weights.
    """

    def __init__(self, d_in: int, d_sae: int, k: int):
        super().__init__()
        self.k = k
        self.W_enc = nn.Parameter(torch.empty(d_in, d_sae))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.empty(d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @torch.no_grad()
    def initialise(self, directions: Tensor, x: Tensor) -> float:
        """Make `directions [F, D]`, normalised, the dictionary, and the encoder its transpose.

        The encoder is scaled by the one factor that fits samples `x [N, D]` best: K correlated
        directions together would overshoot. Returns that factor.
        """
        self.W_dec.copy_(F.normalize(directions, dim=1))
        self.W_enc.copy_(self.W_dec.T)
        fit = self(x) - self.b_dec
        gain = (fit * (x - self.b_dec)).sum() / fit.square().sum()
        self.W_enc.mul_(gain)
        return gain.item()

    def pre_activations(self, x: Tensor) -> Tensor:
        """`[N, F]`, before selection."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc)

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The K selected latents of each sample: values `[N, K]` (zero where the K-th is not positive) and
        indices `[N, K]`, in no order."""
        values, indices = encode_topk(x, self.W_enc, self.b_enc, self.b_dec, self.k)
        return values.relu(), indices

    def encode(self, x: Tensor) -> Tensor:
        """`[N, F]`, zero but for the selected latents."""
        values, indices = self.encode_sparse(x)
        return torch.zeros(len(x), self.d_sae, dtype=values.dtype, device=x.device).scatter(1, indices, values)

    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """`[N, D]` from what `encode_sparse` gave, without making `[N, F]`."""
        return F.embedding_bag(indices, self.W_dec, per_sample_weights=values, mode="sum") + self.b_dec

    def decode(self, latents: Tensor) -> Tensor:
        """`[N, D]` from `latents [N, F]`."""
        return torch.addmm(self.b_dec, latents, self.W_dec)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of `x [N, D]`."""
        return self.decode_sparse(*self.encode_sparse(x))

    @torch.no_grad()
    def folded(self, whitening: Whitening) -> "TopK":
        """The same autoencoder for raw activations, given one for whitened ones.

        Latents keep their values, and so their ranks: rows of the raw `W_dec` are what one unit of a latent
        adds to the raw activations, and have unit norm only where `ridge` is infinite and one factor scales all.
        """
        raw = TopK(whitening.to.shape[0], self.d_sae, self.k)
        raw.W_enc.copy_(whitening.to @ self.W_enc)
        raw.b_enc.copy_(self.b_enc)
        raw.W_dec.copy_(self.W_dec @ whitening.back)
        raw.b_dec.copy_(whitening.mean + self.b_dec @ whitening.back)
        return raw
