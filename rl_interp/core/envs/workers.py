"""Games in worker processes, their observations in shared memory."""

import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.games import Game, GameVector
from rl_interp.core.envs.vector import Step
from rl_interp.core.errors import UserError
from rl_interp.core.processes import processes

TIMEOUT = 120.0
"""Seconds without an answer after which a worker counts as hung: ten thousand-step worlds begin in far less."""


Games = Callable[[int], Sequence[Game]]
"""Makes so many games; it is pickled to get into another process."""


class WorkerError(UserError):
    """An environment's process died, hung, or gave what is no number."""


def worker_count(num_envs: int, workers: int) -> int:
    """As many processes as asked for, or as there are cores, but none with fewer than two environments."""
    return max(1, min(workers or os.cpu_count() or 1, num_envs // 2))


class WorkerVector:
    """Games of a config in `workers` processes, each of which makes its own with `games(count)`; in everything else as
    `GameVector`, with the same episodes."""

    def __init__(self, config: EnvConfig, games: Games, num_envs: int, workers: int):
        self.config, self.num_envs = config, num_envs
        self.observation_shape, self.action_names = config.observation_shape, config.action_names
        self._slices = [slice(part[0], part[-1] + 1) for part in np.array_split(np.arange(num_envs), workers)]
        dtype = np.dtype(config.observation_dtype)
        size = num_envs * int(np.prod(self.observation_shape)) * dtype.itemsize
        self._memory = SharedMemory(create=True, size=size)
        self._obs = np.ndarray((num_envs, *self.observation_shape), dtype, self._memory.buf)
        context = processes(__name__)
        self._pipes: list[Connection] = []
        self._processes = []
        for part in self._slices:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, config, games, num_envs, part, self._memory.name), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def reset(self, seed: int) -> NDArray[Any]:
        self._tell("reset", [seed] * len(self._pipes))
        self._answers()
        return self._obs.copy()

    def send(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        self._tell("step", [actions[part] for part in self._slices])

    def recv(self) -> Step:
        answers = self._answers()
        reward, terminated, truncated, first = (np.concatenate([a[i] for a in answers]) for i in range(4))
        if not np.isfinite(reward).all():
            raise WorkerError(f"environment {np.argmin(np.isfinite(reward))} gave a reward that is not finite.")
        info = {name: np.concatenate([a[4][name] for a in answers]) for name in answers[0][4]}
        return Step(self._obs.copy(), reward, terminated, truncated, first, info)

    def scene(self) -> NDArray[Any]:
        return self._obs.copy()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            process.kill()
        del self._obs
        self._memory.close()
        self._memory.unlink()

    def _tell(self, what: str, each: Sequence[Any]) -> None:
        for i, (pipe, payload) in enumerate(zip(self._pipes, each, strict=True)):
            try:
                pipe.send((what, payload))
            except OSError:
                raise self._dead(i) from None

    def _answers(self) -> list[Any]:
        answers = []
        for i, pipe in enumerate(self._pipes):
            try:
                if not pipe.poll(TIMEOUT):
                    raise WorkerError(
                        f"worker {i} with environments {self._slices[i].start} to {self._slices[i].stop - 1} has not "
                        f"answered for {TIMEOUT:.0f} s."
                    )
                answers.append(pipe.recv())
            except (EOFError, ConnectionResetError):
                raise self._dead(i) from None
        return answers

    def _dead(self, i: int) -> WorkerError:
        self._processes[i].join(timeout=1)
        return WorkerError(
            f"worker {i} with environments {self._slices[i].start} to {self._slices[i].stop - 1} died (exit code "
            f"{self._processes[i].exitcode})."
        )


def _work(pipe: Connection, config: EnvConfig, games: Games, num_envs: int, part: slice, memory_name: str) -> None:
    """A worker: plays its slice of the environments until the pipe is closed."""
    memory = SharedMemory(memory_name)
    obs = np.ndarray((num_envs, *config.observation_shape), config.observation_dtype, memory.buf)
    env = GameVector(config, games(part.stop - part.start), offset=part.start)
    try:
        while True:
            what, payload = pipe.recv()
            if what == "reset":
                obs[part] = env.reset(payload)
                pipe.send(None)
            else:
                env.send(payload)
                step = env.recv()
                obs[part] = step.obs
                pipe.send((step.reward, step.terminated, step.truncated, step.first, step.info))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        del obs
        memory.close()
