"""Actors on a Ray cluster (Moritz et al. 2018, arXiv 1712.05889); the learner stays where the command runs."""

import os
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError

from rl_interp.agents.impala.actor import Actor, Unroll, unroll_layout
from rl_interp.agents.impala.actor_pool import START_TIMEOUT
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.core.agent import Agent
from rl_interp.core.cluster import connect
from rl_interp.core.envs.workers import WorkerError
from rl_interp.core.progress import SILENT, Progress

AHEAD = 2
"""Unrolls requested of an actor at a time: it plays one while the learner learns from the other."""


class _RemoteActor:
    """An `Actor` in a worker of the cluster."""

    def __init__(self, config: IMPALAConfig, seed: int, index: int, life: int):
        torch.set_num_threads(1)
        self._actor = Actor(config, seed, index, life)
        self._layout = unroll_layout(config, self._actor.agent)

    def play(self, weights: NDArray[np.float32]) -> Unroll:
        unroll = {name: np.empty(*entry) for name, entry in self._layout.items()}
        self._actor.play(weights, unroll)
        return unroll

    def process_id(self) -> int:
        return os.getpid()


class RayActorPool:
    """`count` actors on the cluster at `address`; "local" starts one on this machine for the run.

    As in `ProcessActorPool`, a worker that dies is replaced, and only its unfinished unroll is lost. A transfer needs
    its explorer's run at the same path on every machine of the cluster.

    Raises:
        UserError: no cluster answers at the address.
    """

    def __init__(
        self,
        config: IMPALAConfig,
        seed: int,
        agent: Agent,
        count: int,
        address: str,
        progress: Progress = SILENT,
        timeout: float = 300.0,
    ):
        self._config, self._seed = config, seed
        self._count, self._timeout = count, timeout
        self._progress = progress
        connect(address, count)
        self._remote = ray.remote(num_cpus=1, max_restarts=0)(_RemoteActor)
        self._life = 0
        self._lives: list[int] = []
        self._actors: list[Any] = []
        self._finished: list[int] = []
        self._under_way: dict[Any, int] = {}

    def publish(self, weights: NDArray[np.float32]) -> None:
        self._weights = ray.put(weights)
        if not self._actors:
            for index in range(self._count):
                self._actors.append(None)
                self._lives.append(self._life)
                self._finished.append(0)
                self._begin(index)

    def _begin(self, index: int) -> None:
        self._actors[index] = self._remote.remote(self._config, self._seed, index, self._lives[index])
        self._finished[index] = 0
        for _ in range(AHEAD):
            self._ask(index)

    def _ask(self, index: int) -> None:
        self._under_way[self._actors[index].play.remote(self._weights)] = index

    def next(self) -> tuple[int, Unroll]:
        while True:
            limit = self._timeout if all(self._finished) else START_TIMEOUT  # the first includes imports
            ready, _ = ray.wait(list(self._under_way), num_returns=1, timeout=limit)
            if not ready:
                raise WorkerError(
                    f"no actor has answered for {limit:.0f} s; see `ray status` for what the cluster lacks."
                )
            index = self._under_way.pop(ready[0])
            try:
                unroll = ray.get(ready[0])
            except RayTaskError as error:  # before RayActorError: an environment's error is not a death
                raise WorkerError(f"actor {index} stopped: {str(error.cause).splitlines()[0]}") from None
            except RayActorError:
                self._replace(index)
                continue
            self._finished[index] += 1
            self._ask(index)
            return index, {name: array.copy() for name, array in unroll.items()}  # Ray's own is read-only

    def _replace(self, index: int) -> None:
        if not self._finished[index]:
            raise WorkerError(f"actor {index} died before its first unroll; see Ray's logs of its worker.")
        self._progress.warn(f"actor {index} died; a new one takes its place, and its unfinished unroll is lost.")
        for reference in [reference for reference, owner in self._under_way.items() if owner == index]:
            del self._under_way[reference]
        self._lives[index] += 1
        self._begin(index)

    def process_ids(self) -> list[int]:
        """Process ids of the actors' workers, each on its own machine."""
        return ray.get([actor.process_id.remote() for actor in self._actors])

    def state(self) -> dict[str, Any]:
        return {"life": max(self._lives, default=self._life)}

    def restore(self, state: dict[str, Any]) -> None:
        """Episodes under way are not brought back: actors begin new ones, with different seeds."""
        self._life = state.get("life", 0) + 1
        for index in range(len(self._actors)):
            ray.kill(self._actors[index])
            self._lives[index] = self._life
        self._under_way.clear()
        for index in range(len(self._actors)):
            self._begin(index)

    def close(self) -> None:
        ray.shutdown()
