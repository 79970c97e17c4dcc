"""Fitting a sparse dictionary, exactly resumable.

AuxK (Gao et al. 2024, §A.2): latents that have not fired for a while reconstruct what the others left
over, which brings them back.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.compiled import announce
from rl_interp.core.device import keep_memory
from rl_interp.core.errors import UserError
from rl_interp.sae.data import Data
from rl_interp.sae.model import SAE, JumpReLU
from rl_interp.sae.training.config import SAEConfig
from rl_interp.sae.training.feed import Feed
from rl_interp.sae.training.kernels.accelerator import AcceleratorKernel, check_triton
from rl_interp.sae.training.kernels.cpu import CPUKernel, loops_are_right
from rl_interp.sae.training.kernels.pairs import DenseKernel, Kernel
from rl_interp.sae.training.variants import VARIANTS, Losses

Progress = Callable[[int, int, dict[str, float]], None]


class Trainer:
    """The state of a fit on a feed: what `state_dict` saves is all that it depends on.

    Args:
        start: a dictionary to go on from, of the same or another variant, such as that of an earlier checkpoint of the
            agent. Latents that it lacks begin as they do in a new one.

    Raises:
        UserError: fewer samples than latents, a feed that is read otherwise than `config` says, or a dictionary to
            start from that has more latents or is of layers of other widths.
    """

    def __init__(self, feed: Feed, config: SAEConfig, start: SAE | None = None):
        feed.check(config)
        if len(feed.rows) < config.latents:
            raise UserError(
                f"{len(feed.rows)} samples given for {config.latents} latents; collect more, or fit fewer latents."
            )
        self.feed, self.config = feed, config
        sizes = feed.into.to.shape[1], feed.out.to.shape[1]
        self.variant = VARIANTS[config.variant](config, _kernel(config, feed.device), *sizes).to(feed.device)
        self.variant.plan(self.total_updates)
        gain = self._initialise(np.random.default_rng(config.seed))
        if start is not None:
            gain = self._go_on_from(start)
        self.optimizer = self._optimizer(gain)
        self.samples = 0
        self.updates = 0
        self.silent = torch.zeros(config.latents, dtype=torch.int64, device=feed.device)
        """Samples since each latent last fired, `[F]`."""

    @property
    def total_updates(self) -> int:
        return self.feed.total_updates

    @property
    def dead_latents(self) -> Tensor:
        """Indices of the latents that count as dead now."""
        return torch.nonzero(self.silent > self._window)[:, 0]

    @property
    def _window(self) -> int:
        """Samples after which a latent that has not fired counts as dead."""
        return max(1, round(self.config.dead_after * len(self.feed.rows)))

    def _initialise(self, rng: np.random.Generator) -> float:
        """Start directions: distinct data samples, so that every latent wins some; or random ones."""
        x, y = self.feed.draw(rng, self.config.latents)
        noise, other = (torch.from_numpy(rng.normal(size=each.shape).astype(np.float32)).to(x) for each in (x, y))
        if not self.feed.transcodes:
            other = noise
        # Among samples, a grain of noise keeps two that happen to be equal from staying one latent.
        samples, grain = (1.0, 0.01) if self.config.start == "samples" else (0.0, 1.0)
        return self.variant.initialise(
            samples * x + grain * noise, samples * y + grain * other, *self.feed.draw(rng, self.config.batch_size)
        )

    @torch.no_grad()
    def _go_on_from(self, start: SAE) -> float:
        """Take a dictionary's latents as the first ones, as they are in this feed's whitening: the inverse of `sae`,
        but for what it does not span. Returns the encoder's mean length, as `Variant.initialise` does."""
        into, out, count = self.feed.into, self.feed.out, start.d_sae
        widths = len(into.to), len(out.to)
        if (start.d_in, start.d_out) != widths or start.transcodes != self.feed.transcodes:
            raise UserError(
                f"a dictionary from {start.d_in} to {start.d_out} activations given to start from, for a layer of "
                f"{widths[0]} and one of {widths[1]}; give one that was fitted to the same layers."
            )
        if count > self.config.latents:
            raise UserError(
                f"a dictionary of {count} latents given to start from, for {self.config.latents}; give latents={count} "
                "or more: a dictionary can grow, and which latents to leave out is not said."
            )
        start = copy.deepcopy(start).to(self.feed.device)
        given = into.mean if start.transcodes else into.mean - start.b_dec
        decoder = start.W_dec @ out.to
        length = decoder.norm(dim=1, keepdim=True).clamp(min=torch.finfo(decoder.dtype).tiny)
        # Rows of the decoder have unit norm in a fit, and what a latent is worth goes with its encoder.
        variant = self.variant
        variant.encoder[:count] = (into.back @ start.W_enc).T * length
        variant.decoder[:count] = decoder / length
        variant.b_dec.copy_((start.b_dec - out.mean) @ out.to)
        bias = (start.b_enc + given @ start.W_enc) * length[:, 0]
        threshold = start.threshold * length[:, 0] if isinstance(start, JumpReLU) else None
        rng = np.random.default_rng(self.config.seed)
        variant.go_on(self.feed.draw(rng, self.config.batch_size)[0], bias, threshold)
        return variant.encoder[:count].norm(dim=1).mean().item()

    def _optimizer(self, gain: float) -> torch.optim.Optimizer:
        """Adam, with steps in proportion to the weights.

        Adam moves every weight by about its step size, whatever the gradient. On data of low rank the encoder
        starts `gain` times as large as the decoder (a thirteenth, say), and with one step size for both each update
        would turn its directions thirteen times as far: most latents would lose every sample and die. Biases are of the
        size of what latents are worth, which is that of the data, and take whole steps: with the encoder's small
        ones the Ms. Pac-Man layer's FVU is a fifth higher, 0.016.
        """
        rate, encoder = self.config.peak_rate(self.feed.out.dimensions), self.variant.encoder
        others = [parameter for parameter in self.variant.parameters() if parameter is not encoder]
        groups = [{"params": others, "lr": rate, "peak": rate}]
        groups.append({"params": [encoder], "lr": rate * gain, "peak": rate * gain})
        return torch.optim.Adam(groups, fused=True)

    def step(self, batch: tuple[Tensor, Tensor] | None = None) -> Losses:
        """One update, on the feed's next batch or on `batch`, which it gave; returns the losses before the update."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._schedule()
        x, y = self.feed.next() if batch is None else batch
        losses = self.variant.losses(x, y, self.feed.out.variance)
        # Dead latents get a gradient from what the living ones leave over: of the reconstruction they have none.
        loss, dead = losses.loss, self.dead_latents
        if self.config.aux_k and len(dead):
            loss = loss + self.config.aux_coefficient * self.aux_loss(x, losses.residual, dead)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # Directions keep unit norm, or activations could shrink, and with them a penalty, while directions grow.
        self._remove_parallel_gradient()
        self.optimizer.step()
        with torch.no_grad():
            self.variant.decoder.div_(self.variant.decoder.norm(dim=1, keepdim=True))
        # Counted in samples rather than updates, so that "dead" means the same for every batch size.
        self.silent.add_(len(x)).masked_fill_(losses.fired, 0)
        windows = self.samples // self._window
        self.samples += len(x)
        self.updates += 1
        # Once a window, and not while the step size rises or falls: what starts again needs whole steps to settle.
        if self.config.resample and self.samples // self._window > windows and self._schedule() == 1:
            self._resample(x, losses.residual)
        return losses

    def aux_loss(self, x: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
        """The share of `residual [N, D_out]` that the `aux_k` strongest of the latents `dead` leave unexplained: AuxK,
        normalised by what there is to explain."""
        variant, nothing = self.variant, residual.new_zeros(residual.shape[1])
        k = min(self.config.aux_k, len(dead))
        pairs, pre = variant.kernel.top_rows(x, variant.encoder[dead], variant.b_enc[dead], k)
        left_over, _ = variant.kernel.error(pre.relu(), variant.decoder[dead], nothing, -residual, pairs)
        return left_over / residual.square().sum().clamp(min=torch.finfo(residual.dtype).tiny)

    @torch.no_grad()
    def _resample(self, x: Tensor, residual: Tensor) -> None:
        """Start the dead latents again as samples, drawn in proportion to their squared error: what was read there,
        and what was missing. It matters early in training, on layers that vary along little more than one dimension."""
        error = residual.square().sum(1)
        dead, living = self.dead_latents[: int((error > 0).sum())], self.silent <= self._window
        if not len(dead) or not living.any():
            return
        rng = np.random.default_rng((self.config.seed, self.updates))
        share = (error / error.sum()).double().cpu().numpy()
        chosen = torch.from_numpy(rng.choice(len(x), len(dead), replace=False, p=share / share.sum())).to(x.device)
        read = x[chosen]
        missing = -residual[chosen] if self.feed.transcodes else read - self.variant.b_dec
        for parameter in self.variant.restart(dead, living, read, missing):
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[parameter][moment][dead] = 0
        self.silent[dead] = 0

    @torch.no_grad()
    def _remove_parallel_gradient(self) -> None:
        """Project each row's gradient off the row, so that Adam's moments hold no step that renormalising undoes."""
        weight, gradient = self.variant.decoder, self.variant.decoder.grad
        assert gradient is not None
        gradient.addcmul_((gradient * weight).sum(1, keepdim=True), weight, value=-1)

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
        """Update until `config.epochs` passes over the rows are done, or `should_stop()` is true; see `fit_all`."""
        fit_all([self], lambda updates, total, metrics: progress(updates, total, metrics[0]), should_stop)

    @torch.no_grad()
    def sae(self) -> SAE:
        """The dictionary as it stands, on the CPU and for raw activations: whitening is folded into the weights.

        Latents keep their values, and so their ranks: rows of `W_dec` are what one unit of a latent adds to the raw
        activations, and have unit norm only where `ridge` is infinite and one factor scales all.
        """
        variant, into, out = self.variant, self.feed.into, self.feed.out
        sae = variant.finished(len(into.to), len(out.to) if self.feed.transcodes else None)
        encoder, bias, decoder, b_dec = (
            each.cpu() for each in (*variant.used_encoder(), variant.decoder, variant.b_dec)
        )
        sae.W_enc.copy_(into.to @ encoder.T)
        # Both were fitted to x − mean. A transcoder is given x; an autoencoder x − b_dec, whose b_dec holds the mean.
        given = -into.mean @ into.to if self.feed.transcodes else b_dec
        sae.b_enc.copy_(bias + encoder @ given)
        sae.W_dec.copy_(decoder @ out.back)
        sae.b_dec.copy_(out.mean + b_dec @ out.back)
        return sae.eval()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers, copied: going on with the fit does not change them."""
        return copy.deepcopy(
            {
                "variant": self.variant.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "feed": self.feed.state_dict(),
                "samples": self.samples,
                "updates": self.updates,
                "silent": self.silent,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a fit where `state_dict` saw it.

        Raises:
            UserError: the state is of a different variant, number of latents or width.
        """
        state = copy.deepcopy(state)  # the optimiser would go on to write into it
        if "kind" in state:  # of an earlier version
            state["variant"] = {_RENAMED.get(name, name): value for name, value in state.pop("kind").items()}
        have = {name: tuple(value.shape) for name, value in state["variant"].items()}
        want = {name: tuple(value.shape) for name, value in self.variant.state_dict().items()}
        if have != want:
            raise UserError(f"the state is of a dictionary {have} and this fit makes {want}: start anew.")
        self.variant.load_state_dict(state["variant"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.feed.load_state_dict(state["feed"])  # another machine's whitening may differ by its components' signs
        self.samples, self.updates = state["samples"], state["updates"]
        self.silent.copy_(state["silent"])


_RENAMED: dict[str, str] = {"price": "sparsity_coefficient"}
"""Values of a fit's state that had another name in earlier versions."""


def fit_all(
    trainers: Sequence[Trainer],
    progress: Callable[[int, int, list[dict[str, float]]], None] = lambda updates, total, metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run fits that share a feed side by side, in one pass over its data.

    `progress` is called now and then with updates done, their total, and each fit's `whitened_fvu` (of
    the last batch, see `Losses`), `l0` and `dead`.

    Raises:
        UserError: the fits are on several feeds or were stopped apart, or a loss is not finite.
    """
    feed, total = trainers[0].feed, trainers[0].total_updates
    if any(trainer.feed is not feed or trainer.updates != trainers[0].updates for trainer in trainers):
        raise UserError("the fits do not share a feed, or are not equally far: run each by itself.")
    keep_memory()
    every = max(1, total // 100)
    while trainers[0].updates < total and not should_stop():
        batch = feed.next()
        losses = [trainer.step(batch) for trainer in trainers]
        done = trainers[0].updates
        if done % every == 0 or done == total:
            progress(done, total, [_figures(*each) for each in zip(trainers, losses, strict=True)])


def fit(
    data: Data,
    config: SAEConfig,
    rows: NDArray[np.integer] | None = None,
    target: Data | None = None,
    device: str = "cpu",
    start: SAE | None = None,
) -> SAE:
    """Fit to `rows` (by default all) of `data`, a store, an array or a tensor; with a `target`, a transcoder that
    predicts it. Returns it on the CPU, for raw activations.

    Args:
        device: to compute on: auto, cpu or cuda.
        start: a dictionary to go on from, see `Trainer`.

    Raises:
        UserError: too few samples, NaN or infinity in them, a loss that is not finite, or a device that is not there.
    """
    trainer = Trainer(Feed(data, config, rows, target, device), config, start)
    trainer.run()
    return trainer.sae()


def _kernel(config: SAEConfig, device: torch.device) -> Kernel:
    if config.kernel == "dense":
        return DenseKernel()
    if device.type == "cpu":
        return CPUKernel() if loops_are_right() else DenseKernel()
    check_triton()
    announce("kernels of the GPU")
    return AcceleratorKernel()


def _figures(trainer: Trainer, losses: Losses) -> dict[str, float]:
    fvu = losses.fvu.item()
    if not np.isfinite(fvu):
        trainer.feed.check_finite()
        raise UserError(f"the loss became {fvu} at update {trainer.updates}; lower learning_rate and fit again.")
    return {"whitened_fvu": fvu, "l0": losses.l0, "dead": float(len(trainer.dead_latents))}
