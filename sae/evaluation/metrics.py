"""How good an autoencoder is: reconstruction, use of its latents, and what splicing it in does to the agent."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from rl_interp.core.errors import UserError
from rl_interp.core.stats import Interval, bootstrap
from rl_interp.sae.data import Activations, check_finite
from rl_interp.sae.model import SAE

ULTRA_RARE = 1e-4
"""A latent that fires in a smaller share of the samples is ultra-rare (dead ones not counted)."""


@dataclass(frozen=True)
class Encoding:
    """The active latents of some rows, row by row: those of row n are `starts[n] : starts[n + 1]`."""

    starts: NDArray[np.int64]
    """`[N + 1]`."""
    latents: NDArray[np.int32]
    """`[P]`."""
    values: NDArray[np.float32]
    """`[P]`, positive."""
    d_sae: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self) -> NDArray[np.int64]:
        """`[P]`: the row of each active latent."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def density(self) -> NDArray[np.float64]:
        """`[F]`: share of the rows in which each latent fires."""
        return np.bincount(self.latents, minlength=self.d_sae) / len(self)

    def dense(self) -> NDArray[np.float32]:
        """`[N, F]`."""
        out = np.zeros((len(self), self.d_sae), np.float32)
        out[self.rows(), self.latents] = self.values
        return out


@torch.no_grad()
def encode_rows(sae: SAE, data: Activations, rows: NDArray[np.integer], batch: int = 4096) -> Encoding:
    """Encode `rows` of `data`, in order, a batch at a time; works on the device of the dictionary."""
    counts, latents, values = [np.zeros(1, np.int64)], [], []
    for _, x in _batches(data, rows, batch):
        found, at = (each.cpu().numpy() for each in sae.encode_sparse(x.to(sae.W_dec.device)))
        active = found > 0
        counts.append(active.sum(1))
        latents.append(at[active].astype(np.int32))
        values.append(found[active])
    return Encoding(np.cumsum(np.concatenate(counts)), np.concatenate(latents), np.concatenate(values), sae.d_sae)


@torch.no_grad()
def generality(
    sae: SAE, data: Activations, rows: NDArray[np.integer], episodes: NDArray[np.integer], batch: int = 4096
) -> NDArray[np.float64]:
    """`[F]`: share of the episodes in which each latent fires at least once, in one streaming pass over `rows` of
    `data`, of which row i is of `episodes[i]`."""
    # With each episode's rows together, the last episode in which a latent fired is all that must be remembered.
    order = np.argsort(episodes, kind="stable")
    rows, episodes = rows[order], episodes[order].astype(np.int64)
    count, last = np.zeros(sae.d_sae, np.int64), np.full(sae.d_sae, episodes[0] - 1)
    for start in range(0, len(rows), batch):
        found = encode_rows(sae, data, rows[start : start + batch], batch)
        fired = np.unique(episodes[start + found.rows()] * sae.d_sae + found.latents)
        episode, latent = np.divmod(fired, sae.d_sae)
        count += np.bincount(latent[episode > last[latent]], minlength=sae.d_sae)
        np.maximum.at(last, latent, episode)
    return count / len(np.unique(episodes))


@dataclass(frozen=True)
class Metrics:
    """Figures of a dictionary on a set of rows."""

    samples: int
    fvu: float
    """Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − mean(x)‖²."""
    l0: float
    """Latents active per sample, mean."""
    dead_fraction: float
    """Share of latents that fire in no sample."""
    ultra_rare_fraction: float
    """Share of latents that fire, but in fewer than one in 10,000 samples."""
    dense_fraction: float
    """Share of latents that fire in more than 10% of the samples."""
    dense_50_fraction: float
    """Share of latents that fire in more than half of the samples."""
    decoder_cosine: float
    """Mean, over latents, of the largest cosine with another latent's direction."""


@torch.no_grad()
def evaluate(
    sae: SAE,
    data: Activations,
    rows: NDArray[np.integer],
    target: Activations | None = None,
    batch: int = 4096,
) -> Metrics:
    """The figures of `sae` on `rows` of `data`, in one streaming pass; a transcoder's on those of its `target`.

    Raises:
        UserError: no rows, rows that are all the same, NaN or infinity in them, or data of another width than the
            dictionary's.
    """
    if not len(rows):
        raise UserError("no rows given to measure on; hold out some episodes (held_out) or give the training rows.")
    target = data if target is None else target
    for name, have, want in (("activations", data.width, sae.d_in), ("targets", target.width, sae.d_out)):
        if have != want:
            raise UserError(f"the {name} are {have} wide and the autoencoder's {want}: they are of different hooks.")
    device = sae.W_dec.device
    fired = np.zeros(sae.d_sae, np.int64)
    total, squares, error, active = torch.zeros(sae.d_out, dtype=torch.float64), 0.0, 0.0, 0
    for at, x in _batches(data, rows, batch):
        y = x if target is data else torch.from_numpy(target.read(rows[at : at + batch]))
        values, indices = sae.encode_sparse(x.to(device))
        error += (y.to(device) - sae.decode_sparse(values, indices)).double().square().sum().item()
        total += y.double().sum(0)
        squares += y.double().square().sum().item()
        active += int((values > 0).sum())
        fired += np.bincount(indices[values > 0].cpu().numpy(), minlength=sae.d_sae)
    if not np.isfinite(error):
        for each in (data, target):
            check_finite(each, rows)
    count = len(rows)
    density = fired / count
    variance = squares - (total.square().sum() / count).item()
    if variance <= 0:
        raise UserError(f"the {count} activations are all the same, so no share of their variance can be explained.")
    return Metrics(
        samples=count,
        fvu=error / variance,
        l0=active / count,
        dead_fraction=float((fired == 0).mean()),
        ultra_rare_fraction=float(((fired > 0) & (density < ULTRA_RARE)).mean()),
        dense_fraction=float((density > 0.1).mean()),
        dense_50_fraction=float((density > 0.5).mean()),
        decoder_cosine=float(largest_cosines(sae.W_dec, sae.W_dec, same=True).mean()),
    )


@torch.no_grad()
def largest_cosines(directions: Tensor, others: Tensor, same: bool = False) -> Tensor:
    """`[F]`: the largest cosine of each of the `directions [F, D]` with one of the `others [G, D]`; if they are the
    same, with another one than itself."""
    directions, others = normalize(directions, dim=1), normalize(others, dim=1)
    found = []
    for at in range(0, len(directions), 4096):
        cosine = directions[at : at + 4096] @ others.T
        if same:
            cosine[range(len(cosine)), range(at, at + len(cosine))] = -1
        found.append(cosine.amax(1))
    return torch.cat(found)


def action_agreement(preferences: Tensor, spliced: Tensor) -> float:
    """Share of states whose greedy action the splice leaves as it is; both `[N, A]`. Where the spliced ones are not all
    numbers there is none; -inf, which rules an action out, counts as one where the original has it."""
    same = (preferences.argmax(-1) == spliced.argmax(-1)) & _numbers(preferences, spliced).all(-1)
    return same.float().mean().item()


def q_nmse(q: Tensor, spliced: Tensor) -> float:
    """Σ(q − q̂)² / Σ(q − mean(q))² of Q-values `[N, A]`, with means per action; where one is ruled out, by -inf, it is
    left out."""
    counted = ~q.isneginf()
    mean = q.where(counted, 0).sum(0) / counted.sum(0)
    error, spread = ((q - other).where(counted, 0).square().sum() for other in (spliced, mean))
    return (error / spread).item()


def policy_kl(logits: Tensor, spliced: Tensor) -> float | None:
    """Mean KL(π ‖ π̂), in nats, of policies with logits `[N, A]`; None where those of π̂ are not all numbers, as when
    the splice's errors grow without end in the agent's memory. An action that both rule out, by -inf, adds nothing."""
    if not _numbers(logits, spliced).all():
        return None
    log_p, log_q = (each.double().log_softmax(-1) for each in (logits, spliced))  # rounding in float may go below 0
    return (log_p.exp() * (log_p - log_q)).where(~logits.isneginf(), 0).sum(-1).mean().item()


def _numbers(preferences: Tensor, spliced: Tensor) -> Tensor:
    """`[N, A]`: where spliced preferences are numbers, or rule out what the original ones do."""
    return spliced.isfinite() | (preferences.isneginf() & spliced.isneginf())


def return_recovered(
    original: NDArray[np.floating], spliced: NDArray[np.floating], ablated: NDArray[np.floating], seed: int = 0
) -> tuple[float, Interval | None] | None:
    """(spliced − ablated) / (original − ablated) of mean returns, with a bootstrap interval over episodes, None of too
    few.

    None altogether where ablation does not cost return for certain (at 99.9%; of too few episodes to say, where it
    costs none in the mean): then there is none to recover. Each condition's episodes are resampled apart: sticky
    actions make episodes of the same seed differ from their first different action on, so they are not paired.
    """

    def gap(a: NDArray, c: NDArray) -> float:
        return float(a.mean() - c.mean())

    def fraction(a: NDArray, b: NDArray, c: NDArray) -> float:
        return gap(b, c) / gap(a, c) if gap(a, c) else 0.0  # the latter in less than one resample of a thousand

    lost = bootstrap([original, ablated], gap, confidence=0.999, seed=seed)
    if (gap(original, ablated) if lost is None else lost.low) <= 0:
        return None
    return fraction(original, spliced, ablated), bootstrap([original, spliced, ablated], fraction, seed=seed)


def _batches(data: Activations, rows: NDArray[np.integer], batch: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(rows), batch):
        yield start, torch.from_numpy(data.read(rows[start : start + batch]))
