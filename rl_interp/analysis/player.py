"""An agent in an environment, moment by moment: what it sees, what it would do, and what is done.

A `Moment` holds all that it takes to go on from it: the agent's state and the random numbers that it is about to draw.
So an episode can be left anywhere and played on in another way with the same randomness.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.core.agent import PolicyOutput, State, evaluating, tree_map
from rl_interp.core.envs import EnvConfig, LabelledEnv
from rl_interp.core.envs.editing import require_editable
from rl_interp.core.envs.labelled import Surveyed
from rl_interp.core.envs.observed import Observed
from rl_interp.core.interventions import Intervention, intervened
from rl_interp.core.rollout import choose

Action = int | NDArray[np.float32]
"""Of continuous ones `[D]`."""


@dataclass(frozen=True)
class Moment:
    """One step of an episode: what the agent saw, and what it chose."""

    screen: NDArray[np.uint8]
    """RGB `[H, W, 3]`, for people: as much as the environment can show."""
    observed: Observed
    """The part of the screen that the agent saw."""
    obs: NDArray[Any]
    """As the agent gets it."""
    state: State
    """The agent's, before the step."""
    preferences: NDArray[np.float32]
    """`[A]`."""
    value: float | None
    """The agent's estimate of the return to come, or its largest Q-value; None where it has neither."""
    action: Action
    labels: Mapping[str, float]
    """Each concept's value, where the environment has concepts."""
    episode_return: float
    """Before the step."""
    step: int
    rng: np.random.Generator
    """Before the action was drawn from it; not to be drawn from, but from a copy."""

    @property
    def controllable(self) -> bool:
        """Whether the action could make a difference, as far as the environment tells."""
        return bool(self.labels.get("controllable", True))


class Player:
    """One episode, step by step: `look` says what the agent sees and chooses, `act` does it, or something else.

    Greedy in Q-values, sampled from a policy.
    """

    def __init__(self, loaded: Loaded, env: LabelledEnv, seed: int, options: dict[str, Any] | None = None):
        """Begin an episode.

        Args:
            options: for the environment's `reset`, such as `{"maze": maze}`.
        """
        self.loaded, self.env = loaded, env
        self._obs, info = env.reset(seed=seed, **({} if options is None else {"options": options}))
        self._labels: Mapping[str, float] = info.get("labels", {})
        self._rng = np.random.default_rng(seed)
        self._state = loaded.agent.reseeded(loaded.agent.initial_state(1), self._rng)
        self._total, self._step, self.ended = 0.0, 0, False

    @classmethod
    def at(cls, loaded: Loaded, env: LabelledEnv, moment: Moment) -> "Player":
        """Go on from a moment in which `env` is."""
        player = cls.__new__(cls)
        player.loaded, player.env = loaded, env
        player._obs, player._labels, player._state = moment.obs, moment.labels, moment.state
        player._rng, player._total, player._step = copy.deepcopy(moment.rng), moment.episode_return, moment.step
        player.ended = False
        return player

    @torch.no_grad()
    def look(self, interventions: Sequence[Intervention] = ()) -> Moment:
        """What the agent sees now, and chooses under interventions. Looking again changes nothing."""
        device = self.loaded.agent.device
        kept = tree_map(torch.clone, self._state)  # the agent may go on with the same memory
        with evaluating(self.loaded.agent), intervened(self.loaded.agent, interventions):
            obs = torch.from_numpy(self._obs[None]).to(device)
            self._out = self.loaded.agent.step(obs, self._state, torch.tensor([False], device=device))
        self._state, self._drawn = kept, copy.deepcopy(self._rng)
        chosen = choose(self._out, self._drawn, epsilon=0.0)
        action = chosen[0] if self.loaded.env.action_kind == "continuous" else int(chosen[0])
        screen, observed = _look(self.env, self.loaded.env)
        preferences = self._out.preferences[0].float().cpu().numpy()
        return Moment(
            screen, observed, self._obs, kept, preferences, _value(self._out), action, self._labels, self._total,
            self._step, copy.deepcopy(self._rng),
        )  # fmt: skip

    def edit(self, edits: Sequence[str]) -> None:
        """Change the environment's state; raises as `Editable.edit` does."""
        self._obs, info = require_editable(self.env, self.loaded.env).edit(edits)
        self._labels = info.get("labels", {})

    @torch.no_grad()
    def think(self, times: int, interventions: Sequence[Intervention] = ()) -> None:
        """Have the agent see what it sees so often without acting: its state advances, and the environment stands
        still (Guez et al. 2019, "An investigation of model-free planning", §4.3)."""
        device = self.loaded.agent.device
        obs, first = torch.from_numpy(self._obs[None]).to(device), torch.tensor([False], device=device)
        with evaluating(self.loaded.agent), intervened(self.loaded.agent, interventions if times else ()):
            for _ in range(times):
                self._state = self.loaded.agent.step(obs, tree_map(torch.clone, self._state), first).state

    @torch.no_grad()
    def act(self, action: Action) -> float:
        """Do it, after a look; returns the reward."""
        taken = torch.from_numpy(np.asarray(action)[None]).to(self.loaded.agent.device)
        self._state = self.loaded.agent.after_action(self._out.state, taken)
        self._rng = self._drawn
        self._obs, reward, terminated, truncated, info = self.env.step(action)  # pyright: ignore[reportArgumentType]
        self._labels = info.get("labels", {})
        self._total += reward
        self._step += 1
        self.ended = terminated or truncated
        return float(reward)


def _look(env: LabelledEnv, config: EnvConfig) -> tuple[NDArray[np.uint8], Observed]:
    if isinstance(env, Surveyed):
        return env.survey()
    screen = env.render()
    return screen, config.observed(*screen.shape[:2])


def _value(out: PolicyOutput) -> float | None:
    return None if out.value is None and out.q_values is None else float(out.state_value[0])
