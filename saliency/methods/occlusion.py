"""Methods that cover parts of an observation: occlusion by patches, RISE's random masks, and SARFA's score of blurs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.saliency.methods.perturbation import CHUNK, Ablation, Masked, Perturbation, drops
from rl_interp.saliency.targets import Advantage, Chosen, LogProbability, Preference, Score, Target


@dataclass(frozen=True)
class Occlusion:
    """Target(obs) − target(obs with a square of black), for each pixel the mean over the squares that cover it (Zeiler
    & Fergus 2014, arXiv 1311.2901; the numbers of Captum's `Occlusion`). Of symbols each cell becomes 0, `unseen`; of
    vectors each entry."""

    side: int | None = None
    """Pixels along a square; None: a tenth of the shorter side. Squares are half a side apart."""

    def __post_init__(self) -> None:
        if self.side is not None and self.side < 1:
            raise UserError(f"side={self.side} given; a square has 1 pixel or more along its side.")

    @torch.no_grad()
    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`."""
        if obs.dim() == 2:
            return Ablation()(agent, obs, target, state)
        height, width = obs.shape[-2:]
        symbols = agent.observation == "symbols"
        side = 1 if symbols else min(self.side or max(1, round(min(height, width) / 10)), height, width)
        rows, columns = (_spans(length, side) for length in (height, width))
        squares = (rows[:, None, :, None] & columns[:, None]).flatten(0, 1)

        def covered(image: Tensor) -> Iterator[Tensor]:
            for some in squares.to(obs.device).split(CHUNK):
                yield torch.where(some[:, None], torch.zeros_like(image), image)

        fed = obs if symbols or obs.is_floating_point() else obs.float()
        masked = Masked(rows.float(), columns.float(), torch.zeros_like, covered)
        found = drops(agent, obs, fed, target, state, masked)
        weights = squares.flatten(1).float()
        return (found @ weights / weights.sum(0)).unflatten(1, (height, width)).numpy()


@dataclass(frozen=True)
class RISE:
    """How a target moves, on average, as a pixel is shown: the slope of its regression on random masks.

    The masks are those of Petsiuk et al. 2018 (arXiv 1806.07421): a coarse grid of random cells, shifted and linear in
    between; what is hidden is black. They sum masks by the target's value; here its mean is taken off first and the sum
    is divided by the variance of a mask, which leaves the same map but for a constant, with far less noise, and in the
    target's unit. Of symbols, whole cells are hidden, as `unseen`.
    """

    masks: int = 512
    cells: int = 8
    """Cells along the shorter side of a mask's grid."""
    shown: float = 0.5
    """Share of the cells that a mask shows."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.masks < 2 or self.cells < 1 or not 0 < self.shown < 1:
            raise UserError(
                f"masks={self.masks}, cells={self.cells}, shown={self.shown} given; give 2 masks or more of 1 cell or "
                "more, and a share between 0 and 1."
            )

    @torch.no_grad()
    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`."""
        symbols = agent.observation == "symbols"
        size = (obs.shape[-2], obs.shape[-1]) if obs.dim() == 4 else (1, obs.shape[-1])
        masks = _random_masks(self, size, symbols or obs.dim() == 2).to(obs.device)

        def hidden(image: Tensor) -> Iterator[Tensor]:
            for some in masks.split(CHUNK):
                shaped = some[:, None] if image.dim() == 4 else some[:, 0]
                yield torch.where(shaped > 0, image, 0) if symbols else image * shaped.to(image)

        fed = obs if symbols or obs.is_floating_point() else obs.float()
        values = -drops(agent, obs, fed, target, state, hidden).double()
        flat = masks.flatten(1).double().cpu()
        apart, spread = flat - flat.mean(0), flat.var(0, correction=0)
        slopes = (values - values.mean(1, keepdim=True)) @ apart / (len(flat) * spread.clamp(min=1e-9))
        return (slopes.unflatten(1, size) if obs.dim() == 4 else slopes).float().numpy()


@dataclass(frozen=True)
class SARFA:
    """How much a region matters to one action rather than to all (Puri et al. 2020, arXiv 1912.12191, eq. 2-4): the
    harmonic mean of the fall of the action's probability under the softmax of all preferences, and of how far those of
    the others keep their proportions, 1 / (1 + KL). 0 where the probability does not fall."""

    regions: Perturbation = field(default_factory=Perturbation)
    """What is blurred."""
    signed: ClassVar[bool] = False

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32; of vectors `[B, D]`.

        Raises:
            UserError: a target that is not about an action.
        """
        if not isinstance(target, Chosen | Advantage | Preference | LogProbability):
            raise UserError(
                f"{target.name} is to be explained, and SARFA explains an action; use chosen, q:ACTION or perturbation."
            )
        action = getattr(target, "action", None)
        return self.regions(agent, obs, _Specific(action, target), state)


@dataclass(frozen=True)
class _Specific:
    """−S, S being SARFA's score of an action: its drop from the unperturbed observation, where it is 0, is S."""

    action: int | None
    of: Target
    at: str | None = None
    signed: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return self.of.name

    def prepare(self, output: PolicyOutput) -> Score:
        before = self.of.prepare(output)  # refuses what the target itself refuses
        best = output.preferences.argmax(-1, keepdim=True)
        action = best if self.action is None else torch.full_like(best, self.action)
        p, rest = _parted(output.preferences, action)

        def score(out: PolicyOutput, value: Tensor | None) -> Tensor:
            now, others = _parted(out.preferences, action.expand(*out.preferences.shape[:-1], 1))
            terms = others.exp() * (others - rest)
            keeps = 1 / (1 + terms.where(others > -torch.inf, 0).sum(-1))
            fall = (p - now).clamp(min=0)
            # An action that is ruled out has no finite value of its own, and so no score.
            return -2 * keeps * fall / (keeps + fall) + 0 * before(out, value)

        return score


def _parted(preferences: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of an action `[B]`, and the log-probabilities of the others among themselves `[B, A]`, -inf for
    the action and for those that are ruled out."""
    log_p = preferences.double().log_softmax(-1)
    others = preferences.double().scatter(-1, action, -torch.inf).log_softmax(-1)
    return log_p.gather(-1, action)[..., 0].exp(), others.nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def _spans(length: int, side: int) -> Tensor:
    """`[spans, length]` boolean, along one axis: half a side apart, the last one against the edge."""
    starts = torch.tensor(sorted({*range(0, length - side, max(1, side // 2)), length - side}))[:, None]
    return (starts <= torch.arange(length)) & (torch.arange(length) < starts + side)


@lru_cache(maxsize=1)
def _random_masks(settings: RISE, size: tuple[int, int], whole: bool) -> Tensor:
    """`[masks, H, W]` in [0, 1]; `whole` cells are 0 or 1, one an entry."""
    generator = torch.Generator().manual_seed(settings.seed)
    height, width = size
    if whole:
        return (torch.rand(settings.masks, height, width, generator=generator) < settings.shown).float()
    cell = max(1, min(height, width) // settings.cells)
    rows, columns = height // cell + 2, width // cell + 2
    coarse = (torch.rand(settings.masks, 1, rows, columns, generator=generator) < settings.shown).float()
    fine = F.interpolate(coarse, (rows * cell, columns * cell), mode="bilinear", align_corners=False)[:, 0]
    shifts = torch.randint(0, cell, (settings.masks, 2), generator=generator).tolist()
    return torch.stack([fine[i, y : y + height, x : x + width] for i, (y, x) in enumerate(shifts)])
