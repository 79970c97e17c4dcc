"""Collecting: an agent plays labelled environments, and what it computed goes into an activation store.

Every row's index says which episode and step it comes from, by which seed that episode can be played again, what the
agent did, and the ground-truth concepts of that moment. Some of these are known in hindsight alone, so an episode that
has labels is played to its end even where only its beginning is stored.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, evaluating
from rl_interp.core.envs import EnvConfig, LabelledEnv, concepts_sha256, make_labelled
from rl_interp.core.errors import NotFiniteError, at_least_one
from rl_interp.core.hooks import hook_point, run_with_cache
from rl_interp.core.progress import Update
from rl_interp.core.rollout import choose, require_end
from rl_interp.core.store import LOOK, ActivationStore, StoreWriter, action_columns, checksum


class _Player:
    """One environment, playing whole episodes with seeds of its own."""

    def __init__(self, env: LabelledEnv, seeds: Callable[[], int]):
        self.env, self._seeds = env, seeds
        self.begin()

    def begin(self) -> None:
        self.seed = self._seeds()
        self.obs, self.info = self.env.reset(seed=self.seed)
        self.rows: dict[str, list[Any]] = {}
        self.values: list[NDArray[np.float32]] = []
        self.first = True
        self.ended = False

    def act(self, action: Any, value: NDArray[np.float32] | None, state_value: float) -> None:
        """Play a step, which is stored with its `value`; without one it only serves the labels of earlier steps."""
        taken = action_columns(action, self.env.action_names)
        labels, look = self.info["labels"], checksum(self.obs)
        if value is not None:
            self.values.append(value)
        self.obs, reward, terminated, truncated, self.info = self.env.step(action if np.ndim(action) else int(action))
        scalars = {name: value for name, value in self.info.items() if isinstance(value, int | float)}
        row = taken | {"value": state_value, "reward": float(reward), LOOK: look} | scalars | labels
        for name, entry in row.items():
            self.rows.setdefault(name, []).append(entry)
        self.first, self.ended = False, terminated or truncated
        require_end(len(self.rows[LOOK]))

    def columns(self, episode: int) -> dict[str, NDArray[Any]]:
        """The index of the finished episode's stored steps."""
        count = len(self.values)
        columns = {name: np.array(column) for name, column in self.rows.items()}
        columns |= self.env.hindsight(columns)  # of the whole episode
        where = {
            "episode": np.full(count, episode),
            "episode_seed": np.full(count, self.seed),
            "step": np.arange(count),
        }
        return where | {name: column[:count] for name, column in columns.items()}


@torch.no_grad()
def collect(
    agent: Agent,
    config: EnvConfig,
    hook: str,
    samples: int,
    path: Path | str,
    *,
    seed: int,
    num_envs: int = 8,
    epsilon: float = 0.01,
    provenance: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    progress: Update = lambda done, note="": None,
) -> ActivationStore:
    """Play episodes and store `samples` states, one row each.

    All environments play on until the number is reached. Of the at most `num_envs` episodes that are under way then,
    what was played is stored, and the rest, where there are labels, only played, so that every label is that of the
    whole episode. Their later states are thus missing: where episodes are long, ask for many times `num_envs` episodes'
    worth. The i-th episode that begins is played with seed `seed + i`, which its rows have as `episode_seed`; they are
    numbered as they end. So stores of nearby seeds share most episodes.

    Args:
        epsilon: probability of a random action, so that the states are not one trajectory's.
        provenance: what the store's manifest records beside the environment, what its labels mean, and the seeds.

    Raises:
        HookError: no such hook point.
        UserError: no samples asked for, an agent whose preferences or values at the hook point are not finite, or an
            episode that does not end.
    """
    hook_point(agent, hook)
    at_least_one(samples=samples, num_envs=num_envs)
    device = agent.device
    rng = np.random.default_rng(seed)
    next_seed = iter(range(seed, seed + samples + num_envs)).__next__
    players = [_Player(make_labelled(config), next_seed) for _ in range(num_envs)]
    meanings = concepts_sha256(players[0].env.concepts)  # None without labels
    known = {"env": config, "concepts_sha256": meanings, "seed": seed, "epsilon": epsilon, **(provenance or {})}
    active, state = np.ones(num_envs, bool), agent.reseeded(agent.initial_state(num_envs), rng)
    left, episode = samples, 0
    with evaluating(agent), StoreWriter(path, hook, known, dtype) as writer:
        while active.any():
            obs = torch.from_numpy(np.stack([player.obs for player in players])).to(device)
            first = torch.tensor([player.first for player in players], device=device)
            out, cache = run_with_cache(agent, obs, state, names=[hook], first=first)
            values = _by_feature(cache[hook], agent.hook_points[hook])
            values, state_values = values.float().cpu().numpy(), _state_values(out).float().cpu().numpy()
            actions = choose(out, rng, epsilon)
            state = agent.after_action(out.state, torch.from_numpy(actions).to(device))
            for i in np.flatnonzero(active):
                player = players[i]
                player.act(actions[i], values[i] if left else None, float(state_values[i]))
                left = max(0, left - 1)
                if player.values and (player.ended or not (left or meanings)):
                    writer.append(_finite(np.stack(player.values), hook), player.columns(episode))
                    episode += 1
                    player.begin()
                active[i] = bool(left or player.values)
            playing_on = meanings and not left and active.any()
            progress(samples - left, "playing the last episodes to their ends, for their labels" if playing_on else "")
    return ActivationStore(path)


def _by_feature(values: Tensor, point: HookPoint) -> Tensor:
    """The newest value of each sample, its features first: `[N, C, H, W]`, `[N, D, S]`, `[N, D]`."""
    newest = point.newest(values)
    return newest.movedim(point.feature_axis, 1) if newest.dim() > 1 else newest


def _finite(values: NDArray[np.float32], hook: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise NotFiniteError(f"the agent's values at {hook!r}")
    return values


def _state_values(out: PolicyOutput) -> Tensor:
    """`[N]`, NaN for an agent that has only a policy."""
    if out.value is None and out.q_values is None:
        return torch.full(out.preferences.shape[:-1], torch.nan)
    return out.state_value
