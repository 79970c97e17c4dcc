"""States of episodes for tests of saliency maps, each with what is where and what an entity's absence looks like."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.entities import survey
from rl_interp.analysis.playing import follow
from rl_interp.core.agent import State
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.saliency import Scene

LONGEST = 2000
"""Steps of an episode from which states are drawn."""


@dataclass(frozen=True)
class Seen:
    """One state in which the agent decided."""

    episode: int
    obs: NDArray[Any]
    before: NDArray[Any]
    """The observation before it; itself at an episode's start."""
    state: State
    scene: Scene | None
    """None where the environment's entities are not known."""
    edited: dict[str, NDArray[Any]]
    """Entity to the observation without it."""


def draw_states(loaded: Loaded, episodes: int, states: int, seed: int = 0, progress: Progress = SILENT) -> list[Seen]:
    """About `states` states, spread evenly over the controllable steps of some episodes, each of which is played twice:
    to see how long it is, and to stop at its states.

    Raises:
        UserError: no state in which actions make a difference.
    """
    found: list[Seen] = []
    each = -(-states // episodes)
    with progress.bar("Playing", episodes, "episodes") as update:
        for episode in range(episodes):
            found += _of_episode(loaded, episode, seed + episode, each)
            update(episode + 1)
    if not found:
        raise UserError(f"no state of {episodes} episodes is in the agent's control; give more episodes.")
    return found


def _of_episode(loaded: Loaded, episode: int, seed: int, count: int) -> Iterator[Seen]:
    plain = make_labelled(loaded.env)
    free = [moment.step for moment in islice(follow(loaded, plain, seed), LONGEST) if moment.controllable]
    if not free:
        return
    chosen = {free[i] for i in np.linspace(0, len(free) - 1, count + 2).round().astype(int)[1:-1]}
    env = make_labelled(loaded.env)
    try:
        looks = survey(env, loaded.env)
    except UserError:
        looks = None
    rng, before = np.random.default_rng(seed), None
    for moment in islice(follow(loaded, env, seed), max(chosen) + 1):
        if moment.step in chosen:
            scene = None if looks is None else Scene(moment.obs, looks.masks())
            edited = {} if looks is None else looks.edited(rng)
            yield Seen(episode, moment.obs, moment.obs if before is None else before, moment.state, scene, edited)
        before = moment.obs
        if looks is not None and isinstance(moment.action, int):
            looks.before_step(moment.action)
