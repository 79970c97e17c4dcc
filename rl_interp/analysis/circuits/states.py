"""States of a run's agent at play, for its circuits to be measured on."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count as count_from
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.counterfactuals import CHANGES, Change, editor
from rl_interp.circuits.states import States, joined
from rl_interp.core.agent import State, evaluating, tree_map
from rl_interp.core.envs import LabelledEnv, make_labelled
from rl_interp.core.errors import UserError, at_least_one, unknown
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import choose

HISTORY = "history"
"""The change that leaves the observation as it is: the agent remembers another episode."""
EPSILON = 0.01
"""Probability of a random action, so that episodes differ."""
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
        change: what is changed in each state's counterfactual, `moved`, `removed`, `recoloured` or `history`; states in
            which there is nothing to change are left out. None for no counterfactuals.
        when: a concept of the environment that is to hold, such as `ghost_near`, or not, as in `not carries_key`; then
            states are at least seven steps apart. None for all states.

    Raises:
        UserError: no such concept, an environment that can't be edited, a history of an agent without memory,
            continuous actions, or too few states.
    """
    at_least_one(states=count)
    agent, kept = loaded.agent, []
    if agent.preference_kind == "mean":
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
    obs: NDArray
    memory: State
    step: int
    episode: int
    other: NDArray | None
    """The observation with one thing changed."""


def _moments(loaded: Loaded, seed: int, change: Change | None, when: str | None) -> Iterator[_Moment | None]:
    """Every seventh step of episode after episode, from a random one of the first seven on, or, where a concept is
    to hold, those in which it does, at least seven steps apart; None for one that does not serve: no action makes a
    difference, there is nothing to change, or the concept does not hold."""
    agent, device, rng = loaded.agent, loaded.agent.device, np.random.default_rng(seed)
    env = make_labelled(loaded.env)
    edits = None if change is None else editor(env, loaded.env, change)
    holds = _test_of(env, when)
    for episode in count_from(seed):
        obs, info = env.reset(seed=episode)
        state, at = agent.initial_state(1), int(rng.integers(STRIDE))
        for step in count_from():
            if step == at:
                labels = info.get("labels", {})
                controllable = labels.get("controllable", True) and holds(labels)
                other = edits.changed(change, rng) if edits and change and controllable else None
                serves = controllable and (edits is None or other is not None)
                at += STRIDE if serves or when is None else 1
                # Memory and observation are copied, as the agent and the environment may go on with the same.
                yield _Moment(obs.copy(), tree_map(torch.clone, state), step, episode, other) if serves else None
            out = agent.step(torch.from_numpy(obs[None]).to(device), state, torch.tensor([step == 0], device=device))
            actions = choose(out, rng, EPSILON)
            state = agent.after_action(out.state, torch.from_numpy(actions).to(device))
            if edits is not None:
                edits.before_step(int(actions[0]))
            obs, _, terminated, truncated, info = env.step(int(actions[0]))
            if terminated or truncated:
                break


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
    memory = joined([moment.memory for moment in moments])
    steps, episodes = (torch.tensor([getattr(each, name) for each in moments]) for name in ("step", "episode"))

    def seen(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(each, name) for each in moments])).to(device)

    other = None if moments[0].other is None else States(seen("other"), memory)
    return States(seen("obs"), memory, steps, episodes, other)


def _with_other_memory(states: States, seed: int) -> States:
    """Each state's counterfactual remembers what another one of another episode does."""
    assert states.episodes is not None
    rng, episodes = np.random.default_rng(seed), states.episodes.numpy()
    if len(np.unique(episodes)) < 2:
        raise UserError("the states are of one episode, so there is no other history; ask for more states.")
    drawn = [int(rng.choice(np.flatnonzero(episodes != each))) for each in episodes]
    memory = tree_map(lambda leaf: leaf[torch.tensor(drawn, device=leaf.device)], states.memory)
    return replace(states, counterfactual=States(states.obs, memory))
