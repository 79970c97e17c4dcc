"""What each feature does: its direct effect on actions, and what clamping it changes.

Direct effects are exact where the hook point feeds a linear head, as a DQN's last hidden layer does; elsewhere effects
are integrated along the way from no feature to all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_interp.core.gradients import gradient
from rl_interp.sae.model import SAE


def activation(encoded: tuple[Tensor, Tensor], feature: int) -> Tensor:
    """`[N]`: one feature's activations, from what `encode_sparse` gave."""
    values, latents = encoded
    return (values * (latents == feature)).sum(-1)


def direct_effects(sae: SAE, head: Tensor) -> Tensor:
    """`[F, A]`: what one unit of each feature adds to each action's preference through a linear head `[A, D]`."""
    return sae.W_dec.detach() @ head.detach().T


@torch.no_grad()
def integrated_effects(sae: SAE, x: Tensor, head: Callable[[Tensor], Tensor], steps: int = 16) -> Tensor:
    """`[F, A]`: what each feature contributes to each action's preference, on average over the states `x [N, D]` in
    which it is active; 0 for one that is active in none.

    Where `head` is not linear a contribution depends on what else is there. Here all features are brought up together
    from zero, the autoencoder's error staying as it is, and each is credited with its own share of the way:
    `f d · ∫ ∇Q(x − (1 − α) Σ f d) dα`, by midpoints (integrated gradients, Sundararajan et al. 2017, arXiv 1703.01365,
    eq. 1, with the features for inputs). The contributions in a state add up to what all features do.

    Raises:
        NoGradientError: an agent that detaches or rounds what is there.
    """
    values, latents = sae.encode_sparse(x)
    moved = sae.decode_sparse(values, latents) - sae.b_dec
    actions = head(x).shape[1]
    slopes = torch.zeros(actions, *x.shape, dtype=x.dtype)
    for step in range(steps):
        at = (x - (1 - (step + 0.5) / steps) * moved).requires_grad_()
        with torch.enable_grad():
            preferences = head(at).sum(0)
            for action in range(actions):
                slopes[action] += gradient(preferences[action], at, head, retain_graph=action < actions - 1) / steps
    total, count = torch.zeros(sae.d_sae, actions, dtype=x.dtype), torch.zeros(sae.d_sae, dtype=x.dtype)
    for column in range(values.shape[1]):
        value, latent = values[:, column], latents[:, column]
        total.index_add_(0, latent, value[:, None] * torch.einsum("nd,and->na", sae.W_dec[latent], slopes))
        count.index_add_(0, latent, (value > 0).to(x.dtype))
    return total / count.clamp(min=1)[:, None]


@dataclass(frozen=True)
class ClampEffect:
    """What clamping one feature does on recorded states, beside a random direction of the same norm.

    A continuous action has A numbers, and its moves are in their standard deviations over the states.
    """

    changed: float
    """Share of states whose greedy action changes; of continuous ones, how far the action moves (root mean square of
    its numbers), averaged over states."""
    changed_control: float
    """The same for the random direction."""
    towards: list[float]
    """`[A]`: change in each action's share of greedy choices; of continuous ones, the mean move of each number."""
    new_actions: list[float]
    """`[A]`: each action's share among the states whose greedy action changes; zeros if none does, and of continuous
    ones."""
    preference_change: list[float]
    """`[A]`: mean change of each action's preference (Q-value or logit); of continuous ones, of each number, in the
    environment's units."""
    preference_change_control: list[float]
    """The same for the random direction."""


@torch.no_grad()
def clamp_effects(
    sae: SAE,
    x: Tensor,
    head: Callable[[Tensor], Tensor],
    values: Tensor,
    seed: int = 0,
    progress: Callable[[int], None] = lambda features: None,
    features: Sequence[int] | None = None,
    continuous: bool = False,
) -> list[ClampEffect]:
    """Clamp each feature, or some, in their order, to `values [F]` on the states whose activations are `x [N, D]`, or,
    at all of a layer's P positions, `[N, P, D]`.

    `head` maps activations like `x` to preferences `[N, A]`, such as the agent's last layer, or to continuous actions.
    A linear one is evaluated in closed form: `Q' = Q + (value − f(x)) d Wᵀ`. The control moves each state by the same
    distance along one random direction. `progress` is called with the number of features done.
    """
    before = head(x)
    encoded = sae.encode_sparse(x.flatten(0, -2))
    move, move_control = (moves(head, x, before, each) for each in (sae.W_dec, random_directions(sae.W_dec, seed)))
    compare, effects = _compare_continuous if continuous else _compare, []
    for done, feature in enumerate(range(sae.d_sae) if features is None else features):
        distance = values[done] - activation(encoded, feature).view(x.shape[:-1])
        effects.append(compare(before, move(feature, distance), move_control(feature, distance)))
        progress(done + 1)
    return effects


def random_directions(like: Tensor, seed: int) -> Tensor:
    """`[F, D]`: random directions with the norms of `like [F, D]`."""
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)
    return noise * (like.norm(dim=1) / noise.norm(dim=1))[:, None]


def moves(
    head: Callable[[Tensor], Tensor], x: Tensor, before: Tensor, directions: Tensor
) -> Callable[[int, Tensor], Tensor]:
    """`(f, distance [N] or [N, P]) -> preferences [N, A]` after a move along `directions[f]`, from states `x` whose
    preferences are `before`."""
    if isinstance(head, torch.nn.Linear):
        shift = directions @ head.weight.T
        return lambda f, distance: before + distance[:, None] * shift[f]
    return lambda f, distance: head(x + distance[..., None] * directions[f])


def _compare(before: Tensor, after: Tensor, control: Tensor) -> ClampEffect:
    states, actions = before.shape
    old, new = before.argmax(1), after.argmax(1)
    changed = new != old
    share = torch.bincount(new, minlength=actions) - torch.bincount(old, minlength=actions)
    return ClampEffect(
        changed=changed.float().mean().item(),
        changed_control=(control.argmax(1) != old).float().mean().item(),
        towards=(share / states).tolist(),
        new_actions=(torch.bincount(new[changed], minlength=actions) / changed.sum().clamp(min=1)).tolist(),
        preference_change=_difference(after, before).mean(0).tolist(),
        preference_change_control=_difference(control, before).mean(0).tolist(),
    )


def _compare_continuous(before: Tensor, after: Tensor, control: Tensor) -> ClampEffect:
    spread = before.std(0)
    spread = spread.where(spread > 0, 1)  # a number that is the same in all states is in its own units
    moved, moved_control = after - before, control - before
    far, far_control = ((each / spread).square().mean(1).sqrt().mean().item() for each in (moved, moved_control))
    return ClampEffect(
        changed=far,
        changed_control=far_control,
        towards=(moved / spread).mean(0).tolist(),
        new_actions=[0.0] * before.shape[1],
        preference_change=moved.mean(0).tolist(),
        preference_change_control=moved_control.mean(0).tolist(),
    )


def _difference(after: Tensor, before: Tensor) -> Tensor:
    """0 where nothing changes, as with an action that is ruled out, by -inf, before and after."""
    return (after - before).where(after != before, 0)
