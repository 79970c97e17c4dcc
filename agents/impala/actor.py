"""An actor: it plays its environments with the weights that it is given, and writes what happened into an unroll."""

from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from rl_interp.agents.impala.agent import IMPALA, make_agent
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.agents.loop import restored_state
from rl_interp.core.agent import Agent
from rl_interp.core.envs import make_vector
from rl_interp.core.envs.workers import WorkerError

Unroll = dict[str, NDArray[Any]]
"""The arrays of `unroll_layout`: T steps of N environments."""


class Actor:
    """Actor number `index` of a run: N environments with seeds and exploration of their own.

    Args:
        life: how often this actor was replaced or the run resumed; each life plays new episodes.
    """

    def __init__(self, config: IMPALAConfig, seed: int, index: int, life: int = 0):
        self.config = config
        self.agent = make_agent(config).eval()
        self.env = make_vector(config.env, config.num_envs, workers=1)
        own_seed, env_seed = np.random.SeedSequence([seed, index, life]).generate_state(2)
        self.rng = np.random.default_rng(own_seed)
        self.obs, self.first = self.env.reset(int(env_seed >> 1)), np.ones(config.num_envs, bool)
        self.state: tuple[Tensor, ...] = self.agent.initial_state(config.num_envs)
        self.total = np.zeros(config.num_envs, np.float32)
        # For symbols, converting the weights at every step costs what the smaller products save.
        pixels = config.env.observation_kind == "pixels"
        self._bf16 = pixels and config.computes_in_bf16(torch.device("cpu"))
        self._seen = (
            Seen(self.agent) if isinstance(self.agent, IMPALA) and self.agent.observation == "symbols" else None
        )

    @torch.no_grad()
    def play(self, weights: NDArray[np.float32], out: Unroll) -> None:
        """Play T steps in every environment and write them into `out`.

        Raises:
            WorkerError: an environment gave a reward that is not finite.
        """
        set_flat_weights(self.agent, weights)
        if self._seen is not None:
            self._seen.forget()
        for i, leaf in enumerate(self.state):
            out[f"state{i}"][:] = leaf.numpy()
        for t in range(self.config.unroll):
            self._observe(out, t)
            actions, log_probs = self._choose()
            self.env.send(actions)
            step = self.env.recv()
            # Said here, by name, before it spreads through the loss into the weights.
            if not np.isfinite(step.reward).all():
                bad = int(np.argmin(np.isfinite(step.reward)))
                raise WorkerError(f"environment {bad} of {self.config.env.id} gave the reward {step.reward[bad]}.")
            self.total += step.reward
            # μ(a | x) is kept: by the time the learner sees the action, its policy is a different one.
            out["actions"][t], out["log_probs"][t] = actions, log_probs
            out["rewards"][t], out["terminated"][t] = step.reward, step.terminated
            out["episode_return"][t] = np.where(step.done, self.total, np.nan)
            self.total[step.done] = 0
            self.obs, self.first = step.obs, step.first
        self._observe(out, self.config.unroll)

    def _observe(self, out: Unroll, t: int) -> None:
        out["obs"][t], out["first"][t] = self.obs, self.first
        if "scene" in out:
            out["scene"][t] = self.env.scene()

    def _choose(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Actions sampled from the policy, and their log-probabilities."""
        obs, first = torch.from_numpy(self.obs), torch.from_numpy(self.first)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            if self._seen is None:
                out = self.agent.unroll(obs[None], self.state, first[None])
            else:
                out = self._seen.agent.decide(self._seen(obs)[None], self.state, first[None])
        assert out.logits is not None
        self.state = out.state
        log_probs = out.logits[0].log_softmax(-1).numpy()
        # With Gumbel noise added, the largest is a sample of the softmax.
        actions = (log_probs + self.rng.gumbel(size=log_probs.shape)).argmax(-1)
        return actions, np.take_along_axis(log_probs, actions[:, None], 1)[:, 0]

    def snapshot(self) -> dict[str, Any]:
        """Where the actor stands, for a checkpoint; its environments must have a `state()`."""
        return {
            "env": self.env.state(),  # pyright: ignore[reportAttributeAccessIssue]
            "first": torch.from_numpy(self.first),
            "state": list(self.state),
            "total": torch.from_numpy(self.total),
            "rng": self.rng.bit_generator.state,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        self.obs = self.env.restore(snapshot["env"])  # pyright: ignore[reportAttributeAccessIssue]
        self.first, self.total = snapshot["first"].numpy().copy(), snapshot["total"].numpy().copy()
        self.state = restored_state(snapshot["state"], self.state)
        self.rng.bit_generator.state = snapshot["rng"]

    def close(self) -> None:
        self.env.close()


class Seen:
    """What an agent makes of single observations of symbols, remembered for as long as its weights stay the same:
    within an unroll most come again."""

    def __init__(self, agent: IMPALA):
        self.agent = agent
        self.forget()

    def forget(self) -> None:
        self._places: dict[bytes, int] = {}
        self._features = torch.empty(0, self.agent.fc.out_features)

    def __call__(self, obs: Tensor) -> Tensor:
        """Features `[N, D]` of observations `[N, ...]`."""
        numbers, new = [], []
        for row, each in enumerate(obs.numpy()):
            key, known = each.tobytes(), len(self._places)
            number = self._places.setdefault(key, known)
            numbers.append(number)
            if number == known:
                new.append(row)
        if new:
            self._features = torch.cat([self._features, self.agent.see(obs[new])])
        return self._features[numbers]


def unroll_layout(config: IMPALAConfig, agent: Agent) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
    """Name to shape and dtype of an unroll's arrays.

    `obs`, `first` and `scene` have T + 1 entries, since the last step is worth what the observation after it is.
    `episode_return` is NaN except where an episode ended. `state0`, ... are the agent's state at the start.
    """
    t, n, env = config.unroll, config.num_envs, config.env
    layout: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
        "obs": ((t + 1, n, *env.observation_shape), env.observation_dtype),
        "first": ((t + 1, n), np.bool_),
        "actions": ((t, n), np.int64),
        "log_probs": ((t, n), np.float32),
        "rewards": ((t, n), np.float32),
        "terminated": ((t, n), np.bool_),
        "episode_return": ((t, n), np.float32),
    }
    if config.cbet is not None and env.scene_shape != env.observation_shape:
        layout["scene"] = ((t + 1, n, *env.scene_shape), env.observation_dtype)
    for i, leaf in enumerate(agent.initial_state(n)):
        layout[f"state{i}"] = (tuple(leaf.shape), np.float32)
    return layout


def environments(unroll: Unroll, part: NDArray[np.integer]) -> Unroll:
    """The part of an unroll that is of some environments."""
    return {name: np.take(array, part, 0 if name.startswith("state") else 1) for name, array in unroll.items()}


def flat_weights(agent: Agent) -> NDArray[np.float32]:
    """All weights of an agent as one float32 vector, as actors receive them."""
    return torch.cat([w.detach().float().flatten().cpu() for w in agent.state_dict().values()]).numpy()


@torch.no_grad()
def set_flat_weights(agent: Agent, flat: NDArray[np.float32]) -> None:
    """The inverse of `flat_weights`."""
    start = 0
    for weight in agent.state_dict().values():
        weight.copy_(torch.from_numpy(flat[start : start + weight.numel()]).view(weight.shape))
        start += weight.numel()
