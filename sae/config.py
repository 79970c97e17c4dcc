"""The configuration of a fit."""

from dataclasses import dataclass

from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class SAEConfig:
    """A Top-K sparse autoencoder with the AuxK loss (Gao et al. 2024, arXiv 2406.04093)."""

    latents: int = 2048
    """Width of the dictionary, d_sae."""
    k: int = 32
    """Latents that may be active in one sample."""
    epochs: float = 16.0
    """Passes over the data."""
    batch_size: int = 1024
    """Samples per update."""
    learning_rate: float = 3e-3
    """Adam's step size at its highest."""
    warmup: float = 0.02
    """Share of the updates over which the step size rises from 0."""
    decay: float = 0.3
    """Share of the updates, at the end, over which it falls to 0."""
    aux_k: int = 256
    """Dead latents that the auxiliary loss lets reconstruct the residual; 0 for none."""
    aux_coefficient: float = 1 / 32
    """Weight of the auxiliary loss."""
    dead_after: float = 0.25
    """Passes over the data without firing after which a latent counts as dead during the fit. Relative
    to the data: a window of millions of samples would never trigger on a small store."""
    centre: bool = True
    """Whether the data's mean is removed before the fit (it is folded into the weights)."""
    scale: bool = True
    """Whether the data is scaled to unit variance (one factor, folded into the weights)."""
    shuffle: bool = True
    """Whether samples are mixed across episodes."""
    data_init: bool = True
    """Whether the dictionary starts as data samples' directions, so that every latent points into the
    subspace that the activations use; else as random directions."""
    held_out: float = 0.2
    """Share of the episodes kept for evaluation."""
    seed: int = 0
    """Of initialisation, shuffling and the split."""

    def __post_init__(self) -> None:
        for name in ("latents", "k", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} given; it must be at least 1.")
        if self.k > self.latents:
            raise UserError(
                f"k={self.k} given with latents={self.latents}; at most all latents can be active: lower k."
            )
        if self.epochs <= 0 or self.learning_rate <= 0 or self.dead_after <= 0:
            raise UserError("epochs, learning_rate and dead_after must be positive.")
        if not 0 <= self.held_out < 1 or self.aux_k < 0 or not 0 <= self.warmup + self.decay <= 1:
            raise UserError("held_out lies in [0, 1), aux_k is at least 0, and warmup + decay at most 1.")
