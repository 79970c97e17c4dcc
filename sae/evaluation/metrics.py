"""How good an autoencoder is: reconstruction, use of its latents, and what splicing it in does to the agent."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from rl_interp.core.errors import UserError
from rl_interp.core.stats import Estimate, bootstrap
from rl_interp.sae.data import Activations, check_finite
from rl_interp.sae.encoding import Encoding, encode_rows
from rl_interp.sae.model import SAE

ULTRA_RARE = 1e-4
"""A latent that fires in a smaller share of the samples is ultra-rare (dead ones not counted)."""


@torch.no_grad()
def generality(
    sae: SAE,
    data: Activations,
    rows: NDArray[np.integer],
    episodes: NDArray[np.integer],
    batch: int = 4096,
    encoding: Encoding | None = None,
) -> NDArray[np.float64]:
    """`[F]`: share of the episodes in which each latent fires at least once, in one streaming pass over `rows` of
    `data`, of which row i is of `episodes[i]`.

    Args:
        encoding: of these rows, where there is one already.
    """
    # With each episode's rows together, the last episode in which a latent fired is all that must be remembered.
    order = np.argsort(episodes, kind="stable")
    episodes = episodes[order].astype(np.int64)
    count, last = np.zeros(sae.d_sae, np.int64), np.full(sae.d_sae, episodes[0] - 1)
    for start in range(0, len(rows), batch):
        some = order[start : start + batch]
        found = encode_rows(sae, data, rows[some], batch) if encoding is None else encoding.take(some)
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
    """Mean, over latents, of the largest cosine with a different latent's direction."""
    fired: NDArray[np.int64] = field(repr=False)
    """`[F]`: samples in which each latent fires."""


@torch.no_grad()
def evaluate(
    sae: SAE,
    data: Activations,
    rows: NDArray[np.integer],
    target: Activations | None = None,
    batch: int = 4096,
    encoding: Encoding | None = None,
) -> Metrics:
    """The figures of `sae` on `rows` of `data`, in one streaming pass; a transcoder's on those of its `target`.

    Args:
        encoding: of these rows, where there is one already.

    Raises:
        UserError: no rows, rows that are all the same, NaN or infinity in them, or data of a different width than the
            dictionary's.
    """
    if not len(rows):
        raise UserError("no rows given to evaluate on; hold out some episodes (held_out) or give the training rows.")
    target = data if target is None else target
    for name, have, want in (("activations", data.width, sae.d_in), ("targets", target.width, sae.d_out)):
        if have != want:
            raise UserError(f"the {name} are {have} wide and the autoencoder's {want}: they are of different hooks.")
    device = sae.W_dec.device
    fired = np.zeros(sae.d_sae, np.int64)
    total, squares, error = torch.zeros(sae.d_out, dtype=torch.float64), 0.0, 0.0
    for start in range(0, len(rows), batch):
        some = slice(start, start + batch)
        y = torch.from_numpy(target.read(rows[some]))
        # In double precision, squares too: where means are large beside the spread, most of their digits cancel below.
        total += y.sum(0, dtype=torch.float64)
        squares += y.double().square().sum().item()
        if encoding is None:
            x = y if target is data else torch.from_numpy(data.read(rows[some]))
            values, indices = sae.encode_sparse(x.to(device))
        else:
            part = encoding.take(np.arange(len(rows))[some])
            values, indices = (each.to(device) for each in part.padded())
        error += (y.to(device) - sae.decode_sparse(values, indices)).square().sum(dtype=torch.float64).item()
        fired += np.bincount(indices[values > 0].cpu().numpy(), minlength=sae.d_sae)
    if not np.isfinite(error):
        for each in (data, target):
            check_finite(each, rows)
    count = len(rows)
    variance = squares - (total.square().sum() / count).item()
    if variance <= 0:
        raise UserError(f"the {count} activations are all the same, so no share of their variance can be explained.")
    cosines = largest_cosines(sae.W_dec, sae.W_dec, same=True)
    return Metrics(
        count,
        error / variance,
        fired.sum() / count,
        **density_shares(fired, count),
        decoder_cosine=float(cosines.mean()),
        fired=fired,
    )


def density_shares(fired: NDArray[np.int64], samples: int) -> dict[str, float]:
    """The figures of `Metrics` that tell how often latents fire, from the samples in which each does, `[F]`."""
    density = fired / samples
    return {
        "dead_fraction": float((fired == 0).mean()),
        "ultra_rare_fraction": float(((fired > 0) & (density < ULTRA_RARE)).mean()),
        "dense_fraction": float((density > 0.1).mean()),
        "dense_50_fraction": float((density > 0.5).mean()),
    }


@torch.no_grad()
def largest_cosines(directions: Tensor, others: Tensor, same: bool = False) -> Tensor:
    """`[F]`: the largest cosine of each of the `directions [F, D]` with one of the `others [G, D]`; if they are the
    same, with a different one."""
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
    """Σ(q − q̂)² / Σ(q − mean(q))² of Q-values, or continuous actions, `[N, A]`, with means per action; where one is
    ruled out, by -inf, it is left out."""
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
) -> Estimate | None:
    """(spliced − ablated) / (original − ablated) of mean returns, with a bootstrap interval over episodes.

    None altogether where ablation does not cost return for certain (at 99.9%; of too few episodes to say, where it
    costs none in the mean): then there is none to recover. Each condition's episodes are resampled apart: sticky
    actions make episodes of the same seed differ from their first different action on, so they are not paired.
    """

    def gap(a: NDArray, c: NDArray) -> float:
        return float(a.mean() - c.mean())

    def fraction(a: NDArray, b: NDArray, c: NDArray) -> float:
        return gap(b, c) / gap(a, c) if gap(a, c) else 0.0  # the latter in less than one resample of a thousand

    lost = bootstrap([original, ablated], gap, confidence=0.999, seed=seed)
    if (lost.value if lost.low is None else lost.low) <= 0:
        return None
    return bootstrap([original, spliced, ablated], fraction, seed=seed)
