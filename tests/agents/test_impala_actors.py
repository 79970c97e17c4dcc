"""Actors in processes of their own: what they play with, and what becomes of those that hang or die."""

import os
import pickle
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rl_interp.agents.impala import IMPALAConfig, make_agent
from rl_interp.agents.impala.actor import flat_weights
from rl_interp.agents.impala.actor_pool import ProcessActorPool, SharedWeights
from rl_interp.core.envs import MiniGridConfig
from rl_interp.core.envs.workers import WorkerError

SMALL = IMPALAConfig(
    env=MiniGridConfig("MiniGrid-Empty-5x5-v0"), num_envs=4, unroll=10, hidden=16, lstm=16, precision="fp32"
)


@pytest.mark.full
def test_actor_processes_play_with_the_weights_given_and_are_replaced_when_they_die(taken_log_probs, heard):
    torch.manual_seed(0)
    agent = make_agent(SMALL)
    actors = ProcessActorPool(SMALL, 0, agent, count=2, progress=heard)
    try:
        actors.publish(flat_weights(agent))
        seen = set()
        while len(seen) < 2:
            index, unroll = actors.next()
            seen.add(index)
        np.testing.assert_allclose(unroll["log_probs"], taken_log_probs(agent, unroll), atol=1e-5)
        os.kill(actors._actors[0].process.pid, signal.SIGKILL)
        while actors._actors[0].life == 0 or actors._actors[0].finished == 0:
            actors.next()
        assert heard.warnings == [
            "actor 0 died (exit code -9); a new one takes its place, and its unfinished unroll is lost."
        ]
    finally:
        actors.close()


@pytest.mark.full
def test_an_actor_that_hangs_is_replaced(heard):
    agent = make_agent(SMALL)
    actors = ProcessActorPool(SMALL, 0, agent, count=1, timeout=20.0, progress=heard)
    try:
        actors.publish(flat_weights(agent))
        actors.next()
        os.kill(actors._actors[0].process.pid, signal.SIGSTOP)
        actors._timeout = 1.0
        replace_one = actors._replace

        def replaced(index, why):
            replace_one(index, why)
            actors._timeout = 60.0  # the new one's first unroll takes longer

        actors._replace = replaced
        while actors._actors[0].life == 0 or actors._actors[0].finished == 0:
            actors.next()
        assert "has not answered for 1 s" in heard.warnings[0]
    finally:
        actors.close()


@pytest.mark.full
def test_the_time_that_an_actor_takes_to_start_does_not_count_as_silence(monkeypatch):
    agent = make_agent(SMALL)
    actors = ProcessActorPool(SMALL, 0, agent, count=1, timeout=60.0)
    try:
        actors.publish(flat_weights(agent))
        process = actors._actors[0].process.pid
        os.kill(process, signal.SIGSTOP)  # in the middle of its imports
        later = time.monotonic() + 100
        monkeypatch.setattr("rl_interp.agents.impala.actor_pool.time", SimpleNamespace(monotonic=lambda: later))
        threading.Timer(1.5, os.kill, (process, signal.SIGCONT)).start()
        assert actors.next()[0] == 0
    finally:
        actors.close()


def test_an_actor_that_never_begins_ends_the_training():
    agent = make_agent(SMALL)
    actors = ProcessActorPool(SMALL, 0, agent, count=1, start_timeout=0.0)
    try:
        actors.publish(flat_weights(agent))
        os.kill(actors._actors[0].process.pid, signal.SIGSTOP)
        with pytest.raises(WorkerError, match=r"actor 0 has not begun for 0 s before its first unroll"):
            actors.next()
    finally:
        actors.close()


def test_weights_that_are_read_while_others_are_written_are_of_one_version():
    size = 1 << 18
    ours = SharedWeights(size)
    theirs, versions = pickle.loads(pickle.dumps(ours)), []
    ours.write(np.zeros(size, np.float32))
    done = threading.Event()

    def read():
        while not done.is_set():
            versions.append(np.unique(theirs.read()))

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(1, 2000):
        ours.write(np.full(size, version, np.float32))
    done.set()
    reader.join()
    theirs.close()
    ours.close(unlink=True)
    assert all(len(seen) == 1 for seen in versions)
    assert len({float(seen[0]) for seen in versions}) > 5
