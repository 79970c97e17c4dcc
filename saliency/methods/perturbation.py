"""Perturbation saliency: how much a target changes when a small region is blurred, or an entry of a vector replaced.

After Greydanus et al. 2018, "Visualizing and Understanding Atari Agents", arXiv 1711.00138, eq. 1-3. Theirs is
`GREYDANUS` with the targets `PolicyChange` (eq. 2) and `ValueChange` (eq. 3). By default we differ in two things: the
blur is as wide as the mask, which takes away more (5 px where theirs is 3), and a score is the signed drop of a target,
which says for or against, where theirs is half a squared distance. So the two maps differ: over eight observations of
the shipped DQN, our |map| for the advantage and their policy change have rank correlations of .54 to .75. All masks of
a frame go through the agent in batches.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rl_interp.core.agent import Agent, PolicyOutput, State, evaluating, tree_map
from rl_interp.core.check_agent import taking_floats
from rl_interp.core.errors import UserError
from rl_interp.saliency.local import Answers, answers, answers_to_sums, is_local
from rl_interp.saliency.targets import Score, Target, evaluate, prepare, require_same

CHUNK = 64
"""Perturbed images per forward: more would leave the processor's cache."""
_VECTORS = 1024
"""Perturbed vectors per forward."""
_BITS = 62
"""Of a number that says which things a pixel belongs to."""


@dataclass(frozen=True)
class Perturbation:
    """Masks of width `sigma` px, one every `stride` px: 17×17 of them on 84×84 pixels."""

    sigma: float = 5.0
    """Standard deviation of a mask, px."""
    stride: int = 5
    """Distance between masks, px."""
    blur_sigma: float | None = None
    """Standard deviation of the blur, px; None: the mask's."""

    def __post_init__(self) -> None:
        if self.sigma <= 0 or self.stride < 1:
            raise UserError(f"sigma={self.sigma}, stride={self.stride} given; both must be positive.")
        if self.blur_sigma is not None and self.blur_sigma <= 0:
            raise UserError(f"blur_sigma={self.blur_sigma} given; it must be positive.")

    def masks(self, height: int, width: int) -> Tensor:
        """`[rows · columns, H, W]` in [0, 1]: Gaussians of peak 1, and exactly 0 beyond four sigma."""
        rows, columns = self._profiles(height), self._profiles(width)
        return (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)

    def _profiles(self, length: int) -> Tensor:
        """`[masks, length]`: along one axis."""
        distance = torch.arange(length)[None] - torch.arange(0, length, self.stride)[:, None]
        bell = torch.exp(-0.5 * (distance / self.sigma) ** 2)
        return torch.where(distance.abs() <= 4 * self.sigma, bell, 0.0)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of masks."""
        return len(range(0, height, self.stride)), len(range(0, width, self.stride))

    def blur(self, obs: Tensor) -> Tensor:
        """`obs [B, C, H, W]` float, blurred by a Gaussian of width `blur_sigma`, edges reflected."""
        sigma = self.sigma if self.blur_sigma is None else self.blur_sigma
        radius = min(int(4 * sigma), min(obs.shape[-2:]) - 1)
        rows, columns = (_blurring(length, sigma, radius).to(obs) for length in obs.shape[-2:])
        return rows @ obs @ columns.T

    @torch.no_grad()
    def scores(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> Tensor:
        """`[B, rows, columns]`: the target's drop, target(obs) − target(perturbed), for each mask.

        `obs [B, C, H, W]`; `state` is the agent's, one entry an observation. Positive where the target
        needs what is there. Symbols can't be blurred: there each cell in turn becomes 0, `unseen`.
        """
        if agent.observation == "symbols":
            return drops(agent, obs, obs, target, state, _cells_unseen).unflatten(1, obs.shape[-2:])
        images = obs if obs.is_floating_point() else obs.float()
        images = images.contiguous(memory_format=_layout(agent))
        rows, columns = (self._profiles(length) for length in obs.shape[-2:])
        masked = Masked(rows, columns, self.blur, self._blurred)
        return drops(agent, obs, images, target, state, masked).unflatten(1, self.grid(*obs.shape[-2:]))

    def _blurred(self, image: Tensor) -> Iterator[Tensor]:
        """The float image `[1, C, H, W]` with each mask's region blurred, in chunks."""
        layout = (
            torch.channels_last if image.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        masks = _masks_per_channel(self, image.shape[1:], image.dtype, image.device, layout)
        change = (self.blur(image) - image).contiguous(memory_format=layout)
        for start in range(0, len(masks), CHUNK):
            yield torch.addcmul(image, masks[start : start + CHUNK], change)

    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, H, W]` float32: `scores` at the masks' centres, bilinear between them; of symbols, at each cell. Vectors
        `[B, D]` have no regions: theirs are the maps of `Ablation()`."""
        if obs.dim() == 2:
            return Ablation()(agent, obs, target, state)
        scores = self.scores(agent, obs, target, state)
        if agent.observation == "symbols":
            return scores.numpy()
        rows, columns = (self._between_centres(length) for length in obs.shape[-2:])
        return (rows @ scores @ columns.T).numpy()

    def _between_centres(self, length: int) -> Tensor:
        """`[length, masks]`: each pixel's weights of the two nearest centres; beyond the last one, that alone."""
        centres = len(range(0, length, self.stride))
        position = (torch.arange(length) / self.stride).clamp(max=centres - 1)
        return (1 - (position[:, None] - torch.arange(centres)).abs()).clamp(min=0)


GREYDANUS = Perturbation(sigma=5.0, stride=5, blur_sigma=3.0)
"""The published masks and blur, for screens of 80 to 84 px. All frames of a stack are perturbed."""


@dataclass(frozen=True, eq=False)
class Ablation:
    """For vectors `[B, D]`: target(obs) − target(obs with one entry at its baseline), entry by entry.

    Captum's `FeatureAblation` (Zeiler & Fergus 2014, arXiv 1311.2901, where the entries are patches of a picture).
    """

    baseline: float | Tensor = 0.0
    """One number, or `[D]`, such as the mean over recorded observations."""

    @torch.no_grad()
    def __call__(self, agent: Agent, obs: Tensor, target: Target, state: State = None) -> np.ndarray:
        """`[B, D]` float32.

        Raises:
            UserError: observations that are no vectors, a baseline of a different length, or one that is no symbol
                for an agent that sees symbols.
        """
        if obs.dim() != 2:
            raise UserError(f"observations {tuple(obs.shape)} given; ablation needs vectors [B, D].")
        baseline = torch.as_tensor(self.baseline, device=obs.device)
        if baseline.shape not in ((), obs.shape[1:]):
            raise UserError(f"baseline {tuple(baseline.shape)} given; give a number, or one of each of {obs.shape[1]}.")
        held = obs.is_floating_point() or bool((baseline.to(obs.dtype) == baseline).all())
        if agent.observation == "symbols" and not held:
            raise UserError(f"baseline {self.baseline} given for an agent that sees symbols; give a symbol's number.")
        fed = obs if held else obs.to(baseline.dtype)

        def ablated(vector: Tensor) -> Iterator[Tensor]:
            entries = torch.arange(obs.shape[1], device=obs.device)
            many = torch.where(entries[:, None] == entries, baseline.to(fed.dtype), vector)
            return iter(many.split(_VECTORS))

        return drops(agent, obs, fed, target, state, ablated).numpy()


@dataclass(frozen=True, eq=False)
class Masked:
    """An image + mask · (another − image), for masks that are each of some profiles of rows times each of columns. An
    agent that is one of convolutions is only asked for what that changes; any other for whole images."""

    rows: Tensor
    """`[R, H]`."""
    columns: Tensor
    """`[K, W]`."""
    other: Callable[[Tensor], Tensor]
    """The other image of one, `[1, C, H, W]` both."""
    whole: Callable[[Tensor], Iterable[Tensor]]
    """Of an image the perturbed ones, in batches, rows first."""

    def __call__(self, image: Tensor) -> Iterable[Tensor]:
        return self.whole(image)

    def answered(self, agent: Agent, image: Tensor, state: State) -> Answers | None:
        return answers(agent, image, self.other(image), self.rows, self.columns, state)


@dataclass(frozen=True, eq=False)
class Exchanged:
    """An image with the pixels of another wherever one of some things is that is absent."""

    other: Tensor
    """`[1, C, H, W]`."""
    where: Tensor
    """`[E, C, H, W]` bool: where each thing is."""
    absent: Tensor
    """`[N, E]` bool."""

    def __call__(self, image: Tensor) -> Iterator[Tensor]:
        other = self.other.to(image)
        for some in self.absent.split(CHUNK):
            taken = (some.float() @ self.where.flatten(1).float() > 0).unflatten(1, self.where.shape[1:])
            yield torch.where(taken, other, image)

    def answered(self, agent: Agent, image: Tensor, state: State) -> Answers | None:
        """A pixel is exchanged where anything that it belongs to is absent; those that belong to the same are a part.
        None where the parts are too many for that to be quicker."""
        things = torch.arange(len(self.where))
        if len(things) > _BITS:
            return None
        owners = (self.where.flatten(1).long() << things[:, None]).sum(0)
        kinds, part = owners.unique(return_inverse=True)
        if 2 * len(kinds) > len(self.absent):
            return None
        parts = F.one_hot(part, len(kinds)).T * (self.other.to(image) - image).flatten()
        present = self.absent.float() @ (kinds[:, None] >> things & 1).float().T > 0
        return answers_to_sums(agent, image, parts.unflatten(1, image.shape[1:]), present.float(), state)


def drops(
    agent: Agent,
    obs: Tensor,
    fed: Tensor,
    target: Target,
    state: State,
    perturbed: Callable[[Tensor], Iterable[Tensor]],
) -> Tensor:
    """`[B, P]` float32: target(observation) − target(perturbed), for what `perturbed` makes of each in turn.

    Args:
        fed: `[B, ...]`, the observations in the form in which perturbed ones are fed.
        perturbed: one of these, `[1, ...]`, to batches `[n, ...]` of P in all.
    """
    state = agent.initial_state(len(obs)) if state is None else state
    found = []
    with evaluating(agent):
        for i in range(len(obs)):
            one = tree_map(lambda leaf, i=i: leaf[i : i + 1], state)
            # The target is fixed on the observation as it came; the base is scored in the form of the perturbed ones.
            score, decided = prepare(agent, obs[i : i + 1], one, target)
            image, found_here = fed[i : i + 1], None
            if isinstance(perturbed, Masked | Exchanged) and target.at is None:
                found_here = _local_drops(agent, image, one, score, decided, perturbed)
            if found_here is None:
                found_here = _whole_drops(agent, image, one, target, score, decided, perturbed)
            found.append(found_here)
    return torch.stack(found)


def _local_drops(
    agent: Agent, image: Tensor, state: State, score: Score, decided: PolicyOutput, changed: Masked | Exchanged
) -> Tensor | None:
    """`[P]`; None where the agent needs whole images."""
    if not is_local(agent) or image.dtype != torch.float32:
        return None
    with taking_floats():
        answered = changed.answered(agent, image, state)
    if answered is None:
        return None
    require_same(answered.before, decided, image.dtype)
    return (score(answered.before, None) - score(answered.after, None)).float()


def _whole_drops(
    agent: Agent, image: Tensor, state: State, target: Target, score: Score, decided: PolicyOutput,
    perturbed: Callable[[Tensor], Iterable[Tensor]],
) -> Tensor:  # fmt: skip
    base = evaluate(agent, image, state, target, score, decided)
    parts = []
    for part in perturbed(image):
        count = len(part)
        many = tree_map(lambda leaf, n=count: leaf.expand(n, *leaf.shape[1:]), state)
        parts.append((base - evaluate(agent, part, many, target, score)).float().cpu())
    return torch.cat(parts)


def _layout(agent: Agent) -> torch.memory_format:
    """How the agent's convolutions lay out their weights, and so their inputs."""
    filters = [weight for weight in agent.parameters() if weight.dim() == 4 and not weight.is_contiguous()]
    last = any(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)
    return torch.channels_last if last else torch.contiguous_format


def _cells_unseen(original: Tensor) -> Iterator[Tensor]:
    """The observation `[1, C, H, W]` with each cell's symbols set to 0, all at once."""
    height, width = original.shape[-2:]
    many = original.repeat(height * width, 1, 1, 1)
    cells = torch.arange(height * width, device=original.device)
    many[cells, :, cells // width, cells % width] = 0
    yield many


@lru_cache(maxsize=8)
def _blurring(length: int, sigma: float, radius: int) -> Tensor:
    """`[length, length]` float64: each pixel's weights of all along an axis, which is reflected at its ends."""
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    eye = F.pad(torch.eye(length, dtype=torch.float64)[:, None], (radius, radius), mode="reflect")
    return F.conv1d(eye, (kernel / kernel.sum())[None, None])[:, 0].T


@lru_cache(maxsize=1)
def _masks_per_channel(
    settings: Perturbation, shape: torch.Size, dtype: torch.dtype, device: torch.device, layout: torch.memory_format
) -> Tensor:
    """`[masks, C, H, W]`: repeated per channel, so that perturbing runs along whole vectors, and kept from frame to
    frame."""
    masks = settings.masks(*shape[1:]).to(device, dtype)[:, None].expand(-1, shape[0], -1, -1)
    return masks.contiguous(memory_format=layout)
