"""Where unrolls come from: an actor in this process, or several in processes of their own.

Actors in processes are asynchronous: each plays on, with the newest weights there are, while the learner works.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.impala.actor import Actor, Unroll, unroll_layout
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.core.agent import Agent
from rl_interp.core.envs.workers import WorkerError
from rl_interp.core.processes import processes
from rl_interp.core.progress import SILENT, Progress

START_TIMEOUT = 1800.0
"""Seconds that an actor may take to begin: imports and environments on a slow or crowded machine."""
SLOTS = 2
"""Unrolls in memory for each actor: it fills one while the learner learns from the other."""


class ActorPool(Protocol):
    """A source of unrolls."""

    def publish(self, weights: NDArray[np.float32]) -> None:
        """Give the actors new weights; unrolls under way are finished with the old ones."""
        ...

    def next(self) -> tuple[int, Unroll]:
        """The next finished unroll and its actor's number. The arrays are valid until the next call.

        Raises:
            WorkerError: an actor failed before its first unroll, or an environment gave a reward that is not finite.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Where the actors stand, as far as a resumed run can go on from there."""
        ...

    def restore(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class LocalActorPool:
    """One actor in this process, which takes turns with the learner: slower, and the same every time.

    Where the environments have a `state()`, a resumed run goes on bit for bit as if it had not stopped; elsewhere it
    plays new episodes.
    """

    def __init__(self, config: IMPALAConfig, seed: int, agent: Agent):
        self._config, self._seed, self._life = config, seed, 0
        self._actor = Actor(config, seed, index=0)
        self._unroll = {name: np.empty(*entry) for name, entry in unroll_layout(config, agent).items()}

    def publish(self, weights: NDArray[np.float32]) -> None:
        self._weights = weights

    def next(self) -> tuple[int, Unroll]:
        self._actor.play(self._weights, self._unroll)
        return 0, self._unroll

    def state(self) -> dict[str, Any]:
        own = {"local": self._actor.snapshot()} if hasattr(self._actor.env, "state") else {}
        return own | {"life": self._life}

    def restore(self, state: dict[str, Any]) -> None:
        self._life = state.get("life", 0)
        if "local" in state:
            self._actor.restore(state["local"])
            return
        self._life += 1
        self._actor.close()
        self._actor = Actor(self._config, self._seed, index=0, life=self._life)

    def close(self) -> None:
        self._actor.close()


class SharedWeights:
    """The newest weights in shared memory, for one writer and any number of readers.

    There is no lock, since an actor that is killed while it reads would never release it: versions take turns
    between two places, and a reader reads again if a newer version came while it copied. That relies on writes becoming
    visible in their order, which x86 guarantees. Sent to another process, it attaches to the same memory there.
    """

    def __init__(self, size: int, name: str | None = None):
        self._memory = SharedMemory(name, create=name is None, size=8 + 2 * 4 * size)
        self._version = np.ndarray((), np.int64, self._memory.buf)
        self._places = np.ndarray((2, size), np.float32, self._memory.buf, offset=8)

    def __reduce__(self):
        return SharedWeights, (self._places.shape[1], self._memory.name)

    def write(self, weights: NDArray[np.float32]) -> None:
        version = int(self._version) + 1
        self._places[version % 2] = weights
        self._version[...] = version

    def read(self) -> NDArray[np.float32]:
        """A copy of the newest version when the reading began."""
        while True:
            version = int(self._version)
            weights = self._places[version % 2].copy()
            if int(self._version) == version:
                return weights

    def close(self, unlink: bool = False) -> None:
        del self._version, self._places
        self._memory.close()
        if unlink:
            self._memory.unlink()


@dataclass
class _ActorProcess:
    """An actor as the learner's process sees it."""

    process: Any
    pipe: Connection
    life: int
    finished: int = 0
    """Unrolls it has played in this life."""
    since: float = field(default_factory=time.monotonic)
    """When it last answered."""
    ready: bool = False
    """Whether it has said that it is about to play."""


class ProcessActorPool:
    """`count` actors in processes, their unrolls and the weights in shared memory.

    An actor that dies, or does not answer for `timeout` seconds, is replaced by a new one with fresh episodes, and only
    its unfinished unroll is lost. One that fails before its first unroll ends the training, since a new one would fail
    the same way. An actor has `start_timeout` seconds to begin.
    """

    def __init__(
        self,
        config: IMPALAConfig,
        seed: int,
        agent: Agent,
        count: int,
        life: int = 0,
        timeout: float = 300.0,
        progress: Progress = SILENT,
        start_timeout: float = START_TIMEOUT,
    ):
        self._config, self._seed = config, seed
        self._timeout, self._start_timeout = timeout, start_timeout
        self._progress = progress
        self._context = processes(__name__)
        self._layout = unroll_layout(config, agent)
        bytes_each = sum(_aligned(shape, dtype) for shape, dtype in self._layout.values())
        self._memory = SharedMemory(create=True, size=count * SLOTS * bytes_each)
        self._slots = [_arrays(self._memory, self._layout, i * bytes_each) for i in range(count * SLOTS)]
        self._weights = SharedWeights(sum(weight.numel() for weight in agent.state_dict().values()))
        self._life = life
        self._actors: list[_ActorProcess] = []
        self._count = count
        self._held: tuple[int, int] | None = None

    def publish(self, weights: NDArray[np.float32]) -> None:
        self._weights.write(weights)
        if not self._actors:
            self._actors = [self._start(index, self._life) for index in range(self._count)]

    def next(self) -> tuple[int, Unroll]:
        # What was given last has been learned from, so its actor may write there again.
        if self._held is not None:
            index, slot = self._held
            self._held = None
            self._ask(index, slot)
        # The first unroll that is finished; meanwhile, look after actors that are silent for too long.
        while True:
            ready = wait([actor.pipe for actor in self._actors], timeout=1.0)
            for index, actor in enumerate(self._actors):
                if actor.pipe in ready:
                    slot = self._answer(index)
                    if slot is not None:
                        self._held = index, slot
                        return index, self._slots[slot]
                    continue
                limit = self._timeout if actor.ready else self._start_timeout
                if time.monotonic() - actor.since > limit:
                    self._replace(index, f"has not {'answered' if actor.ready else 'begun'} for {limit:.0f} s")

    def _answer(self, index: int) -> int | None:
        actor = self._actors[index]
        try:
            answer = actor.pipe.recv()
        except (EOFError, OSError):
            actor.process.join(timeout=5)
            self._replace(index, f"died (exit code {actor.process.exitcode})")
            return None
        if isinstance(answer, str):
            raise WorkerError(f"actor {index} stopped: {answer}")
        if answer is None:
            actor.ready, actor.since = True, time.monotonic()
            return None
        actor.finished, actor.since = actor.finished + 1, time.monotonic()
        return answer

    def _replace(self, index: int, why: str) -> None:
        actor = self._actors[index]
        if not actor.finished:
            raise WorkerError(
                f"actor {index} {why} before its first unroll; run with --actors 0 to see the error in this process."
            )
        actor.process.kill()
        actor.pipe.close()
        self._progress.warn(f"actor {index} {why}; a new one takes its place, and its unfinished unroll is lost.")
        self._actors[index] = self._start(index, actor.life + 1)

    def _start(self, index: int, life: int) -> _ActorProcess:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_run_actor,
            args=(theirs, self._config, self._seed, index, life, self._layout, self._memory.name, self._weights),
            daemon=True,
        )
        process.start()
        theirs.close()
        actor = _ActorProcess(process, ours, life)
        for slot in range(index * SLOTS, (index + 1) * SLOTS):
            ours.send(slot)
        return actor

    def _ask(self, index: int, slot: int) -> None:
        with suppress(OSError):  # it died: `next` will see that, and its replacement is given all slots
            self._actors[index].pipe.send(slot)

    def state(self) -> dict[str, Any]:
        return {"life": max((actor.life for actor in self._actors), default=self._life)}

    def restore(self, state: dict[str, Any]) -> None:
        """Episodes under way are not brought back: actors begin new ones, with different seeds."""
        self._life = state.get("life", 0) + 1

    def close(self) -> None:
        for actor in self._actors:
            actor.pipe.close()
        for actor in self._actors:
            actor.process.join(timeout=2)
            actor.process.kill()
            actor.process.join()
        del self._slots
        self._memory.close()
        self._memory.unlink()
        self._weights.close(unlink=True)


def _run_actor(
    pipe: Connection,
    config: IMPALAConfig,
    seed: int,
    index: int,
    life: int,
    layout: dict[str, Any],
    memory_name: str,
    weights: SharedWeights,
) -> None:
    """What an actor's process does: fill the slots that the learner names, until it hangs up."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the learner, which ends its actors itself
    torch.set_num_threads(1)
    unrolls = SharedMemory(memory_name)
    bytes_each = sum(_aligned(shape, dtype) for shape, dtype in layout.values())
    actor = None
    try:
        actor = Actor(config, seed, index, life)
        pipe.send(None)  # ready
        while True:
            slot = pipe.recv()
            actor.play(weights.read(), _arrays(unrolls, layout, slot * bytes_each))
            pipe.send(slot)
    except (EOFError, OSError):
        pass
    except Exception as error:  # reported by the learner's process, whatever it is
        pipe.send(f"{type(error).__name__}: {error}")
    finally:
        if actor is not None:
            actor.close()
        weights.close()
        unrolls.close()


def _aligned(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes of an array, rounded up so that the next one starts on a cache line."""
    return -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64


def _arrays(memory: SharedMemory, layout: dict[str, Any], offset: int) -> Unroll:
    arrays = {}
    for name, (shape, dtype) in layout.items():
        arrays[name] = np.ndarray(shape, dtype, memory.buf, offset)
        offset += _aligned(shape, dtype)
    return arrays
