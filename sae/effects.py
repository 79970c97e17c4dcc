"""What each feature does: its direct effect on actions, and what clamping it changes.

Exact where the hook point feeds a linear head, as a DQN's last hidden layer does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import Site
from rl_interp.core.interventions import Intervention, Splice
from sae.model import TopK


def splice(sae: TopK, at: str, width: int | None = None) -> Splice:
    """The intervention that passes the value at `at` through the autoencoder.

    Raises:
        UserError: `width`, of the hook point, is given and is not the autoencoder's.
    """
    if width is not None and width != sae.d_in:
        raise UserError(f"an autoencoder {sae.d_in} wide can't be spliced in at {at!r}, which is {width} wide.")
    return Splice(at, reconstruct=sae.forward, label="sae")


@dataclass(frozen=True)
class ClampFeature(Intervention):
    """Set one feature to `value`, leaving everything else, the autoencoder's error included, as it is.

    x' = x + (value − f(x)) d, with f(x) the feature's activation and d its decoder direction.
    """

    sae: TopK = field(kw_only=True)
    feature: int = field(kw_only=True)
    value: float = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        features_last = value.movedim(site.point.feature_axis, -1)
        if features_last.shape[-1] != self.sae.d_in:
            raise HookError(
                f"{self.name}: the autoencoder is {self.sae.d_in} wide, {site.name!r} {features_last.shape[-1]}."
            )
        active = self.sae.encode(features_last.reshape(-1, self.sae.d_in))[:, self.feature]
        change = (self.value - active)[:, None] * self.sae.W_dec[self.feature]
        return (features_last + change.reshape(features_last.shape)).movedim(-1, site.point.feature_axis)


def direct_effects(sae: TopK, head: Tensor) -> Tensor:
    """`[F, A]`: what one unit of each feature adds to each action's preference through a linear head `[A, D]`."""
    return sae.W_dec.detach() @ head.detach().T


@dataclass(frozen=True)
class ClampEffect:
    """What clamping one feature does on recorded states, beside a random direction of the same norm."""

    changed: float
    """Share of states whose greedy action changes."""
    changed_control: float
    """The same for the random direction."""
    towards: list[float]
    """`[A]`: change in each action's share of greedy choices."""


@torch.no_grad()
def clamp_effects(
    sae: TopK, x: Tensor, head: Callable[[Tensor], Tensor], values: Tensor, seed: int = 0
) -> list[ClampEffect]:
    """Clamp each feature to `values [F]` on the states whose activations are `x [N, D]`.

    `head` maps activations `[N, D]` to preferences `[N, A]`, such as the agent's last layer. The
    control moves each state by the same distance along one random direction.
    """
    preferences = head(x)
    actions, before = preferences.shape[1], preferences.argmax(1)
    share_before = torch.bincount(before, minlength=actions) / len(x)
    active = sae.encode(x)
    noise = torch.randn(sae.d_sae, sae.d_in, generator=torch.Generator().manual_seed(seed)).to(x)
    noise /= noise.norm(dim=1, keepdim=True)
    effects = []
    for feature in range(sae.d_sae):
        distance = (values[feature] - active[:, feature])[:, None]
        after = head(x + distance * sae.W_dec[feature]).argmax(1)
        control = head(x + distance * noise[feature]).argmax(1)
        share = torch.bincount(after, minlength=actions) / len(x)
        effects.append(
            ClampEffect(
                (after != before).float().mean().item(),
                (control != before).float().mean().item(),
                (share - share_before).tolist(),
            )
        )
    return effects
