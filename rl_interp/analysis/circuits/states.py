"""States of a run's agent at play, for its circuits to be measured on."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.counterfactuals import CHANGES, Change, editor
from rl_interp.analysis.circuits.steps import Step, play_steps
from rl_interp.circuits.states import States
from rl_interp.core.agent import evaluating, joined, tree_map
from rl_interp.core.envs import LabelledEnv, TextConfig, make_labelled
from rl_interp.core.errors import UserError, at_least_one, unknown
from rl_interp.core.progress import SILENT, Progress

HISTORY = "history"
"""The change that leaves the observation as it is: the agent remembers another episode."""
STRIDE = 7
"""Steps from one kept state of an episode to the next; those between are much like them."""
_PATIENCE, _RARE = 10, 500
"""Times the steps that the states would take, after which it is said that there are too few."""


@torch.no_grad()
def play_states(
    loaded: Loaded,
    count: int,
    seed: int,
    change: Change | Literal["history"] | None = None,
    progress: Progress = SILENT,
    when: str | None = None,
) -> States:
    """`count` states of episodes that the agent plays: every seventh in which actions matter.

    Args:
        seed: of the first episode; the next ones have the next ones.
        change: what is changed in each state's counterfactual, `moved`, `removed`, `recoloured`, `corrupted` or
            `history`; states in
            which there is nothing to change are left out. None for no counterfactuals.
        when: a concept of the environment that is to hold, such as `ghost_near`, or not, as in `not carries_key`; then
            states are at least seven steps apart. None for all states.

    Raises:
        UserError: no such concept, an environment that can't be edited, a history of an agent without memory,
            continuous actions, or too few states.
    """
    at_least_one(states=count)
    agent, kept = loaded.agent, []
    if agent.continuous:
        raise UserError(f"{type(agent).__name__} has continuous actions; circuits are of agents with discrete ones.")
    if change not in (None, HISTORY, *CHANGES):
        raise UserError(unknown("change", change, (*CHANGES, HISTORY)))
    if change == HISTORY and agent.initial_state(1) == ():
        raise UserError(f"change={HISTORY!r} given, and {type(agent).__name__} has no memory; choose another change.")
    with evaluating(agent), progress.bar("Playing", count, "states") as update:
        edited = None if change == "history" else change
        for tried, moment in enumerate(_moments(loaded, seed, edited, when)):
            if moment is not None:
                kept.append(moment)
                update(len(kept))
            if len(kept) == count:
                break
            if tried == (_PATIENCE if when is None else _RARE) * count:
                what = "actions matter" if change is None else f"there is something to be {change}"
                what += "" if when is None else f", and {when}"
                raise UserError(f"{count} states asked for, and of {tried} only {len(kept)} are such that {what}.")
    states = _stacked(kept, agent.device)
    return _with_other_memory(states, seed) if change == HISTORY else states


@dataclass(frozen=True)
class _Moment:
    step: Step
    other: NDArray | None
    """The observation with one thing changed."""


def _moments(loaded: Loaded, seed: int, change: Change | None, when: str | None) -> Iterator[_Moment | None]:
    """Every seventh step of episode after episode, from a random one of the first seven on, or, where a concept is
    to hold, those in which it does, at least seven steps apart; None for one that does not serve: no action makes a
    difference, there is nothing to change, or the concept does not hold."""
    rng, env, at = np.random.default_rng(seed), make_labelled(loaded.env), 0
    begin = 1 if isinstance(loaded.env, TextConfig) else STRIDE  # a prompt is an episode of one step
    edits = None if change is None else editor(env, loaded.env, change)
    holds = _test_of(env, when)
    before_step = (lambda action: None) if edits is None else edits.before_step
    for step in play_steps(loaded.agent, env, seed, rng, before_step):
        if step.number == 0:
            at = int(rng.integers(begin))
        if step.number == at:
            controllable = step.labels.get("controllable", True) and holds(step.labels)
            other = edits.changed(change, rng) if edits and change and controllable else None
            serves = controllable and (edits is None or other is not None)
            at += STRIDE if serves or when is None else 1
            yield _Moment(step, other) if serves else None


def _test_of(env: LabelledEnv, when: str | None) -> Callable[[Mapping[str, float]], bool]:
    """Whether a concept holds, of the labels of a state."""
    if when is None:
        return lambda labels: True
    name = when.removeprefix("not ")
    if env.concepts.get(name) is None or env.concepts[name].kind != "boolean":
        known = [each for each, concept in env.concepts.items() if concept.kind == "boolean"]
        raise UserError(unknown("concept that holds or does not", name, known))

    def holds(labels: Mapping[str, float]) -> bool:
        if name not in labels:
            raise UserError(f"{name!r} given; it is known only when an episode is over, so choose another concept.")
        return bool(labels[name]) != when.startswith("not ")

    return holds


def _stacked(moments: list[_Moment], device: torch.device) -> States:
    steps = [moment.step for moment in moments]
    memory = joined([step.memory for step in steps])
    numbers, episodes = (torch.tensor([getattr(step, name) for step in steps]) for name in ("number", "episode"))

    def seen(pictures: list[NDArray]) -> Tensor:
        return torch.from_numpy(np.stack(pictures)).to(device)

    others = [moment.other for moment in moments if moment.other is not None]
    other = States(seen(others), memory) if others else None
    return States(seen([step.obs for step in steps]), memory, numbers, episodes, other)


def _with_other_memory(states: States, seed: int) -> States:
    """Each state's counterfactual remembers what another one of another episode does."""
    assert states.episodes is not None
    rng, episodes = np.random.default_rng(seed), states.episodes.numpy()
    if len(np.unique(episodes)) < 2:
        raise UserError("the states are of one episode, so there is no other history; ask for more states.")
    drawn = [int(rng.choice(np.flatnonzero(episodes != each))) for each in episodes]
    memory = tree_map(lambda leaf: leaf[torch.tensor(drawn, device=leaf.device)], states.memory)
    return replace(states, counterfactual=States(states.obs, memory))
