"""Changes of an agent, written as texts, and their random controls."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes.own import own_moment
from rl_interp.analysis.mazes.choices import maze_env
from rl_interp.analysis.mazes.steering import VECTORS, parse_vector
from rl_interp.analysis.player import Moment
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.agent import evaluating, tree_map
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.text import maze_from_text
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import Site, hook_point, run_with_cache
from rl_interp.core.interventions import Add, Clamp, Intervention, Scale, Zero
from rl_interp.sae import ClampFeature, ScaleFeature

_PATCH = re.compile(r"patch:([^:=]+)(?::(\d+))?=(\d{1,5})")
_FORM = re.compile(r"(clamp|scale|add|ablate):(.+):(f?)(\d+)(?:=(-?\d+(?:\.\d+)?))?")
_FORMS = (
    "clamp:HOOK:UNIT=VALUE, scale:HOOK:UNIT=FACTOR, add:HOOK:UNIT=VALUE, ablate:HOOK:UNIT (with fUNIT for a feature of "
    "a dictionary), patch:HOOK=STEP or patch:HOOK:UNIT=STEP, or in mazes cheese:HOOK=SCALE and corner:HOOK=SCALE"
)


def parse_changes(
    texts: Sequence[str], loaded: Loaded, sae: LoadedSAE | None = None, maze: str = "", seed: int = 0
) -> list[Intervention]:
    """`clamp:fc.post:12=0.9`, `scale:fc.post:12=2`, `add:fc.post:12=1` or `ablate:fc.post:12`, of a unit or channel;
    `clamp:fc.post:f12=3` and so on of feature 12 of a dictionary; `patch:fc.post=80` or `patch:fc.post:12=80`, which
    puts in what the layer, or the unit, holds before step 80 of the episode that the agent plays by itself from `seed`
    or `maze`; `cheese:HOOK=SCALE` or `corner:HOOK=SCALE` of mazes, where the vector is that of `maze`, or of the
    maze of `seed`.

    Raises:
        UserError: a text of another form, a hook point, unit or feature that is not there, or no dictionary.
    """
    return [_parsed(text, loaded, sae, maze, seed) for text in texts]


def _parsed(text: str, loaded: Loaded, sae: LoadedSAE | None, maze: str, seed: int) -> Intervention:
    found = _FORM.fullmatch(text)
    if text.partition(":")[0] in VECTORS:
        return parse_vector(text, loaded.agent, _maze(loaded, maze, seed))
    if patch := _PATCH.fullmatch(text):
        return _patch(patch[1], patch[2], own_moment(loaded, seed, maze, int(patch[3])), loaded)
    if found is None or (found[1] == "ablate") != (found[5] is None):
        raise UserError(f"change {text!r} given; it has the form {_FORMS}.")
    kind, at, of_feature, number = found[1], found[2], bool(found[3]), int(found[4])
    value = 0.0 if found[5] is None else float(found[5])
    hook_point(loaded.agent, at)
    if not of_feature:
        return _of_unit(kind, at, number, value)
    if sae is None or sae.hook != at:
        raise UserError(f"change {text!r} given without a dictionary of {at!r}; name the one that has the feature.")
    if number >= sae.sae.d_sae:
        raise UserError(f"change {text!r} given; {sae.run.path} has features 0 to {sae.sae.d_sae - 1}.")
    if kind == "add":
        return Add(at, direction=sae.sae.W_dec[number].detach(), scale=value)
    if kind == "scale":
        return ScaleFeature(at, sae=sae.sae, feature=number, factor=value)
    return ClampFeature(at, sae=sae.sae, feature=number, value=value)


def _patch(at: str, unit: str | None, moment: Moment, loaded: Loaded) -> Intervention:
    hook_point(loaded.agent, at)
    with evaluating(loaded.agent):
        obs = torch.from_numpy(moment.obs[None]).to(loaded.agent.device)
        _, cache = run_with_cache(loaded.agent, obs, tree_map(torch.clone, moment.state), names=[at])
    return PatchUnits(at, source=cache[at].detach(), units=None if unit is None else [int(unit)])


def _of_unit(kind: str, at: str, unit: int, value: float) -> Intervention:
    if kind == "ablate":
        return Zero(at, units=[unit])
    if kind == "clamp":
        return Clamp(at, units=[unit], value=value)
    if kind == "scale":
        return Scale(at, units=[unit], factor=value)
    return AddToUnits(at, units=[unit], value=value)


def _maze(loaded: Loaded, maze: str, seed: int) -> Mazes:
    env: MazeConfig = maze_env(loaded)
    return maze_from_text(maze) if maze else Mazes.draw(env, [seed])


@dataclass(frozen=True)
class AddToUnits(Intervention):
    """Add `value` to the given units, at every position."""

    units: Sequence[int] = field(kw_only=True)
    value: float = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        return Clamp(self.at, units=self.units, value=self.value)(torch.zeros_like(value), site) + value


@dataclass(frozen=True)
class PatchUnits(Intervention):
    """Put in what a layer held in another moment: all of it, or the given units at every position."""

    source: Tensor = field(kw_only=True)
    """Of one sample, as the hook point has it."""
    units: Sequence[int] | None = field(kw_only=True)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        source = self.source.to(value)
        if site.point.kind == "recurrent":  # of which hooks see one time after the other, and one tick
            source = source[0, site.tick] if site.point.has_ticks else source[0]
        source = source.expand_as(value)
        if self.units is None:
            return source.clone()
        axis = site.point.feature_axis
        if not all(unit < value.shape[axis] for unit in self.units):
            raise UserError(f"unit {max(self.units)} of {self.at!r} was to be patched, which has {value.shape[axis]}.")
        new, index = value.clone(), torch.tensor(list(self.units), device=value.device)
        return new.index_copy_(axis, index, source.index_select(axis, index))


@dataclass(frozen=True)
class RandomControl(Intervention):
    """A change of the same size as another's, in a random direction: at every position the value moves as far as under
    `inner`, along one direction drawn at random for each seed, the same at all positions and times."""

    at: str = field(init=False)
    inner: Intervention
    seeds: Sequence[int]
    """One for all samples of the batch, or one for each."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", self.inner.at)

    @property
    def name(self) -> str:
        return f"random control of {self.inner.name}"

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        axis = site.point.feature_axis
        distance = (self.inner(value, site) - value).norm(dim=axis, keepdim=True)
        directions = _directions(tuple(self.seeds), value.shape[axis]).to(value)
        shape = [1] * value.dim()
        shape[0], shape[axis] = directions.shape
        return value + distance * directions.reshape(shape)


@lru_cache
def _directions(seeds: tuple[int, ...], width: int) -> Tensor:
    """`[len(seeds), width]`, each of norm 1."""
    drawn = [torch.randn(width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack([each / each.norm() for each in drawn])


def controlled(changes: Sequence[Intervention], *seeds: int) -> list[Intervention]:
    """Each change as its random control, of one seed for all samples or one for each."""
    return [RandomControl(each, seeds) for each in changes]
