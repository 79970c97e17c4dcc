"""Small writers killed at every thing that they do to a file; `make kill` does it to whole commands, at random."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from processes import die, end, killed, killed_at
from torch import nn

from rl_interp.agents.loop import train_run
from rl_interp.analysis import study
from rl_interp.analysis.demo import _clear
from rl_interp.analysis.study import stop_with_parent
from rl_interp.core.files import write_json
from rl_interp.core.locks import writing
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore, StoreWriter

CONFIG = SimpleNamespace(agent_steps=20, eval_every=0, checkpoint_every=5, log_every=2, env=None, kept_steps=[])


class Counting:
    """A decision at a time, each of which moves a weight."""

    def __init__(self):
        torch.manual_seed(0)
        self.agent, self.agent_steps, self.waiting = nn.Linear(1, 1), 0, 0

    def advance(self):
        self.agent_steps += 1
        self.waiting += 1
        with torch.no_grad():
            self.agent.weight.mul_(1.1).add_(self.agent_steps)

    def metrics(self):
        waiting, self.waiting = self.waiting, 0
        return {"steps_since": float(waiting)}

    def score(self):
        return Episodes(np.zeros(1), np.zeros(1, int), {})

    def state(self):
        return {"agent_steps": self.agent_steps}

    def restore(self, weights, state, source):
        self.agent.load_state_dict(weights)
        self.agent_steps = state["agent_steps"]

    def close(self):
        pass


def train(path):
    run = Run.open(path) if Run(path).checkpoint_steps() else Run.create(path, "counting", {}, 0)
    train_run(Counting(), CONFIG, run)
    return run


@pytest.mark.parametrize("first", range(3))
def test_a_training_goes_on_wherever_it_was_killed(tmp_path, first):
    whole, operation, kills = train(tmp_path / "whole"), first, 0
    while killed_at(operation, path := tmp_path / f"run{operation}", lambda path=path: train(path)):
        for step in Run(path).checkpoint_steps():
            Run(path).checkpoint(step)
        killed_at(operation + 20, path, lambda path=path: train(path))
        run = train(path)
        assert torch.equal(run.load_weights()["weight"], whole.load_weights()["weight"])
        assert [line["step"] for line in run.metrics()] == sorted({*range(2, 21, 2), *range(5, 21, 5)})
        assert sum(line["steps_since"] for line in run.metrics()) == 20, "no figure is lost, none counted twice"
        assert not list(tmp_path.rglob(".*"))
        operation, kills = operation + 37, kills + 1
    assert kills > 3


@pytest.mark.parametrize("first", range(2))
def test_a_store_is_the_old_one_or_the_new_wherever_its_writer_was_killed(tmp_path, first):
    def write(value):
        with StoreWriter(tmp_path / "store", "fc", {}, shard_rows=4) as writer:
            for _ in range(3):
                writer.append(np.full((4, 2), value, np.float32), {"episode": np.arange(4)})

    write(1)
    operation, kills = first, 0
    while killed_at(operation, tmp_path, lambda: write(2)):
        assert Path(tmp_path / "store" / "manifest.json").is_file()
        assert set(ActivationStore(tmp_path / "store").read(np.arange(12)).flat) in ({1.0}, {2.0})
        with writing(tmp_path / "store"):
            assert [each.name for each in tmp_path.iterdir()] in (["store", ".store.lock"], [".store.lock", "store"])
        operation, kills = operation + 2, kills + 1
    assert kills > 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_study_that_is_killed_takes_its_trainings_with_it():
    theirs, ours = os.pipe()

    def studies():
        training = subprocess.Popen(["sleep", "60"], start_new_session=True, preexec_fn=stop_with_parent)
        os.write(ours, str(training.pid).encode())
        die()

    killed(studies)
    training, deadline = int(os.read(theirs, 20)), time.monotonic() + 10
    while is_running(training):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_demo_can_be_run_again_wherever_it_was_killed(tmp_path):
    """While it fits or collects, or while it empties what an earlier one left."""

    def make(path):
        _clear(path)
        (path / "report.html").touch()
        with writing(path / "activations" / "fc.post"), writing(path / "sae"):
            write_json(path / "sae" / "config.yaml", {})
            die()

    for operation in itertools.count(0, 5):
        path = tmp_path / f"demo{operation}"
        killed(lambda path=path: make(path))
        assert (path / ".sae.lock").exists()
        came_to_it = killed_at(operation, path, lambda path=path: _clear(path))
        with writing(path):
            _clear(path)
        assert [each.name for each in path.iterdir()] == ["demo.json"]
        if not came_to_it:
            break
    assert operation > 20


def test_a_study_waits_until_the_trainings_of_a_killed_one_have_saved(tmp_path, monkeypatch, holder):
    jobs = [study.Job("impala", "E-v0", "base", seed, ("train",)) for seed in range(2)]
    orphan, started = holder(tmp_path / "training" / jobs[0].name), []

    def start(job, path):
        with writing(path / "training" / job.name):  # as the training does
            started.append(job)
        if job is jobs[1]:
            end(orphan)
        return subprocess.Popen(["true"])

    def finish(_, job, path):
        result = {"agent": job.agent, "env": job.env, "condition": job.condition, "command": job.line}
        result |= {"steps": [], "returns": [], "evaluation": {"mean": 1.0}}
        write_json(path / f"{job.name}.json", result)

    monkeypatch.setattr(study, "_start", start)
    monkeypatch.setattr(study, "_finish", finish)
    assert len(study.run_study(jobs, tmp_path, parallel=1)) == 2
    assert started == jobs[::-1], "the one that is free first"


def is_running(process):
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
