"""Crosscoders: one dictionary of several layers at the same samples, with a decoder for each (Lindsey et al. 2024,
"Sparse Crosscoders for Cross-Layer Features and Model Diffing"). Of one layer at several checkpoints of a training it
tells which features are there when.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl_interp.core.device import trim_memory
from rl_interp.core.errors import UserError
from rl_interp.sae.data import ArrayActivations, check_finite
from rl_interp.sae.model import SAE
from rl_interp.sae.training.config import SAEConfig
from rl_interp.sae.training.feed import Feed
from rl_interp.sae.training.trainer import Trainer
from rl_interp.sae.training.whiten import Whitening


@dataclass(frozen=True)
class Crosscoder:
    """A dictionary of S sources, D_s wide each, with F latents that all of them share."""

    sae: SAE
    """Of the sources side by side, `[N, ΣD_s]` of raw activations: an ordinary dictionary."""
    widths: tuple[int, ...]
    shares: NDArray[np.float32]
    """`[S, F]`: how much of a latent is in each source, as the squared lengths of its decoders in the sources' whitened
    spaces; those of a latent sum to 1. A latent that all sources have alike is 1/S in each."""

    def split(self, together: Tensor) -> tuple[Tensor, ...]:
        """Each source's part `[N, D_s]` of what the dictionary gives, `[N, ΣD_s]`."""
        return together.split(self.widths, dim=-1)

    def spread(self) -> NDArray[np.float32]:
        """`[F]`: among how many sources each latent is spread, from 1 to S: 1 / Σ share²."""
        return 1 / np.square(self.shares).sum(0)


def side_by_side(sources: Sequence[NDArray[np.floating]]) -> ArrayActivations:
    """What a crosscoder's dictionary reads, `[N, ΣD_s]`, from each source's activations `[N, D_s]`.

    Raises:
        UserError: fewer than two sources, or other numbers of samples.
    """
    _check(sources)
    return ArrayActivations(np.concatenate(sources, 1))


@torch.no_grad()
def fit_crosscoder(
    sources: Sequence[NDArray[np.floating]],
    config: SAEConfig,
    rows: NDArray[np.integer] | None = None,
    device: str = "cpu",
) -> Crosscoder:
    """Fit to `rows` (by default all) of activations `[N, D_s]`, in the same order in each source.

    Each source is whitened on its own, with `config.ridge`, and scaled to count as much as any other, however much it
    varies and however wide it is. What decides which latents are active is `config.variant`, so that no penalty
    shrinks a decoder, as an L1 penalty does (Minder et al. 2025, arXiv 2504.02922).

    Raises:
        UserError: sources that do not belong together, one that does not vary or is too wide to be whitened, a policy's
            weight, or what `fit` raises.
    """
    _check(sources)
    if config.policy_weight:
        raise UserError(
            f"policy_weight={config.policy_weight:g} given for a crosscoder, whose sources have a policy each; leave "
            "it at 0."
        )
    layers = [ArrayActivations(each) for each in sources]
    chosen = np.arange(len(sources[0])) if rows is None else np.sort(rows)
    for each in layers:
        check_finite(each, chosen)
    maps = [Whitening.of(each.read(chosen), config.ridge, config.centre) for each in layers]
    scales = [max(each.variance, torch.finfo(torch.float32).tiny) ** 0.5 for each in maps]
    inner = [each.to.shape[1] for each in maps]
    trim_memory()
    whitened = np.empty((len(chosen), sum(inner)), np.float32)
    for layer, each, scale, part in zip(layers, maps, scales, _parts(whitened, inner), strict=True):
        part[:] = each.apply(layer.read(chosen)) / scale
    # They are white: whitened together, what all sources have in common would count as little as what one has.
    together = Whitening.scale(whitened, config.centre)
    with torch.enable_grad():
        trainer = Trainer(Feed(ArrayActivations(whitened), config, device=device, whitened=together), config)
        trainer.run()
    fitted = trainer.sae()
    decoders = fitted.W_dec.split(inner, dim=1)
    lengths = torch.stack([each.square().sum(1) for each in decoders])
    sae = copy.deepcopy(fitted)
    sae.W_enc = nn.Parameter(
        torch.cat(
            [each.to @ part / scale for each, part, scale in zip(maps, fitted.W_enc.split(inner), scales, strict=True)]
        )
    )
    sae.W_dec = nn.Parameter(
        torch.cat([scale * part @ each.back for each, part, scale in zip(maps, decoders, scales, strict=True)], 1)
    )
    offsets = zip(maps, fitted.b_dec.split(inner), scales, strict=True)
    sae.b_dec = nn.Parameter(torch.cat([each.mean + scale * part @ each.back for each, part, scale in offsets]))
    widths = tuple(each.width for each in layers)
    return Crosscoder(sae, widths, (lengths / lengths.sum(0).clamp(min=1e-30)).numpy())


def _check(sources: Sequence[NDArray[np.floating]]) -> None:
    lengths = [len(each) for each in sources]
    if len(sources) < 2 or len(set(lengths)) > 1:
        raise UserError(
            f"sources of {', '.join(map(str, lengths)) or 'no'} samples given; a crosscoder needs two or more, of the "
            "same samples."
        )


def _parts(values: NDArray[np.float32], widths: Sequence[int]) -> list[NDArray[np.float32]]:
    return np.split(values, np.cumsum(widths)[:-1], axis=1)
