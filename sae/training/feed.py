"""The data of a fit: whitened batches, pass after pass, in an order that a resumed fit takes up again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.device import pick_device, send
from rl_interp.core.errors import UserError
from rl_interp.sae.data import ArrayActivations, Data, Paired, as_activations, batches, check_finite, sample_rows
from rl_interp.sae.training.config import SAEConfig
from rl_interp.sae.training.whiten import Whitened, Whitening

_STATISTICS_ROWS = 65_536
_IN_MEMORY_BYTES = 1 << 30
_READING = ("batch_size", "epochs", "centre", "ridge", "policy_weight", "shuffle", "data_seed")


class Feed:
    """Batches of the rows `rows` (by default all) of `data`, and of `target`, if a transcoder is to predict it, on a
    device (auto, cpu or cuda).

    Several fits may share one, if their configurations agree on how it is read; then they see the same batches.

    Args:
        policy: `[D, D]`, the metric of what an agent decides with respect to what is reconstructed, which
            `config.policy_weight` weighs.
        whitened: how the data were whitened already, whatever `config.ridge` is; by default the feed does it, as a
            sample of them says.

    Raises:
        UserError: NaN or infinity in the activations, or all of them are the same, or the device is not there; or a
            `policy_weight` without a metric.
    """

    def __init__(
        self,
        data: Data,
        config: SAEConfig,
        rows: NDArray[np.integer] | None = None,
        target: Data | None = None,
        device: str = "cpu",
        policy: Tensor | None = None,
        whitened: Whitening | None = None,
    ):
        if config.policy_weight and policy is None:
            raise UserError(
                f"policy_weight={config.policy_weight:g} given for activations alone, of no agent's; fit on an agent's "
                "run, or give the metric of its policy."
            )
        data, target = as_activations(data), None if target is None else as_activations(target)
        self.config, self.transcodes, self.split = config, target is not None, data.width
        self.device = pick_device(device)
        self.raw = data if target is None else Paired(data, target)
        self.rows = np.arange(len(data)) if rows is None else _rising(np.asarray(rows))
        self._epoch, self._done = 0, 0
        if whitened is not None:  # whoever did it has seen that they are finite
            self.whitenings, self._data, self._order, self._batches = (whitened,), self.raw, self.rows, None
            return
        if self._fits_in_memory(self.raw.width):
            check_finite(self.raw, self.rows)  # elsewhere that would be a pass over a disk: see `check_finite`
        sample = self.raw.read(sample_rows(self.rows, _STATISTICS_ROWS, np.random.default_rng(config.data_seed)))
        if not np.isfinite(sample).all():
            check_finite(self.raw, self.rows)
        parts = (sample[:, : self.split], sample[:, self.split :])[: 1 + self.transcodes]
        of_out = (None,) * (len(parts) - 1) + (policy,)
        self._whiten(
            tuple(
                Whitening.of(part, config.ridge, config.centre, metric, config.policy_weight or 0.0)
                for part, metric in zip(parts, of_out, strict=True)
            )
        )

    @property
    def into(self) -> Whitening:
        """Of the inputs."""
        return self.whitenings[0]

    @property
    def out(self) -> Whitening:
        """Of the targets."""
        return self.whitenings[-1]

    @property
    def total_updates(self) -> int:
        return max(1, round(self.config.epochs * -(-len(self.rows) // self.config.batch_size)))

    def check(self, config: SAEConfig) -> None:
        """Raise a `UserError` unless the configuration reads the data as this feed does."""
        other = [name for name in _READING if getattr(config, name) != getattr(self.config, name)]
        if other:
            raise UserError(f"fits that share their data differ in {', '.join(other)}: give all the same.")

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch `x [N, D]` and its targets `y [N, D_out]`; in an autoencoder they are the same."""
        while True:
            if self._batches is None:
                # A generator for each pass, so that passes are shuffled independently and one can be taken up again.
                rng = np.random.default_rng((self.config.data_seed, self._epoch)) if self.config.shuffle else None
                arrays = batches(self._data, self._order, self.config.batch_size, rng)
                for _ in range(self._done):
                    next(arrays)
                # Not by a method of this feed, which would then refer to itself, and its data would outlive it.
                on_device = map(partial(send, device=self.device), arrays)
                self._batches = on_device if self.device.type == "cpu" else ahead(on_device)
            batch = next(self._batches, None)
            if batch is not None:
                self._done += 1
                return self._parts(batch)
            self._epoch, self._done, self._batches = self._epoch + 1, 0, None

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Random samples, as `next` gives batches."""
        return self._parts(send(self._data.read(sample_rows(self._order, count, rng)), self.device))

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "done": self._done,
            "whitenings": [whitening.state_dict() for whitening in self.whitenings],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that `state_dict` had seen.

        Raises:
            UserError: the data had been whitened before they were given.
        """
        if self._data is self.raw:
            raise UserError("a fit on data that were whitened before can't be taken up again; fit anew.")
        self._epoch, self._done, self._batches = state["epoch"], state["done"], None
        if not self.has(state):
            pairs = zip(self.whitenings, state["whitenings"], strict=True)  # earlier versions kept no dimensions
            self._whiten(tuple(Whitening(**{"dimensions": ours.dimensions, **theirs}) for ours, theirs in pairs))

    def has(self, state: dict[str, Any]) -> bool:
        """Whether the data are whitened as they were when `state_dict` gave this: another machine's components may
        differ in their signs."""
        pairs = zip(self.state_dict()["whitenings"], state["whitenings"], strict=True)
        return all(torch.equal(ours[name], theirs[name]) for ours, theirs in pairs for name in ("mean", "to", "back"))

    def _whiten(self, whitenings: tuple[Whitening, ...]) -> None:
        """Serve the data through these, from memory if they fit there."""
        self.whitenings = whitenings
        self._data, self._order = Whitened(self.raw, whitenings), self.rows
        if self._fits_in_memory(self._data.width):
            self._data, self._order = ArrayActivations(self._data.read(self.rows)), np.arange(len(self.rows))
        self._batches: Iterator[Tensor] | None = None

    def check_finite(self) -> None:
        """Raise a `UserError` that names the first row with NaN or infinity, if there is one."""
        check_finite(self.raw, self.rows)

    def _fits_in_memory(self, width: int) -> bool:
        return len(self.rows) * width * 4 <= _IN_MEMORY_BYTES

    def _parts(self, both: Tensor) -> tuple[Tensor, Tensor]:
        width = self.into.to.shape[1]
        return (both[:, :width].contiguous(), both[:, width:].contiguous()) if self.transcodes else (both, both)


def ahead(items: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same items, each fetched by a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _rising(rows: NDArray[np.integer]) -> NDArray[np.integer]:
    return rows if len(rows) < 2 or bool((rows[1:] > rows[:-1]).all()) else np.sort(rows)
