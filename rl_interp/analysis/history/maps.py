"""Where an agent looked as it learned: maps of the same states by each checkpoint, and a film of one of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment
from rl_interp.analysis.playing import follow
from rl_interp.core.agent import State, evaluating, tree_map
from rl_interp.core.envs import make_labelled
from rl_interp.core.film import write_film
from rl_interp.core.progress import Progress
from rl_interp.core.stats import Estimate, bootstrap, by_group, mean
from rl_interp.saliency import Bars, Frame, Panel, PolicyChange, compose, is_signed, saliency_map
from rl_interp.saliency.evaluation.randomisation import similarity
from rl_interp.saliency.render import advantages, probabilities

METHOD = "perturbation"
TARGET = PolicyChange()
"""What all actions' preferences change by: an untrained agent need not prefer an action for it."""
EPISODES = 8
LONGEST = 500
"""Steps of an episode from which states are drawn."""
_FPS = 1.0


@dataclass(frozen=True)
class Mapped:
    """One state of an episode that the finished agent plays, as each checkpoint sees it."""

    episode: int
    moment: Moment
    maps: Mapping[int, NDArray[np.float32]]
    """Step of training to `[H, W]`."""
    preferences: Mapping[int, NDArray[np.float32]]
    """Step of training to `[A]`."""


def can_map(loaded: Loaded) -> bool:
    """Whether the agent's observations have places, and its actions are chosen."""
    return loaded.env.observation_kind in ("pixels", "symbols") and loaded.env.action_kind == "discrete"


def map_states(agents: Mapping[int, Loaded], loaded: Loaded, count: int, seed: int, progress: Progress) -> list[Mapped]:
    """About `count` states in the agent's control, evenly from the first `LONGEST` steps of some episodes, mapped by
    every checkpoint in `agents`, which each follow the episode with a memory of their own."""
    found: list[Mapped] = []
    if not (episodes := min(EPISODES, count)):
        return found
    with progress.bar("Mapping", episodes, "episodes") as update:
        for number in range(episodes):
            found += _of_episode(agents, loaded, seed + number, -(-count // episodes))
            update(number + 1)
    return found


def _of_episode(agents: Mapping[int, Loaded], loaded: Loaded, seed: int, count: int) -> Iterator[Mapped]:
    moments = islice(follow(loaded, make_labelled(loaded.env), seed), LONGEST)
    free = [moment.step for moment in moments if moment.controllable]
    if not free:
        return
    wanted = {free[i] for i in np.linspace(0, len(free) - 1, count + 2).round().astype(int)[1:-1]}
    states: dict[int, State] = {step: each.agent.initial_state(1) for step, each in agents.items()}
    remember = any(states.values())
    for moment in islice(follow(loaded, make_labelled(loaded.env), seed), max(wanted) + 1):
        if moment.step not in wanted and not remember:
            continue
        seen, maps = {}, {}
        for step, each in agents.items():
            obs = torch.from_numpy(moment.obs[None]).to(each.agent.device)
            before = tree_map(torch.clone, states[step])  # the agent may go on with the same memory
            with torch.no_grad(), evaluating(each.agent):
                out = each.agent.step(obs, states[step])
                taken = torch.tensor([moment.action], device=obs.device)
                states[step] = each.agent.after_action(out.state, taken)
            if moment.step in wanted:
                maps[step] = saliency_map(each.agent, obs, TARGET, METHOD, before)[0]
                seen[step] = out.preferences[0].float().cpu().numpy()
        if moment.step in wanted:
            yield Mapped(seed, moment, maps, seen)


def agreement(states: Sequence[Mapped], step: int, end: int) -> tuple[Estimate | None, float | None]:
    """How alike a checkpoint's maps and those at the end of training are: mean over episodes of Spearman's correlation,
    with its interval, and beside it the mean with the end's map of another state, which is what the places that
    matter in every state give. None where no state has both maps."""
    moved = [each.maps[end] for each in states]
    moved = moved[len(moved) // 2 :] + moved[: len(moved) // 2]
    other = np.array([similarity(each.maps[step], another) for each, another in zip(states, moved, strict=True)])
    other = other[np.isfinite(other)]
    return _over_episodes(_alike(states, step, end), states), float(other.mean()) if len(other) > 1 else None


def gain(states: Sequence[Mapped], step: int, start: int, end: int) -> Estimate | None:
    """By how much a checkpoint's maps are more like those at the end than another's, `start`, are: differences in the
    same states, with an interval over episodes, for two intervals that overlap may hide one."""
    return _over_episodes(_alike(states, step, end) - _alike(states, start, end), states)


def _alike(states: Sequence[Mapped], step: int, end: int) -> NDArray[np.float64]:
    """`[N]`, NaN where a map is the same everywhere."""
    return np.array([similarity(each.maps[step], each.maps[end]) for each in states])


def _over_episodes(values: NDArray[np.float64], states: Sequence[Mapped]) -> Estimate | None:
    means = by_group(values, np.array([each.episode for each in states]))
    return bootstrap([means], mean) if len(means) else None


def film(loaded: Loaded, states: Sequence[Mapped], path: Path, progress: Progress) -> Path:
    """One state through training, a frame for each checkpoint: that at which the actions' preferences lie farthest
    apart at the end. Each frame has a scale of its own, which its legend says: what an untrained agent's policy changes
    by is a small part of what a trained one's does."""
    chosen = max(states, key=lambda each: _spread([*each.preferences.values()][-1]))
    moment = chosen.moment
    show = advantages if loaded.has_q_values else probabilities
    shown = {step: show(each) for step, each in chosen.preferences.items()}
    bars = Bars.of_advantages([*shown.values()]) if loaded.has_q_values else Bars.of_probabilities()
    panel = Panel(loaded.env.action_names, f"the {TARGET.name}", METHOD, 1.0, bars, signed=is_signed(METHOD, TARGET))

    def frame(step: int) -> NDArray[np.uint8]:
        saliency = chosen.maps[step]
        scale = float(np.quantile(np.abs(saliency), 0.995)) or float(np.abs(saliency).max()) or 1.0
        picture = Frame(
            moment.screen, saliency, shown[step], int(np.argmax(chosen.preferences[step])), moment.episode_return,
            moment.step, [f"after {step:,} steps of training"], moment.observed,
        )  # fmt: skip
        return compose(picture, replace(panel, scale=scale))

    with progress.bar("Drawing", len(shown), "frames") as update:
        write_film(path, [frame(step) for step in shown], _FPS, update)
    return path


def _spread(preferences: NDArray[np.float32]) -> float:
    return float(np.ptp(preferences[np.isfinite(preferences)]))
