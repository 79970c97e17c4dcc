"""Fitting a Top-K autoencoder, exactly resumable.

AuxK (Gao et al. 2024, §A.2): latents that have not fired for a while reconstruct what the others left
over, which brings them back.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rl_interp.core.errors import UserError
from sae.config import SAEConfig
from sae.data import Activations, ArrayActivations, check_finite
from sae.model import TopK
from sae.whiten import Whitened, Whitening

Progress = Callable[[int, int, dict[str, float]], None]
_STATISTICS_ROWS = 65_536
_IN_MEMORY_BYTES = 1 << 30


class Trainer:
    """The state of a fit on the rows `rows` of `data`: what `state_dict` saves is all that it depends on."""

    def __init__(self, data: Activations, config: SAEConfig, rows: NDArray[np.integer] | None = None):
        self.config = config
        rows = np.arange(len(data)) if rows is None else np.asarray(rows)
        if len(rows) < config.latents:
            raise UserError(
                f"{len(rows)} samples given for {config.latents} latents; collect more, or fit fewer latents."
            )
        check_finite(data, rows)
        rng = np.random.default_rng(config.seed)
        self._raw = data, rows
        self._whiten(Whitening.of(_draw(data, rows, rng, _STATISTICS_ROWS), config.ridge, config.centre))
        self.model = TopK(self.data.width, config.latents, config.k)
        gain = self.model.initialise(self._directions(rng), torch.from_numpy(self._draw(rng, config.batch_size)))
        self.optimizer = self._optimizer(config.learning_rate, gain)
        self.samples = 0
        self.updates = 0
        self.silent = torch.zeros(config.latents, dtype=torch.int64)
        """Samples since each latent last fired, `[F]`."""
        self._epoch, self._epoch_batches = 0, 0
        self._batches: Iterator[NDArray[np.float32]] | None = None

    def _whiten(self, whitening: Whitening) -> None:
        """Serve the data through `whitening`, from memory if it fits there."""
        data, rows = self._raw
        self.whitening, self.data, self.rows = whitening, Whitened(data, whitening), rows
        if len(rows) * self.data.width * 4 <= _IN_MEMORY_BYTES:
            self.data, self.rows = ArrayActivations(self.data.read(rows)), np.arange(len(rows))

    @property
    def total_updates(self) -> int:
        per_epoch = -(-len(self.rows) // self.config.batch_size)
        return max(1, round(self.config.epochs * per_epoch))

    @property
    def dead_latents(self) -> Tensor:
        """Indices of the latents that count as dead now."""
        return torch.nonzero(self.silent > self._window)[:, 0]

    @property
    def _window(self) -> int:
        """Samples after which a latent that has not fired counts as dead."""
        return max(1, round(self.config.dead_after * len(self.rows)))

    def _draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        return _draw(self.data, self.rows, rng, count)

    def _optimizer(self, learning_rate: float, gain: float) -> torch.optim.Optimizer:
        """Adam, with steps in proportion to the weights.

        Adam moves every weight by about its step size, whatever the gradient. On data of low rank the encoder
        starts `gain` times as large as the decoder (a thirtieth, say), and with one step size for both each update
        would turn its directions thirty times as far: most latents would lose every sample and die.
        """
        model = self.model
        groups = (([model.W_dec, model.b_dec], learning_rate), ([model.W_enc, model.b_enc], learning_rate * gain))
        return torch.optim.Adam([{"params": parameters, "lr": lr, "peak": lr} for parameters, lr in groups], fused=True)

    def _directions(self, rng: np.random.Generator) -> Tensor:
        """Start directions `[F, R]`: distinct data samples, so that every latent wins some."""
        noise = rng.normal(size=(self.config.latents, self.data.width)).astype(np.float32)
        # A grain of noise keeps samples that happen to be equal from staying one latent.
        return torch.from_numpy(self._draw(rng, self.config.latents) + 0.01 * noise)

    def _next_batch(self) -> Tensor:
        while True:
            if self._batches is None:
                # A generator for each epoch, so that epochs are shuffled independently and one can be taken up again.
                rng = np.random.default_rng((self.config.seed, self._epoch)) if self.config.shuffle else None
                self._batches = self.data.batches(self.config.batch_size, rng, self.rows)
                for _ in range(self._epoch_batches):
                    next(self._batches)
            batch = next(self._batches, None)
            if batch is not None:
                self._epoch_batches += 1
                return torch.from_numpy(batch)
            self._epoch, self._epoch_batches, self._batches = self._epoch + 1, 0, None

    def step(self) -> dict[str, Tensor]:
        """One update; returns its `loss` and `fvu` (of the batch, before the update)."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._schedule()
        x = self._next_batch()
        losses, fired, error = self.losses(x)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        self._remove_parallel_gradient()
        self.optimizer.step()
        with torch.no_grad():
            self.model.W_dec.div_(self.model.W_dec.norm(dim=1, keepdim=True))
        self.silent += len(x)
        self.silent[fired] = 0
        windows = self.samples // self._window
        self.samples += len(x)
        self.updates += 1
        if self.config.revive and self.samples // self._window > windows and self._schedule() == 1:
            self._revive(x, error)
        return {name: value.detach() for name, value in losses.items()}

    def losses(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The losses of whitened `x [N, R]`, the latents that fired, and the error of each sample `[N]`, squared.

        `fvu` is measured against the variance of the data, not of the batch: a short last batch has little.
        """
        values, indices = self.model.encode_sparse(x)
        residual = x - self.model.decode_sparse(values, indices)
        error = residual.square().sum(1)
        fvu = error.mean() / self.whitening.variance
        loss = fvu
        dead = self.dead_latents
        if self.config.aux_k and len(dead):
            loss = loss + self.config.aux_coefficient * self._aux_loss(x, residual.detach(), dead)
        return {"loss": loss, "fvu": fvu}, indices[values > 0], error.detach()

    def _aux_loss(self, x: Tensor, error: Tensor, dead: Tensor) -> Tensor:
        """The share of `error [N, D]` that the `aux_k` strongest of the latents `dead` leave unexplained."""
        latents = torch.addmm(self.model.b_enc[dead], x - self.model.b_dec, self.model.W_enc[:, dead]).relu()
        if len(dead) > self.config.aux_k:
            strongest = latents.topk(self.config.aux_k, dim=-1, sorted=False).indices
            latents = latents * torch.zeros_like(latents).scatter(1, strongest, 1.0)
        left_over = error - latents @ self.model.W_dec[dead]
        return left_over.square().sum() / error.square().sum().clamp(min=torch.finfo(error.dtype).tiny)

    @torch.no_grad()
    def _revive(self, x: Tensor, error: Tensor) -> None:
        """Start the dead latents again as samples of `x`, drawn in proportion to their squared error.

        The encoder's rows are made as long as those of the living, so that they win their samples.
        """
        dead = self.dead_latents[: int((error > 0).sum())]
        if not len(dead):
            return
        model, living = self.model, self.silent <= self._window
        rng = np.random.default_rng((self.config.seed, self.updates))
        share = (error / error.sum()).double().numpy()
        chosen = torch.from_numpy(rng.choice(len(x), len(dead), replace=False, p=share / share.sum()))
        directions = F.normalize(x[chosen] - model.b_dec, dim=1)
        model.W_dec[dead] = directions
        model.W_enc[:, dead] = directions.T * model.W_enc[:, living].norm(dim=0).mean()
        model.b_enc[dead] = 0
        for parameter, at in ((model.W_dec, dead), (model.W_enc, (slice(None), dead)), (model.b_enc, dead)):
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[parameter][moment][at] = 0
        self.silent[dead] = 0

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

    def run(
        self,
        progress: Progress = lambda updates, total, metrics: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Update until `config.epochs` passes over the rows are done, or `should_stop()` is true.

        `progress` is called now and then with updates done, their total, and `fvu` and `dead`.

        Raises:
            UserError: the loss is not finite.
        """
        every = max(1, self.total_updates // 100)
        while self.updates < self.total_updates and not should_stop():
            losses = self.step()
            if self.updates % every == 0 or self.updates == self.total_updates:
                fvu = losses["fvu"].item()
                if not np.isfinite(fvu):
                    raise UserError(
                        f"the loss became {fvu} at update {self.updates}; lower learning_rate and fit again."
                    )
                progress(self.updates, self.total_updates, {"fvu": fvu, "dead": len(self.dead_latents)})

    def sae(self) -> TopK:
        """The autoencoder as it stands, for raw activations."""
        return self.model.folded(self.whitening)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers, copied: going on with the fit does not change them."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "whitening": self.whitening.state_dict(),
                "samples": self.samples,
                "updates": self.updates,
                "silent": self.silent,
                "epoch": self._epoch,
                "epoch_batches": self._epoch_batches,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a fit where `state_dict` saw it.

        Raises:
            UserError: the state is of other latents or another width.
        """
        state = copy.deepcopy(state)  # the optimiser would go on to write into it
        have, want = tuple(state["model"]["W_dec"].shape), tuple(self.model.W_dec.shape)
        if have != want:
            raise UserError(
                f"the state is of a dictionary {have} and this fit makes {want} (latents, width): start anew."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._whiten(Whitening(**state["whitening"]))  # another machine's may differ by the signs of its components
        self.samples, self.updates, self.silent = state["samples"], state["updates"], state["silent"]
        self._epoch, self._epoch_batches, self._batches = state["epoch"], state["epoch_batches"], None


def fit(data: Activations, config: SAEConfig, rows: NDArray[np.integer] | None = None) -> TopK:
    """Fit to `rows` (by default all) of `data` and return the autoencoder, for raw activations.

    Raises:
        UserError: too few samples, NaN or infinity in them, or a loss that is not finite.
    """
    trainer = Trainer(data, config, rows)
    trainer.run()
    return trainer.sae()


def _draw(data: Activations, rows: NDArray[np.integer], rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    return data.read(np.sort(rng.choice(rows, min(count, len(rows)), replace=False)))
