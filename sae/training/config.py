"""The configuration of a fit."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

from rl_interp.core.errors import UserError

VariantName = Literal["topk", "batch_topk", "matryoshka", "jumprelu", "gated"]


@dataclass(frozen=True)
class SAEConfig:
    """A sparse autoencoder or transcoder, and how it is fitted. The defaults suit a DQN's layer."""

    RENAMED: ClassVar = {"kind": "variant", "revive": "resample"}

    variant: VariantName = "topk"
    """What decides which latents are active; see `rl_interp.sae.training.variants`."""
    latents: int = 2048
    """Width of the dictionary, d_sae."""
    k: int = 32
    """Latents that are active in one sample: at most so many for topk, on average for the others."""
    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """Shares of the dictionary that each reconstruct on their own; for matryoshka only."""
    epochs: float = 12.0
    """Passes over the data."""
    batch_size: int = 512
    """Samples per update."""
    learning_rate: float | None = None
    """Adam's highest step size; by default chosen from the data. Lower it if latents die or the loss jumps."""
    warmup: float = 0.02
    """Share of the updates over which the step size rises from 0."""
    decay: float = 0.3
    """Share of the updates, at the end, over which the step size falls to 0."""
    aux_k: int = 256
    """Dead latents that the auxiliary loss lets reconstruct the residual; 0 for none."""
    aux_coefficient: float = 1 / 32
    """Weight of the auxiliary loss."""
    # Relative to the data: a window of millions of samples would never trigger on a small store.
    dead_after: float = 0.25
    """Passes over the data without firing after which a latent counts as dead during the fit."""
    resample: bool = True
    """Restart dead latents, every `dead_after`, as badly reconstructed samples (Bricken et al. 2023)."""
    start: Literal["samples", "random"] = "samples"
    """Initial directions: those of data samples, which lie where the data varies, or random ones."""
    centre: bool = True
    """Remove the data's mean before the fit (it is folded into the weights afterwards)."""
    # Whitening is folded into the weights afterwards; inf scales all dimensions by one factor.
    ridge: float = 0.3
    """Whitening adds this share of the mean variance to each component's: 0 evens all out, inf scales all alike."""
    policy_weight: float | None = None
    """How much what the agent decides counts beside the activations themselves: at 1 as much of the variance that is to
    be explained is of either. By default 1 on an agent's run, where its decisions depend on the layer; 0 otherwise."""
    shuffle: bool = True
    """Shuffle samples across episodes."""
    held_out: float = 0.2
    """Share of the episodes kept for evaluation."""
    # A store that does not tell them apart, as of a game without ground truth, is used whole.
    uncontrollable: bool = False
    """Keep the steps at which actions make no difference, such as those during a game's animations."""
    seed: int = 0
    """Seed of the initialisation."""
    data_seed: int = 0
    """Seed of the shuffling and the split; dictionaries that differ in `seed` alone see the same data."""
    kernel: Literal["sparse", "dense"] = "sparse"
    """How products are computed: over active latents only, in compiled loops, or densely, by PyTorch's autograd."""

    def __post_init__(self) -> None:
        for name in ("latents", "k", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("epochs", "dead_after"):
            self._require(name, 0 < getattr(self, name) < inf, "positive and finite")
        self._require(
            "learning_rate", self.learning_rate is None or 0 < self.learning_rate < inf, "positive and finite"
        )
        for name in ("seed", "data_seed"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("aux_k", "aux_coefficient"):
            self._require(name, 0 <= getattr(self, name) < inf, "at least 0 and finite")
        self._require("ridge", self.ridge >= 0, "at least 0")
        self._require(
            "policy_weight", self.policy_weight is None or 0 <= self.policy_weight < inf, "at least 0 and finite"
        )
        for name in ("warmup", "decay"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a share, from 0 to 1")
        self._require("held_out", 0 <= self.held_out < 1, "a share, at least 0 and below 1")
        if self.k >= self.latents:
            raise UserError(f"k={self.k} given with latents={self.latents}; fewer than all must be active: lower k.")
        rising = all(a < b for a, b in zip((0.0, *self.prefixes), self.prefixes, strict=False))
        if not rising or not self.prefixes or self.prefixes[-1] != 1:
            raise UserError(f"prefixes={self.prefixes} given; they are rising shares of the dictionary, the last 1.")
        if self.warmup + self.decay > 1:
            raise UserError(f"warmup={self.warmup} and decay={self.decay} given; together they are at most 1.")

    def peak_rate(self, dimensions: float) -> float:
        """The step size of a fit to targets of so many dimensions, as `Whitening.dimensions` counts them.

        In proportion to the share of the dimensions that active latents are, k of `dimensions`, up to a highest, which
        layers of agents reach: a rule found by measuring, on planted data and such layers (figures in
        docs/results/sae_step_size.md).

        The highest falls for more than 2,048 latents, each of which wins fewer samples, and is a quarter for
        Matryoshka, whose outer latents explain only what the inner ones leave over: of larger steps they die.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        highest = _HIGHEST_RATE * min(1.0, 2048 / self.latents) * (0.25 if self.variant == "matryoshka" else 1.0)
        return min(highest, max(_LOWEST_RATE, _RATE * self.k / max(1.0, dimensions)))

    def _require(self, name: str, fine: bool, wanted: str) -> None:
        if not fine:  # NaN is not fine either: every comparison with it is false
            raise UserError(f"{name}={getattr(self, name)} given; it must be {wanted}.")


_RATE, _LOWEST_RATE, _HIGHEST_RATE = 0.15, 5e-4, 0.03
