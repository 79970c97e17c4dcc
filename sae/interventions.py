"""Interventions on an agent through a dictionary: splice it in, or change one of its features."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import Site
from rl_interp.core.interventions import Intervention, Splice, Transcode
from rl_interp.sae.model import SAE


def splice(sae: SAE, at: str, width: int | None = None, source: str | None = None) -> Intervention:
    """The intervention that passes the value at `at` through an autoencoder, or puts there what a transcoder predicts
    from `source`.

    Raises:
        UserError: `width`, of the hook point, is given and is not the dictionary's; or a transcoder comes without a
            `source`, or an autoencoder with one.
    """
    if width is not None and width != sae.d_out:
        kind = "a transcoder" if sae.transcodes else "an autoencoder"
        raise UserError(f"{kind} {sae.d_out} wide can't be spliced in at {at!r}, which is {width} wide.")
    if sae.transcodes != (source is not None):
        raise UserError(f"source={source!r} given to splice in at {at!r}; transcoders have one, and they alone.")
    there = at if source is None else source

    def through(rows: Tensor) -> Tensor:
        _require_width(sae, rows.shape[-1], there)
        return sae(rows)

    if source is None:
        return Splice(at, reconstruct=through, label="sae")
    return Transcode(at, source=source, predict=through)


def _require_width(sae: SAE, width: int, at: str) -> None:
    if width != sae.d_in:
        kind = "transcoder" if sae.transcodes else "autoencoder"
        raise HookError(f"the {kind} takes {sae.d_in} features and {at!r} has {width}; give the one fitted there.")


@dataclass(frozen=True)
class _OneFeature(Intervention):
    """A change of one feature's activation, which leaves everything else, the autoencoder's error included, as it is.

    x' = x + (new − f(x)) d, with f(x) the feature's activation and d its decoder direction.
    """

    sae: SAE = field(kw_only=True)
    feature: int = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        features_last = value.movedim(site.point.feature_axis, -1)
        _require_width(self.sae, features_last.shape[-1], site.name)
        active = self.sae.encode(features_last.reshape(-1, self.sae.d_in))[:, self.feature]
        change = (self._new(active) - active)[:, None] * self.sae.W_dec[self.feature]
        changed = features_last + change.reshape(features_last.shape)
        return changed.to(value.dtype).movedim(-1, site.point.feature_axis)

    def _new(self, active: Tensor) -> Tensor:
        """`[N]`: its activations after the change."""
        raise NotImplementedError


@dataclass(frozen=True)
class ClampFeature(_OneFeature):
    """Set one feature to `value`, leaving everything else, the autoencoder's error included, as it is."""

    value: float = field(kw_only=True)

    def _new(self, active: Tensor) -> Tensor:
        return torch.full_like(active, self.value)


@dataclass(frozen=True)
class ScaleFeature(_OneFeature):
    """Multiply one feature by `factor`, leaving everything else, the autoencoder's error included, as it is."""

    factor: float = field(kw_only=True)

    def _new(self, active: Tensor) -> Tensor:
        return self.factor * active
