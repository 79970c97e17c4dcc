"""Playing: choosing actions, and scoring whole episodes, with or without interventions."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.core.agent import Agent, PolicyOutput, State, evaluating, tree_map
from rl_interp.core.check_agent import taking
from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.vector import VectorEnv
from rl_interp.core.errors import NotFiniteError, UserError, at_least_one, require_numbers
from rl_interp.core.hooks import assert_unhooked
from rl_interp.core.interventions import Intervention, intervened

if TYPE_CHECKING:
    import gymnasium

LONGEST = 200_000
"""Steps of an episode after which it is taken for one that never ends."""

Actions = NDArray[np.int64] | NDArray[np.float32]
"""Of N environments: indices `[N]`, or continuous ones `[N, D]`."""


@dataclass(frozen=True)
class Episodes:
    """Whole episodes: undiscounted extrinsic returns and lengths in steps, `[N]`: all of the first environment in the
    order in which it played them, then those of the next."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    last: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """The `Step.info` that each episode ended with, `[N, ...]`."""

    def summary(self, env: EnvConfig) -> dict[str, Any]:
        """The environment's own scores."""
        return env.summary(self.returns, self.last)


class Actor:
    """An agent playing N environments, keeping its recurrent state between calls. Given the names of their actions, it
    refuses preferences of another number."""

    def __init__(self, agent: Agent, num_envs: int, rng: np.random.Generator, action_names: Sequence[str] = ()):
        self.agent, self.rng, self.action_names = agent, rng, action_names
        self.device = agent.device
        self.state: State = agent.reseeded(agent.initial_state(num_envs), rng)

    @torch.no_grad()
    def act(self, obs: NDArray, first: NDArray[np.bool_], epsilon: float) -> Actions:
        """Actions of N environments, by `choose`."""
        out = self.agent.step(
            torch.from_numpy(obs).to(self.device), self.state, torch.from_numpy(first).to(self.device)
        )
        if self.action_names:
            require_actions("an agent was given", out, "the environment", self.action_names)
        actions = choose(out, self.rng, epsilon)
        self.state = self.agent.after_action(out.state, torch.from_numpy(actions).to(self.device))
        return actions

    @torch.no_grad()
    def think(self, obs: NDArray, first: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
        """Let the agent see the first observations of episodes that begin `steps` times without acting: its state
        advances, and the environment stands still (Guez et al. 2019, "An investigation of model-free planning", §4.3).

        Returns:
            `first [N]` for the act that follows: false where the agent has thought.
        """
        rows = np.flatnonzero(first)
        if not steps or not len(rows):
            return first
        seen = torch.from_numpy(obs[rows]).to(self.device)
        state = tree_map(lambda leaf: leaf[torch.from_numpy(rows).to(leaf.device)], self.state)
        for step in range(steps):
            state = self.agent.step(seen, state, torch.full((len(rows),), step == 0, device=self.device)).state
        self.state = _with_rows(self.state, rows, state)
        return np.zeros_like(first)


def require_actions(made: str, out: PolicyOutput, env: str, names: Sequence[str]) -> None:
    """Raise a `UserError` where an agent prefers among another number of actions than the environment has."""
    found = out.preferences.shape[-1]
    if found != len(names):
        raise UserError(
            f"{made} with {found} {out.kind}, and {env} has {len(names)} actions: {', '.join(names)}; they must be the "
            "same."
        )


def _with_rows(state: State, rows: NDArray[np.int64], new: State) -> State:
    """A state with some of its rows replaced by those of another."""
    return tree_map(lambda old, own: old.index_copy(0, torch.from_numpy(rows).to(old.device), own), state, new)


def choose(out: PolicyOutput, rng: np.random.Generator, epsilon: float) -> Actions:
    """Actions as the agent means them: the greedy one of Q-values, a sample of a policy's logits, `[N]`. Each is
    replaced by a uniform one, of those not ruled out, with probability `epsilon`.

    Continuous actions `[N, D]` are a sample of the policy's normal distribution, its mean where it has no `std`, or the
    sample that the agent drew; `epsilon` does not concern them.

    Raises:
        NotFiniteError: preferences that are NaN or infinite, but for -inf, which rules an action out.
    """
    if out.q_values is None and out.logits is None:
        return _continuous(out, rng)
    preferences = out.preferences.float().cpu().numpy()
    if not np.isfinite(preferences.max(-1)).all():  # a maximum is NaN where any number is
        raise NotFiniteError("the agent's preferences")
    if out.q_values is None:
        preferences = preferences + rng.gumbel(size=preferences.shape)  # the maximum is a sample of the softmax
    chosen = preferences.argmax(-1)
    explore = rng.random(len(chosen)) < epsilon
    uniform = rng.integers(preferences.shape[-1], size=len(chosen))
    possible = np.isfinite(preferences)
    again = explore & ~possible[np.arange(len(chosen)), uniform]
    if again.any():
        uniform[again] = np.where(possible[again], rng.random(possible[again].shape), -1).argmax(-1)
    return np.where(explore, uniform, chosen)


def _continuous(out: PolicyOutput, rng: np.random.Generator) -> NDArray[np.float32]:
    actions = out.preferences.float().cpu().numpy()
    if out.std is not None:
        actions = actions + rng.standard_normal(actions.shape, np.float32) * out.std.float().cpu().numpy()
    if not np.isfinite(actions).all():
        raise NotFiniteError("the agent's actions")
    return actions


def evaluate(
    agent: Agent,
    env: "VectorEnv | gymnasium.vector.VectorEnv | gymnasium.Env",
    episodes: int,
    *,
    seed: int,
    epsilon: float = 0.001,
    interventions: Sequence[Intervention] = (),
    thinking: int = 0,
    progress: Callable[[int], None] = lambda finished: None,
) -> Episodes:
    """Play `episodes` whole episodes and return their extrinsic returns.

    Each environment plays an equal share (the first ones play the remainder), so short episodes are
    not counted more often than long ones. Two calls with the same `seed` start the same episodes and
    draw the same exploration: returns with and without `interventions` are paired. (Of Gymnasium's vector
    environments that reset themselves, the first episodes alone begin alike.) `progress` is called with the number of
    episodes finished. All modules are in evaluation mode meanwhile.

    Args:
        env: of `make_vector`, or Gymnasium's: several at once, whichever way they reset, or one.
        thinking: how often the agent sees the first observation of an episode before it acts; see `Actor.think`.

    Raises:
        UserError: no episodes, another kind of environment, an agent that can't take its observations, whose
            preferences are of another number of actions or not finite, or an episode that goes on for more than
            `LONGEST` steps.
        HookError: a hook was left on the agent, or an intervention at a point that does not fire.
    """
    assert_unhooked(agent)
    at_least_one(episodes=episodes)
    require_numbers({"thinking": thinking}, at_least_0=("thinking",))
    env = _as_vector(env)
    share = np.full(env.num_envs, episodes // env.num_envs)
    share[: episodes % env.num_envs] += 1
    # A language model may have more words than its tokenizer names.
    names = () if agent.observation == "tokens" else getattr(env, "action_names", ())
    actor = Actor(agent, env.num_envs, np.random.default_rng(seed), names)
    returns: list[list[float]] = [[] for _ in range(env.num_envs)]
    lengths: list[list[int]] = [[] for _ in range(env.num_envs)]
    infos: list[list[dict[str, Any]]] = [[] for _ in range(env.num_envs)]
    total, length = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    obs, first = env.reset(seed), np.ones(env.num_envs, bool)
    trying = nullcontext() if interventions else taking(torch.from_numpy(obs))  # errors may be an intervention's
    with evaluating(agent), intervened(agent, interventions) as require_fired:
        while any(len(done) < wanted for done, wanted in zip(returns, share, strict=True)):
            with trying:
                first = actor.think(obs, first, thinking)
                actions = actor.act(obs, first, epsilon)
            trying = nullcontext()
            env.send(actions)
            require_fired()  # at the first step, and not after all episodes
            step = env.recv()
            total += step.reward
            length += step.moved
            require_end(int(length.max()))
            for i in np.flatnonzero(step.done):
                if len(returns[i]) < share[i]:
                    returns[i].append(float(total[i]))
                    lengths[i].append(int(length[i]))
                    infos[i].append({name: values[i] for name, values in step.info.items()})
                    progress(sum(map(len, returns)))
                total[i], length[i] = 0, 0
            obs, first = step.obs, step.first
    ended = [info for of_one in infos for info in of_one]
    last = {name: np.stack([info[name] for info in ended]) for name in ended[0]}
    return Episodes(np.concatenate(returns), np.concatenate(lengths).astype(np.int64), last)


def require_end(steps: int) -> None:
    """Raise a `UserError` where an episode has gone on for so long that it may never end."""
    if steps > LONGEST:
        raise UserError(
            f"an episode has not ended in {LONGEST:,} steps and may never; give the environment a time limit, as by "
            '--env.wrappers "gymnasium.wrappers:TimeLimit(max_episode_steps=1000)" where the agent is imported.'
        )


def _as_vector(env: Any) -> VectorEnv:
    """An environment of Gymnasium's, or several at once, under the suite's convention; one of the suite's as it is."""
    if gymnasium := sys.modules.get("gymnasium"):  # else it can't be one of its environments
        from rl_interp.core.envs.gym.vector import GymnasiumVector

        if isinstance(env, gymnasium.Env):
            mode = gymnasium.vector.AutoresetMode.DISABLED  # by which each episode has a seed of its own
            return GymnasiumVector(gymnasium.vector.SyncVectorEnv([lambda: env], autoreset_mode=mode))
        if isinstance(env, gymnasium.vector.VectorEnv):
            return GymnasiumVector(env)
    if not (hasattr(env, "send") and hasattr(env, "recv")):
        raise UserError(
            f"{type(env).__name__} given as an environment, which has no `send` and `recv`; make some with "
            "rl_interp.core.envs.make_vector or gymnasium.make_vec, or give your own the methods of "
            "rl_interp.core.envs.VectorEnv."
        )
    return env
