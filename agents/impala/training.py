"""Training IMPALA: take an unroll, compute its bonus, learn from it, publish the weights."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.cbet import CBET
from rl_interp.agents.impala.actor import Unroll, environments, flat_weights
from rl_interp.agents.impala.actor_pool import ActorPool, LocalActorPool, ProcessActorPool
from rl_interp.agents.impala.agent import load_start, make_agent
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.agents.impala.imitation import Imitation
from rl_interp.agents.impala.learner import Learner, Losses
from rl_interp.agents.loop import check_finite, score, train_run
from rl_interp.agents.phases import Transfer, load_explorer
from rl_interp.core.agent import Agent
from rl_interp.core.device import keep_memory, pick_device
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run, load_into


class Training:
    """The state of a run: everything that a checkpoint saves and a resumed run gets back.

    Args:
        actors: processes that play; 0 to play in this one, which is slower and reproducible bit for bit.
        ray_address: of a Ray cluster for the actors.
    """

    def __init__(
        self,
        config: IMPALAConfig,
        seed: int,
        device: str = "auto",
        actors: int = 0,
        ray_address: str | None = None,
        progress: Progress = SILENT,
    ):
        keep_memory()
        torch.manual_seed(seed)
        self.config, self.seed = config, seed
        self.agent = make_agent(config)
        if isinstance(self.agent, Transfer):
            load_explorer(self.agent.explorer, config)
        load_start(self.agent, config)
        self.learner = Learner(self.agent, config, pick_device(device))
        self.actors = _make_actors(config, seed, self.agent, actors, ray_address, progress)
        self._players = max(1, actors)
        self._bonuses: dict[int, CBET] = {}
        self.agent_steps = 0
        self._clear()
        self.actors.publish(flat_weights(self.agent))

    def _clear(self) -> None:
        self._losses: Losses | None = None
        self._returns: list[float] = []
        self._bonus_sum, self._bonus_count = 0.0, 0

    def advance(self) -> None:
        """Take one unroll and the updates from it."""
        index, unroll = self.actors.next()
        # Bonuses are computed here, as unrolls arrive, so that all counts are in one place.
        bonus = self._bonus(index, unroll)
        ended = unroll["episode_return"]
        self._returns.extend(ended[np.isfinite(ended)].tolist())
        if bonus is not None:
            unroll = {**unroll, "bonus": bonus}
        progress, shares = self.agent_steps / self.config.agent_steps, self.config.minibatches
        for epoch in range(self.config.epochs):
            # An update for each share of the environments, whole in time: V-trace and the LSTM go along it. Passes
            # after the first deal them anew.
            dealt = torch.randperm(self.config.num_envs) if epoch and shares > 1 else torch.arange(self.config.num_envs)
            for part in np.split(dealt.numpy(), shares):
                share = environments(unroll, part) if shares > 1 else unroll
                self._losses = self.learner.update(share, progress)
        self.actors.publish(flat_weights(self.agent))
        self.agent_steps += self.config.unroll * self.config.num_envs

    def _bonus(self, index: int, unroll: Unroll) -> NDArray[np.float32] | None:
        """Intrinsic rewards `[T, N]` of an unroll."""
        if self.config.cbet is None:
            return None
        counts = self._counts(0 if self.config.cbet.shared else index)
        obs, first = unroll["obs"], unroll["first"]
        scenes = unroll.get("scene", obs)
        bonus = np.stack([counts(obs[t], scenes[t - 1], scenes[t], first[t]) for t in range(1, len(obs))])
        self._bonus_sum, self._bonus_count = self._bonus_sum + float(bonus.sum()), self._bonus_count + bonus.size
        return bonus

    def _counts(self, index: int) -> CBET:
        """The counts of an actor, or of all."""
        if index not in self._bonuses:
            config = self.config
            assert config.cbet is not None
            # A table that actors share is asked by each of them, where its environments take one step.
            sharing = self._players if config.cbet.shared else 1
            cbet = replace(config.cbet, reset_probability=config.cbet.reset_probability / sharing)
            # Seeded alike, so that counts of different actors are of the same keys.
            self._bonuses[index] = CBET(
                cbet, config.num_envs, config.env.observation_shape, config.env.scene_shape, self.seed
            )
        return self._bonuses[index]

    def metrics(self) -> dict[str, float]:
        """Losses of the last update; the mean extrinsic return of episodes that ended, and the mean bonus, since
        the last call."""
        values: dict[str, float] = {"updates": self.learner.updates}
        if self._losses is not None:
            values |= {
                "loss": self._losses.total.item(), "policy_loss": self._losses.policy.item(),
                "value_loss": self._losses.value.item(), "entropy": self._losses.entropy.item(),
                "rho": self._losses.rho.item(),
            }  # fmt: skip
            if self._losses.ablated is not None and self._losses.distance is not None:
                values |= {"ablated_loss": self._losses.ablated.item(), "distance": self._losses.distance.item()}
            check_finite(values["loss"], self.agent_steps)
        if self._returns:
            values |= {"episode_return": float(np.mean(self._returns)), "episodes": len(self._returns)}
        if self._bonus_count:
            values["bonus"] = self._bonus_sum / self._bonus_count
        self._clear()
        return values

    def score(self) -> Episodes:
        """Evaluate, with the policy sampled from as in training."""
        return score(self.agent, self.config, self.seed)

    def state(self) -> dict[str, Any]:
        return {
            "agent_steps": self.agent_steps,
            "learner": self.learner.state(),
            "actors": self.actors.state(),
            "bonus": {str(index): counts.state() for index, counts in self._bonuses.items()},
            "torch_rng": torch.get_rng_state(),
        }

    def restore(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], source: Path) -> None:
        load_into(self.agent, weights, source)
        self.learner.restore(state["learner"])
        for index, counts in state["bonus"].items():
            self._counts(int(index)).restore(counts)
        torch.set_rng_state(state["torch_rng"])
        self.agent_steps = state["agent_steps"]
        self.actors.restore(state["actors"])
        self.actors.publish(flat_weights(self.agent))

    def continue_from(self, weights: Mapping[str, torch.Tensor], agent_steps: int, source: Path) -> None:
        """Go on from weights alone: the optimiser and the counts start afresh."""
        load_into(self.agent, weights, source)
        self.agent_steps = agent_steps
        self.actors.publish(flat_weights(self.agent))

    def close(self) -> None:
        self.actors.close()


def train(
    config: IMPALAConfig,
    run: Run,
    seed: int,
    device: str = "auto",
    progress: Progress = SILENT,
    actors: int | None = None,
    ray_address: str | None = None,
) -> Episodes:
    """Train an IMPALA run to its end, from wherever it stands, by reinforcement or by imitation; see
    `agents.loop.train_run`.

    Args:
        actors: processes that play; by default one less than there are cores, and 0 for none but this one.
    """
    if config.imitate is not None:
        return train_run(Imitation(config, seed, device), config, run, progress)
    cores = os.cpu_count() or 1
    count = max(1, cores - 1) if actors is None else actors
    if ray_address is None:  # the actors have the other cores
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores - count)))
    return train_run(Training(config, seed, device, count, ray_address, progress), config, run, progress)


def _make_actors(
    config: IMPALAConfig, seed: int, agent: Agent, count: int, ray_address: str | None, progress: Progress
) -> ActorPool:
    if ray_address is not None:
        try:
            from rl_interp.agents.impala.ray_actor_pool import RayActorPool
        except ModuleNotFoundError:
            raise UserError(
                "--ray given, and Ray is not installed; install the extra: pip install 'rl-interp[distributed]'."
            ) from None
        return RayActorPool(config, seed, agent, max(1, count), ray_address, progress)
    if count == 0:
        return LocalActorPool(config, seed, agent)
    return ProcessActorPool(config, seed, agent, count, progress=progress)
