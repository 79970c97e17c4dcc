"""Fitting a Top-K autoencoder, exactly resumable.

AuxK (Gao et al. 2024, §A.2): latents that have not fired for a while reconstruct what the others left
over, which brings them back.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.errors import UserError
from sae.config import SAEConfig
from sae.data import Activations, ArrayActivations, check_finite
from sae.model import TopK

Progress = Callable[[int, int, dict[str, float]], None]
_STATISTICS_ROWS = 65_536
_IN_MEMORY_BYTES = 1 << 30


class Trainer:
    """The state of a fit on the rows `rows` of `data`: what `state_dict` saves is all that it depends on."""

    def __init__(self, data: Activations, config: SAEConfig, rows: NDArray[np.integer] | None = None):
        self.data, self.config = data, config
        self.rows = np.arange(len(data)) if rows is None else np.asarray(rows)
        if len(self.rows) < config.latents:
            raise UserError(
                f"{len(self.rows)} samples given for {config.latents} latents; collect more, or fit fewer latents."
            )
        if len(self.rows) * data.width * 4 <= _IN_MEMORY_BYTES:
            self.data, self.rows = ArrayActivations(data.read(self.rows)), np.arange(len(self.rows))
        self.rng = np.random.default_rng(config.seed)
        self.mean, self.scale = self._statistics()
        self.model = TopK(data.width, config.latents, config.k)
        self.model.initialise(self._directions(), self._normalise(self._sample(config.batch_size)))
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.learning_rate, betas=(0.9, 0.999), fused=True)
        self.samples = 0
        self.updates = 0
        self.silent = torch.zeros(config.latents, dtype=torch.int64)
        """Samples since each latent last fired, `[F]`."""
        self._epoch_rng = self.rng.bit_generator.state
        self._epoch_batches = 0
        self._batches: Iterator[NDArray[np.float32]] | None = None

    @property
    def total_updates(self) -> int:
        per_epoch = -(-len(self.rows) // self.config.batch_size)
        return max(1, round(self.config.epochs * per_epoch))

    @property
    def dead_latents(self) -> Tensor:
        """Indices of the latents that count as dead now."""
        return torch.nonzero(self.silent > self.config.dead_after * len(self.rows))[:, 0]

    def _sample(self, count: int) -> NDArray[np.float32]:
        chosen = np.sort(self.rng.choice(self.rows, min(count, len(self.rows)), replace=False))
        values = self.data.read(chosen)
        check_finite(values, 0)
        return values

    def _statistics(self) -> tuple[Tensor, float]:
        values = self._sample(_STATISTICS_ROWS)
        mean = values.mean(0) if self.config.centre else np.zeros(values.shape[1], np.float32)
        spread = float(np.sqrt(((values - values.mean(0)) ** 2).mean()))
        if spread == 0:
            raise UserError(
                "every activation is the same, so there is nothing to decompose; choose another hook point."
            )
        return torch.from_numpy(mean), spread if self.config.scale else 1.0

    def _directions(self) -> Tensor:
        """Start directions `[F, D]`: distinct data samples, or Gaussian ones."""
        if not self.config.data_init:
            noise = self.rng.normal(size=(self.config.latents, self.data.width))
            return torch.from_numpy(noise.astype(np.float32))
        rows = torch.from_numpy(self._sample(self.config.latents)) - self.mean
        # A grain of noise keeps samples that happen to be equal from staying one latent.
        noise = torch.from_numpy(self.rng.normal(size=rows.shape).astype(np.float32))
        return rows + 0.01 * self.scale * noise * (rows.abs() > 0)

    def _normalise(self, batch: NDArray[np.float32]) -> Tensor:
        return (torch.from_numpy(batch) - self.mean) / self.scale

    def _next_batch(self) -> Tensor:
        while True:
            if self._batches is None:
                shuffle = np.random.default_rng()
                shuffle.bit_generator.state = self._epoch_rng
                self._batches = self.data.batches(
                    self.config.batch_size, shuffle if self.config.shuffle else None, self.rows
                )
                for _ in range(self._epoch_batches):
                    next(self._batches)
            batch = next(self._batches, None)
            if batch is not None:
                self._epoch_batches += 1
                check_finite(batch, self.samples)
                return self._normalise(batch)
            self.rng.integers(1 << 62)
            self._epoch_rng, self._epoch_batches, self._batches = self.rng.bit_generator.state, 0, None

    def step(self) -> dict[str, Tensor]:
        """One update; returns its `loss` and `fvu` (of the batch, before the update)."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule()
        x = self._next_batch()
        losses, indices = self.losses(x)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        self._remove_parallel_gradient()
        self.optimizer.step()
        with torch.no_grad():
            self.model.W_dec.div_(self.model.W_dec.norm(dim=1, keepdim=True))
        self.silent += len(x)
        self.silent[indices] = 0
        self.samples += len(x)
        self.updates += 1
        return {name: value.detach() for name, value in losses.items()}

    def losses(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of `x [N, D]` (centred and scaled) and the latents that fired."""
        pre = self.model.pre_activations(x)
        values, indices = pre.topk(self.config.k, dim=-1, sorted=False)
        values = values.relu()
        error = x - self.model.decode_sparse(values, indices)
        variance = (x - x.mean(0)).square().sum()
        fvu = error.square().sum() / variance
        loss = fvu
        dead = self.dead_latents
        if self.config.aux_k and len(dead):
            chosen, at = pre[:, dead].topk(min(self.config.aux_k, len(dead)), dim=-1, sorted=False)
            left_over = error.detach()
            revived = self.model.decode_sparse(chosen.relu(), dead[at]) - self.model.b_dec
            aux = (left_over - revived).square().sum() / left_over.square().sum()
            loss = loss + self.config.aux_coefficient * aux
        return {"loss": loss, "fvu": fvu}, indices[values > 0]

    @torch.no_grad()
    def _remove_parallel_gradient(self) -> None:
        """Project each row's gradient off the row, so that Adam's moments hold no step that renormalising undoes."""
        weight, gradient = self.model.W_dec, self.model.W_dec.grad
        assert gradient is not None
        gradient.sub_((gradient * weight).sum(1, keepdim=True) * weight)

    def _schedule(self) -> float:
        done = self.updates / self.total_updates
        rising = (self.updates + 1) / max(1, self.config.warmup * self.total_updates)
        falling = (1 - done) / self.config.decay if self.config.decay else 1.0
        return min(1.0, rising, falling)

    def sae(self) -> TopK:
        """The autoencoder as it stands, for raw activations."""
        return self.model.folded(self.mean, self.scale)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mean": self.mean,
            "scale": self.scale,
            "samples": self.samples,
            "updates": self.updates,
            "silent": self.silent,
            "rng": self.rng.bit_generator.state,
            "epoch_rng": self._epoch_rng,
            "epoch_batches": self._epoch_batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.mean, self.scale = state["mean"], state["scale"]
        self.samples, self.updates, self.silent = state["samples"], state["updates"], state["silent"].clone()
        self.rng.bit_generator.state = state["rng"]
        self._epoch_rng, self._epoch_batches, self._batches = state["epoch_rng"], state["epoch_batches"], None


def fit(
    data: Activations,
    config: SAEConfig,
    rows: NDArray[np.integer] | None = None,
    *,
    state: dict[str, Any] | None = None,
    progress: Progress = lambda updates, total, metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trainer:
    """Fit until `config.epochs` passes over the rows are done, or `should_stop()` is true.

    Args:
        rows: the rows to fit on; by default all.
        state: of a `Trainer` to go on from, bit for bit.
        progress: called now and then with updates done, their total, and `fvu` and `dead`.

    Raises:
        UserError: too few samples, NaN or infinity in them, or a loss that is not finite.
    """
    trainer = Trainer(data, config, rows)
    if state is not None:
        trainer.load_state_dict(state)
    every = max(1, trainer.total_updates // 100)
    while trainer.updates < trainer.total_updates and not should_stop():
        losses = trainer.step()
        if trainer.updates % every == 0 or trainer.updates == trainer.total_updates:
            fvu = losses["fvu"].item()
            if not np.isfinite(fvu):
                raise UserError(
                    f"the loss became {fvu} at update {trainer.updates}; lower learning_rate and fit again."
                )
            progress(trainer.updates, trainer.total_updates, {"fvu": fvu, "dead": len(trainer.dead_latents)})
    return trainer
