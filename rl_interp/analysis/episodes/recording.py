"""Recorded episodes. What is recorded follows from a recipe: a seed, and who decided for how many steps under which
changes. So an episode can be written down in a line, and is played again instead of being stored.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes.changes import controlled, parse_changes
from rl_interp.analysis.mazes.choices import maze_env
from rl_interp.analysis.player import Action, Moment, Player
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.envs import LabelledEnv, make_labelled
from rl_interp.core.envs.editing import Editing, require_editable
from rl_interp.core.envs.maze.text import maze_from_text
from rl_interp.core.errors import UserError, require_numbers
from rl_interp.core.interventions import Intervention
from rl_interp.core.progress import SILENT, Progress

MOST_THINKING = 100


@dataclass(frozen=True)
class Part:
    """A stretch of an episode, which ends earlier if the episode does."""

    steps: int
    """How long it is."""
    changes: tuple[str, ...] = ()
    """Under which the agent decides, as `parse_changes` reads them."""
    control: int = 0
    """0: the changes themselves; else the number of a random control, which takes their place."""
    actions: tuple[int, ...] = ()
    """Done instead of what the agent chooses, one a step; none: it is the agent's turn."""
    edits: tuple[str, ...] = ()
    """Of the environment's state, made before the first step, as `Editable.edit` takes them."""
    thinking: int = 0
    """How often the agent sees what is then before it without acting, `MOST_THINKING` times at most."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_0=("steps", "control", "thinking"))
        if self.thinking > MOST_THINKING:
            raise UserError(f"thinking={self.thinking} given; it is at most {MOST_THINKING}.")
        if self.actions and len(self.actions) != self.steps:
            raise UserError(f"{len(self.actions)} actions given for {self.steps} steps; give one for each, or none.")


@dataclass(frozen=True)
class Recipe:
    """All that an agent's episode follows from."""

    seed: int = 0
    parts: tuple[Part, ...] = (Part(200),)
    maze: str = ""
    """The maze to begin in, as `maze_text` writes it; by default that of the seed."""

    def __post_init__(self) -> None:
        require_numbers(self, seed=("seed",))

    @property
    def steps(self) -> int:
        return sum(part.steps for part in self.parts)

    def by_step(self) -> list[tuple[Part, int | None]]:
        """What holds at each step: its part, without the length, and with edits and thinking at the first step alone;
        and the action that is done in it if not the agent's."""
        found: list[tuple[Part, int | None]] = []
        for part in self.parts:
            first = replace(part, steps=0, actions=())
            later = _plain(first)
            found += [(later if i else first, part.actions[i] if part.actions else None) for i in range(part.steps)]
        return found

    def same_for(self, other: "Recipe") -> int:
        """How many steps both have in common from the start."""
        if (self.seed, self.maze) != (other.seed, other.maze):
            return 0
        both = zip(self.by_step(), other.by_step(), strict=False)
        return next((i for i, (one, two) in enumerate(both) if one != two), min(self.steps, other.steps))


@dataclass(frozen=True)
class _Kept:
    """A moment in little memory: its screen as a PNG, its observation compressed."""

    light: Moment
    """Without both."""
    png: bytes
    obs: bytes

    @classmethod
    def of(cls, moment: Moment) -> "_Kept":
        png = cv2.imencode(".png", moment.screen[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        light = replace(moment, screen=moment.screen[:0], obs=moment.obs[:0])
        return cls(light, png, zlib.compress(moment.obs.tobytes(), 1))

    def moment(self, shape: tuple[int, ...]) -> Moment:
        screen = cv2.imdecode(np.frombuffer(self.png, np.uint8), cv2.IMREAD_COLOR_RGB)
        obs = np.frombuffer(zlib.decompress(self.obs), self.light.obs.dtype).reshape(shape).copy()
        return replace(self.light, screen=np.asarray(screen, np.uint8), obs=obs)


class _Live:
    """Where a recording can be played on. Whoever plays on takes it; others go there again by themselves."""

    def __init__(self, player: Player | None = None):
        self._player, self._lock = player, Lock()

    def take(self) -> Player | None:
        with self._lock:
            player, self._player = self._player, None
        return player


@dataclass(frozen=True)
class Recording:
    """An episode from its start, as far as its recipe goes: a moment for each step, and the one after the last."""

    loaded: Loaded
    recipe: Recipe
    rewards: NDArray[np.float64]
    """`[T]`: that each step gave."""
    actions: NDArray[Any]
    """`[T]`, or `[T, D]`: what was done."""
    ended: bool
    """Whether the episode ended with the last step."""
    _kept: tuple[_Kept, ...] = field(repr=False)
    _live: _Live = field(repr=False)

    @property
    def steps(self) -> int:
        """T: how many there are, at most those of the recipe."""
        return len(self.rewards)

    def moment(self, step: int) -> Moment:
        """Before a step, from 0; that of number T comes after the last.

        Raises:
            UserError: there is no such step.
        """
        return self._at(step).moment(self.loaded.env.observation_shape)

    def png(self, step: int) -> bytes:
        """The screen before a step; raises as `moment` does."""
        return self._at(step).png

    def light(self) -> list[Moment]:
        """All moments, `[T + 1]`, without screens and observations."""
        return [kept.light for kept in self._kept]

    def deciders(self) -> list[Part]:
        """`[T + 1]`: by the changes of which part each moment was decided, the one after the last as that before it."""
        parts = [part for part, _ in self.recipe.by_step()[: self.steps]]
        return [*parts, parts[-1] if parts else Part(0)]

    def _at(self, step: int) -> _Kept:
        if not 0 <= step < len(self._kept):
            raise UserError(f"step {step} given of an episode that is recorded up to step {len(self._kept) - 1}.")
        return self._kept[step]


def record(
    loaded: Loaded,
    recipe: Recipe,
    sae: LoadedSAE | None = None,
    beginning: Recording | None = None,
    progress: Progress = SILENT,
) -> Recording:
    """Play an episode by a recipe.

    Args:
        sae: with the features that are changed.
        beginning: a recording of this agent; what both have in common is taken from it, and not played again.

    Raises:
        UserError: a maze for an agent of something else, or one that is none; an action that is not there; a change or
            an edit that can't be made.
    """
    plan, count = recipe.by_step(), len(loaded.env.action_names)
    if any(action is not None and not 0 <= action < count for _, action in plan):
        raise UserError(f"an action outside of 0 to {count - 1} given, which are those of {loaded.env.id}.")
    if any(part.actions for part in recipe.parts) and loaded.env.action_kind == "continuous":
        raise UserError(f"the actions of {loaded.env.id} are continuous, and can't be given by their numbers.")
    same = 0 if beginning is None else min(recipe.same_for(beginning.recipe), beginning.steps)
    if beginning is not None and same and _has_all(beginning, plan, same):
        return _first(beginning, recipe, same)
    if beginning is not None and 0 < same < beginning.steps and _is_prepared(beginning.recipe.by_step()[same][0]):
        same -= 1  # what was seen there was edited, or by an agent that had thought
    player, kept = _begun(loaded, recipe, beginning, same)
    rewards = [] if beginning is None else beginning.rewards[:same].tolist()
    actions: list[Action] = [] if beginning is None else list(beginning.actions[:same])
    made = interventions(loaded, recipe, sae)
    with progress.bar("Playing", len(plan), "steps") as update:
        for step in range(same, len(plan)):
            if player.ended:
                break
            how, given = plan[step]
            if how.edits:
                player.edit(how.edits)
            player.think(how.thinking, made(how))
            moment = player.look(made(how))
            action = moment.action if given is None else given
            kept.append(_Kept.of(moment))
            actions.append(action)
            rewards.append(player.act(action))
            update(step + 1)
    # What comes after is seen as it would be decided by whoever decided last.
    kept.append(_Kept.of(player.look(made(plan[min(len(rewards), len(plan)) - 1][0] if plan else Part(0)))))
    taken = np.array(actions) if actions else np.zeros(0, np.int64)
    return Recording(loaded, recipe, np.array(rewards, float), taken, player.ended, tuple(kept), _Live(player))


def _has_all(beginning: Recording, plan: list[tuple[Part, int | None]], same: int) -> bool:
    """Whether nothing is to be played: the moment after the last step is there too, decided as it should be."""
    theirs = beginning.recipe.by_step()
    if same == beginning.steps:
        return beginning.ended or same == len(plan)
    return same == len(plan) and theirs[same][0] == _plain(plan[-1][0])


def _first(beginning: Recording, recipe: Recipe, steps: int) -> Recording:
    """The first steps of a recording, as one of its own."""
    whole = steps == beginning.steps
    return replace(
        beginning, recipe=recipe, rewards=beginning.rewards[:steps], actions=beginning.actions[:steps],
        ended=beginning.ended and whole, _kept=beginning._kept[: steps + 1],
        _live=beginning._live if whole else _Live(),
    )  # fmt: skip


def _begun(loaded: Loaded, recipe: Recipe, beginning: Recording | None, same: int) -> tuple[Player, list[_Kept]]:
    """Who plays on after the steps that both have in common, and their moments."""
    if beginning is None or same == 0:
        env = make_labelled(loaded.env)
        return Player(loaded, env, recipe.seed, _options(loaded, recipe)), []
    player = beginning._live.take() if same == beginning.steps else None
    if player is None:
        env = make_labelled(loaded.env)
        _replay(env, loaded, recipe, beginning.actions[:same])
        player = Player.at(loaded, env, beginning.moment(same))
    player.loaded = loaded  # the same weights, in a copy that nobody else uses now
    return player, list(beginning._kept[:same])


def _replay(env: LabelledEnv, loaded: Loaded, recipe: Recipe, actions: NDArray[Any]) -> None:
    """Bring an environment to where some actions lead."""
    options, plan = _options(loaded, recipe), recipe.by_step()[: len(actions)]
    if options is None and not any(how.edits for how, _ in plan):
        for _ in env.replay(recipe.seed, actions, [len(actions)]):
            pass
        return
    env.reset(seed=recipe.seed, **({} if options is None else {"options": options}))
    for action, (how, _) in zip(actions, plan, strict=True):
        if how.edits:
            require_editable(env, loaded.env).edit(how.edits)
        env.step(action)


def editing(recording: Recording, step: int) -> Editing:
    """What can be edited in the state before a step.

    Raises:
        UserError: an environment that can't be edited, or there is no such step.
    """
    recording.moment(step)
    env = make_labelled(recording.loaded.env)
    editable = require_editable(env, recording.loaded.env)
    _replay(env, recording.loaded, recording.recipe, recording.actions[:step])
    if step < recording.steps and (edits := recording.recipe.by_step()[step][0].edits):
        editable.edit(edits)
    return editable.editing()


def _options(loaded: Loaded, recipe: Recipe) -> dict[str, Any] | None:
    if not recipe.maze:
        return None
    maze_env(loaded)
    return {"maze": maze_from_text(recipe.maze)}


def _is_prepared(part: Part) -> bool:
    """Whether something is done before its first step."""
    return bool(part.edits or part.thinking)


def _plain(part: Part) -> Part:
    """The part without that."""
    return replace(part, edits=(), thinking=0)


def interventions(loaded: Loaded, recipe: Recipe, sae: LoadedSAE | None) -> Callable[[Part], Sequence[Intervention]]:
    """Those of a part of the recipe, each made once."""

    @cache
    def made(part: Part) -> Sequence[Intervention]:
        if _is_prepared(part):
            return made(_plain(part))
        found = parse_changes(part.changes, loaded, sae, recipe.maze, recipe.seed)
        return controlled(found, part.control) if part.control else found

    return made
