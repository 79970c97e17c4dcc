"""What tells the variants of sparse dictionaries apart while they are fitted: which latents are active, and the loss.

All share an encoder, a decoder and one trainer; each becomes a `TopK` or a `JumpReLU` when it is done. A new one is a
subclass of `Variant`, an entry in `VARIANTS`, and a `VariantName`. Data are
whitened: `x [N, D]` and a target `y [N, D_out]`, which in an autoencoder is x itself.

Shape letters: N samples, F latents, D width, P active pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.sae.model import SAE, JumpReLU, TopK
from rl_interp.sae.training.config import SAEConfig, VariantName
from rl_interp.sae.training.kernels.pairs import Kernel, Pairs


@dataclass(frozen=True)
class Losses:
    """Of one batch."""

    loss: Tensor
    fvu: Tensor
    """Share of the whitened target's variance unexplained; of all the data's variance, as a short batch has little.
    Whitening evens out outlier dimensions, so it is not the FVU of raw activations, which `sae.evaluate` gives."""
    l0: float
    """Latents active in a sample, mean."""
    residual: Tensor
    """`[N, D_out]`: reconstruction less target, without gradient."""
    fired: Tensor
    """`[F]`: which latents were active in some sample."""


class Variant(nn.Module):
    """Rows of `encoder [F, D]` and `decoder [F, D_out]` belong to one latent each; the decoder's have unit norm.

    It is fitted to encode x itself, which is centred: were it x − b_dec, as it is used, each step of b_dec would move
    all pre-activations together, and latents would die of it (a third of them on the benchmark's planted features).
    """

    def __init__(self, config: SAEConfig, kernel: Kernel, d_in: int, d_out: int):
        super().__init__()
        self.config, self.kernel = config, kernel
        self.encoder = nn.Parameter(torch.zeros(config.latents, d_in))
        self.b_enc = nn.Parameter(torch.zeros(config.latents))
        self.decoder = nn.Parameter(torch.zeros(config.latents, d_out))
        self.b_dec = nn.Parameter(torch.zeros(d_out))

    def plan(self, updates: int) -> None:
        """Prepare for a fit of so many updates."""

    def losses(self, x: Tensor, y: Tensor, variance: float) -> Losses:
        """The losses of one batch; `variance` is that of the target, summed over its width."""
        raise NotImplementedError

    def finished(self, d_in: int, d_out: int | None) -> SAE:
        """An empty dictionary of the variant that it is used as, with the thresholds, if any, in place."""
        raise NotImplementedError

    def used_encoder(self) -> tuple[Tensor, Tensor]:
        """Encoder `[F, D]` and bias `[F]` of the finished dictionary."""
        return self.encoder, self.b_enc

    @torch.no_grad()
    def initialise(self, encoder: Tensor, decoder: Tensor, x: Tensor, y: Tensor) -> float:
        """Start from directions `encoder [F, D]` and `decoder [F, D_out]`, which are normalised.

        The encoder is scaled by the one factor that fits samples best: k correlated directions together would
        overshoot. Returns that factor.
        """
        self.encoder.copy_(F.normalize(encoder, dim=1))
        self.decoder.copy_(F.normalize(decoder, dim=1))
        pairs, pre = self.kernel.top_rows(x, self.encoder, self.b_enc, self.config.k)
        fit = self.kernel.decode(pre.relu(), self.decoder, pairs)
        gain = ((fit * y).sum() / fit.square().sum()).abs()
        self.encoder.mul_(gain)
        self.set_thresholds(x)
        return gain.item()

    @torch.no_grad()
    def restart(self, dead: Tensor, living: Tensor, encoder: Tensor, decoder: Tensor) -> list[nn.Parameter]:
        """Give the latents `dead` other directions, `encoder [n, D]` and `decoder [n, D_out]`. The encoder's are made
        as long as those of the `living [F]`, so that they win their samples, and everything else that a latent has,
        such as its threshold, becomes what these have on average. Returns the parameters that changed."""
        of_latents = [parameter for parameter in self.parameters() if parameter is not self.b_dec]
        length = self.encoder[living].norm(dim=1).mean()
        for parameter in of_latents:
            parameter[dead] = parameter[living].mean(0)
        self.encoder[dead] = F.normalize(encoder, dim=1) * length
        self.decoder[dead] = F.normalize(decoder, dim=1)
        return of_latents

    def set_thresholds(self, x: Tensor) -> None:
        """Set what the variant has besides encoder and decoder, once these are in place, from samples."""

    def go_on(self, x: Tensor, bias: Tensor, threshold: Tensor | None) -> None:
        """The same where the first latents are a finished dictionary's, with its `bias [n]` and, if it has such, its
        `threshold [n]`."""
        self.b_enc[: len(bias)] = bias
        self.set_thresholds(x)

    def _threshold(self, x: Tensor) -> Tensor:
        """The pre-activation above which k latents a sample are active on average."""
        count = self.config.k * len(x)
        _, pre = self.kernel.top_all(x, self.encoder, self.b_enc, count)
        return pre.topk(min(count, len(pre))).values[-1].clamp(min=0)

    def _compare(self, y: Tensor, values: Tensor, pairs: Pairs, variance: float) -> Losses:
        """The losses of a reconstruction from `values [P]`, of which some may be zero."""
        error, residual = self.kernel.error(values, self.decoder, self.b_dec, y, pairs)
        fvu = error / (len(y) * variance)
        return self._losses(fvu, fvu, residual, values, pairs)

    @staticmethod
    def _losses(loss: Tensor, fvu: Tensor, residual: Tensor, values: Tensor, pairs: Pairs) -> Losses:
        counts = pairs.latents.bincount((values.detach() > 0).to(values.dtype), minlength=pairs.d_sae)
        return Losses(loss, fvu, counts.sum().item() / len(residual), residual.detach(), counts > 0)


class TopKVariant(Variant):
    """The k largest latents of each sample are active (Gao et al. 2024, arXiv 2406.04093)."""

    def losses(self, x: Tensor, y: Tensor, variance: float) -> Losses:
        pairs, pre = self.kernel.top_rows(x, self.encoder, self.b_enc, self.config.k)
        return self._compare(y, pre.relu(), pairs, variance)

    def finished(self, d_in: int, d_out: int | None) -> SAE:
        return TopK(d_in, self.config.latents, self.config.k, d_out)


class BatchTopKVariant(Variant):
    """The k·N largest latents of a batch are active, so that samples share them by need; used with the threshold that
    this amounted to (Bussmann et al. 2024, arXiv 2412.06410)."""

    def __init__(self, config: SAEConfig, kernel: Kernel, d_in: int, d_out: int):
        super().__init__(config, kernel, d_in, d_out)
        self.threshold = nn.Buffer(torch.zeros(()))
        """Mean over recent batches of the smallest active latent."""

    def set_thresholds(self, x: Tensor) -> None:
        self.threshold.copy_(self._threshold(x))

    def losses(self, x: Tensor, y: Tensor, variance: float) -> Losses:
        pairs, values = self._active(x)
        return self._compare(y, values, pairs, variance)

    def _active(self, x: Tensor) -> tuple[Pairs, Tensor]:
        pairs, pre = self.kernel.top_all(x, self.encoder, self.b_enc, self.config.k * len(x))
        values = pre.relu()
        positive = values.detach()[values.detach() > 0]
        if self.training and len(positive):
            self.threshold.lerp_(positive.min(), _THRESHOLD_RATE)
        return pairs, values

    def finished(self, d_in: int, d_out: int | None) -> SAE:
        return _with_threshold(JumpReLU(d_in, self.config.latents, d_out), self.threshold)


class MatryoshkaVariant(BatchTopKVariant):
    """Batch-Top-K, of which every prefix of the dictionary reconstructs on its own as well as it can, so that general
    features come first (Bussmann et al. 2025, arXiv 2503.17547)."""

    def losses(self, x: Tensor, y: Tensor, variance: float) -> Losses:
        pairs, values = self._active(x)
        left, total, start, of_all = self.b_dec - y, torch.zeros((), dtype=y.dtype, device=y.device), 0, None
        for share in self.config.prefixes:
            end = round(share * self.config.latents)
            inside = (pairs.latents >= start) & (pairs.latents < end)
            left = left + self.kernel.decode(values[inside], self.decoder, pairs.where(inside))
            of_all = _squared_norm(left) / (len(y) * variance)
            total, start = total + of_all, end
        assert of_all is not None
        return self._losses(total / len(self.config.prefixes), of_all, left, values, pairs)


class PenalisedVariant(Variant):
    """Variants with a penalty on activity. The sparsity coefficient goes up while more than k latents are active in a
    sample and down while fewer are, so that k means the same for all variants.

    That takes some 400 updates, in which many more than k are active before the coefficient is large enough. In a
    shorter fit it begins larger and moves faster. As activity follows it late, a fit below 1,000 updates also weighs it
    by how far from k the activity is now, to a power: it would overshoot, and latents that a JumpReLU's threshold has
    closed do not come back in time.
    """

    def __init__(self, config: SAEConfig, kernel: Kernel, d_in: int, d_out: int):
        super().__init__(config, kernel, d_in, d_out)
        self.sparsity_coefficient = nn.Buffer(torch.tensor(_FIRST_COEFFICIENT))
        self._rate, self._power = _COEFFICIENT_RATE, 0.0

    def plan(self, updates: int) -> None:
        haste = max(1.0, _ARRIVES / updates)
        self.sparsity_coefficient.fill_(_FIRST_COEFFICIENT * haste)
        self._rate, self._power = _COEFFICIENT_RATE * haste, min(2.0, max(0.0, _SETTLES / updates - 1))

    def _penalised(self, losses: Losses, activity: Tensor, extra: Tensor | float = 0.0) -> Losses:
        """`activity` is of order 1 where k latents are active."""
        ratio = losses.l0 / self.config.k
        loss = losses.loss + extra + self.sparsity_coefficient.clone() * ratio**self._power * activity
        if self.training:
            excess = min(1.0, max(-1.0, ratio - 1))
            self.sparsity_coefficient.mul_(float(np.exp(self._rate * excess)))
        return replace(losses, loss=loss)


class JumpReLUVariant(PenalisedVariant):
    """Every latent has a threshold of its own, learned by straight-through estimates; the penalty is for each active
    latent (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    def __init__(self, config: SAEConfig, kernel: Kernel, d_in: int, d_out: int):
        super().__init__(config, kernel, d_in, d_out)
        self.log_threshold = nn.Parameter(torch.zeros(config.latents))
        self.bandwidth = nn.Buffer(torch.zeros(()))

    def set_thresholds(self, x: Tensor) -> None:
        threshold = self._threshold(x).clamp(min=torch.finfo(x.dtype).eps)
        self.log_threshold.fill_(threshold.log())
        self.bandwidth.copy_(_BANDWIDTH * threshold)

    def go_on(self, x: Tensor, bias: Tensor, threshold: Tensor | None) -> None:
        super().go_on(x, bias, threshold)
        if threshold is not None:
            self.log_threshold[: len(bias)] = threshold.clamp(min=torch.finfo(x.dtype).eps).log()

    def losses(self, x: Tensor, y: Tensor, variance: float) -> Losses:
        threshold = self.log_threshold.exp()
        floors = threshold.detach() - self.bandwidth / 2
        pairs, pre = self.kernel.above(x, self.encoder, self.b_enc, floors)
        of_pair = threshold[pairs.latents]
        values = _Jump.apply(pre, of_pair, self.bandwidth)
        active = _Step.apply(pre, of_pair, self.bandwidth)
        assert isinstance(values, Tensor)
        assert isinstance(active, Tensor)
        losses = self._compare(y, values, pairs, variance)
        return self._penalised(losses, active.sum() / (len(x) * self.config.k))

    def finished(self, d_in: int, d_out: int | None) -> SAE:
        return _with_threshold(JumpReLU(d_in, self.config.latents, d_out), self.log_threshold.exp())


class GatedVariant(PenalisedVariant):
    """One encoder decides which latents are active and how strong they are, with a bias and a scale apart, so that
    the penalty, on the gates, does not shrink the strengths (Rajamanoharan et al. 2024, arXiv 2404.16014).

    `b_enc` is the gates' bias.
    """

    def __init__(self, config: SAEConfig, kernel: Kernel, d_in: int, d_out: int):
        super().__init__(config, kernel, d_in, d_out)
        self.log_scale = nn.Parameter(torch.zeros(config.latents))
        self.b_strength = nn.Parameter(torch.zeros(config.latents))

    def set_thresholds(self, x: Tensor) -> None:
        self.b_enc.fill_(-self._threshold(x))

    def go_on(self, x: Tensor, bias: Tensor, threshold: Tensor | None) -> None:
        """What was the bias is the strengths'; the gates' is set so that they open at the threshold, see `finished`."""
        super().go_on(x, bias, threshold)
        count = len(bias)
        self.b_strength[:count] = bias
        self.b_enc[:count] = bias + (self.b_enc[:count] if threshold is None else -threshold)

    def losses(self, x: Tensor, y: Tensor, variance: float) -> Losses:
        pairs, pre = self.kernel.above(x, self.encoder, self.b_enc, torch.zeros_like(self.b_enc))
        gates = pre.relu()
        projected = gates - self.b_enc[pairs.latents]
        strength = (projected * self.log_scale.exp()[pairs.latents] + self.b_strength[pairs.latents]).relu()
        losses = self._compare(y, torch.where(gates > 0, strength, 0.0), pairs, variance)
        by_gates, _ = self.kernel.error(gates, self.decoder.detach(), self.b_dec.detach(), y, pairs)
        extra = by_gates / (len(y) * variance)
        return self._penalised(losses, gates.sum() / (len(x) * self.config.k), extra)

    def finished(self, d_in: int, d_out: int | None) -> SAE:
        """Gate open: π + b_enc > 0, which is e^s π + b > b − e^s b_enc, a JumpReLU's threshold (their appendix E)."""
        threshold = self.b_strength - self.log_scale.exp() * self.b_enc
        return _with_threshold(JumpReLU(d_in, self.config.latents, d_out), threshold.clamp(min=0))

    def used_encoder(self) -> tuple[Tensor, Tensor]:
        return self.encoder * self.log_scale.exp()[:, None], self.b_strength


VARIANTS: dict[VariantName, Callable[[SAEConfig, Kernel, int, int], Variant]] = {
    "topk": TopKVariant,
    "batch_topk": BatchTopKVariant,
    "matryoshka": MatryoshkaVariant,
    "jumprelu": JumpReLUVariant,
    "gated": GatedVariant,
}

_THRESHOLD_RATE = 0.01
_COEFFICIENT_RATE = 0.02
_FIRST_COEFFICIENT = 1e-2
_ARRIVES, _SETTLES = 400, 1000
"""Updates after which activity has come to k in a long fit, and after which it has settled there."""
_BANDWIDTH = 0.2
"""Width of the window in which a threshold feels pre-activations, relative to the first threshold."""


class _SquaredNorm(torch.autograd.Function):
    """The sum of squares, without the three arrays of x's size that `x.square().sum()` makes on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.dot(x.flatten(), x.flatten())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * (2 * gradient)


def _squared_norm(x: Tensor) -> Tensor:
    return _SquaredNorm.apply(x)  # pyright: ignore[reportReturnType]


class _Jump(torch.autograd.Function):
    """`z · 1(z > θ)`; the gradient of θ is −θ/ε within ε/2 of it (arXiv 2407.14435, eq. 11)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(z, threshold, bandwidth)
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold, bandwidth = ctx.saved_tensors
        near = (z - threshold).abs() < bandwidth / 2
        return gradient * (z > threshold), -gradient * near * threshold / bandwidth, None


class _Step(torch.autograd.Function):
    """`1(z > θ)`; the gradient of θ is −1/ε within ε/2 of it (arXiv 2407.14435, eq. 12)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(z, threshold, bandwidth)
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold, bandwidth = ctx.saved_tensors
        near = (z - threshold).abs() < bandwidth / 2
        return None, -gradient * near / bandwidth, None


@torch.no_grad()
def _with_threshold(sae: JumpReLU, threshold: Tensor) -> JumpReLU:
    sae.threshold.copy_(threshold)
    return sae
