"""Playing: choosing actions, and scoring whole episodes, with or without interventions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.agent import Agent, State
from rl_interp.core.envs.vector import VectorEnv
from rl_interp.core.hooks import assert_unhooked, hooked
from rl_interp.core.interventions import Intervention, as_hooks


@dataclass(frozen=True)
class Episodes:
    """Whole episodes: undiscounted extrinsic returns and lengths in decisions, `[N]`, in order of start."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]


class Actor:
    """An agent playing N environments epsilon-greedily, keeping its recurrent state between calls."""

    def __init__(self, agent: Agent, num_envs: int, rng: np.random.Generator):
        self.agent, self.rng = agent, rng
        self.device = next(agent.parameters()).device
        self.state: State = agent.initial_state(num_envs)

    @torch.no_grad()
    def act(self, obs: NDArray, first: NDArray[np.bool_], epsilon: float) -> NDArray[np.int64]:
        """Greedy actions `[N]`, each replaced by a uniform one with probability `epsilon`."""
        preferences, self.state = self._decide(obs, first)
        greedy = preferences.argmax(-1).cpu().numpy()
        explore = self.rng.random(len(greedy)) < epsilon
        uniform = self.rng.integers(preferences.shape[-1], size=len(greedy))
        return np.where(explore, uniform, greedy)

    def _decide(self, obs: NDArray, first: NDArray[np.bool_]) -> tuple[Tensor, State]:
        out = self.agent.step(
            torch.from_numpy(obs).to(self.device), self.state, torch.from_numpy(first).to(self.device)
        )
        return out.preferences, out.state


def evaluate(
    agent: Agent,
    env: VectorEnv,
    episodes: int,
    *,
    seed: int,
    epsilon: float = 0.001,
    interventions: Sequence[Intervention] = (),
    progress: Callable[[int], None] = lambda finished: None,
) -> Episodes:
    """Play `episodes` whole episodes and return their extrinsic returns.

    Each environment plays an equal share (the first ones play the remainder), so short episodes are
    not counted more often than long ones. Two calls with the same `seed` start the same episodes and
    draw the same exploration: returns with and without `interventions` are paired. `progress` is
    called with the number of episodes finished.
    """
    assert_unhooked(agent)
    share = np.full(env.num_envs, episodes // env.num_envs)
    share[: episodes % env.num_envs] += 1
    actor = Actor(agent, env.num_envs, np.random.default_rng(seed))
    returns: list[list[float]] = [[] for _ in range(env.num_envs)]
    lengths: list[list[int]] = [[] for _ in range(env.num_envs)]
    total, length = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    obs, first = env.reset(seed), np.ones(env.num_envs, bool)
    with hooked(agent, as_hooks(interventions)):
        while any(len(done) < wanted for done, wanted in zip(returns, share, strict=True)):
            env.send(actor.act(obs, first, epsilon))
            step = env.recv()
            total += step.reward
            length += ~step.first
            for i in np.flatnonzero(step.done):
                if len(returns[i]) < share[i]:
                    returns[i].append(float(total[i]))
                    lengths[i].append(int(length[i]))
                    progress(sum(map(len, returns)))
                total[i], length[i] = 0, 0
            obs, first = step.obs, step.first
    return Episodes(np.concatenate(returns), np.concatenate(lengths).astype(np.int64))
