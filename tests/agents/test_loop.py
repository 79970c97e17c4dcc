"""The loop around every agent's training, on one that only counts: kills, restarts, two at once, dying actors."""

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from rl_interp.agents.dqn import DQNConfig
from rl_interp.agents.loop import TrainConfig, train_run
from rl_interp.core.envs.workers import WorkerError
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.locks import writing
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run


@dataclass(frozen=True)
class Env:
    def summary(self, returns, last):
        return {}


@dataclass(frozen=True)
class Config(TrainConfig):
    env: Env = Env()
    agent_steps: int = 100
    num_envs: int = 1
    log_every: int = 10
    checkpoint_every: int = 40
    eval_every: int = 30


class Counting:
    """Five steps at a time; `end` maps a step to what happens when it is reached."""

    def __init__(self, end=None):
        self.agent, self.agent_steps, self.end = nn.Linear(1, 1), 0, end or {}

    def advance(self):
        if self.agent_steps in self.end:
            raise self.end[self.agent_steps]
        self.agent_steps += 5

    def metrics(self):
        return {"steps": float(self.agent_steps)}

    def score(self):
        return Episodes(np.array([float(self.agent_steps)]), np.array([1]), {})

    def state(self):
        return {"agent_steps": self.agent_steps}

    def restore(self, weights, state, source):
        self.agent_steps = state["agent_steps"]

    def continue_from(self, weights, agent_steps, source):
        self.agent_steps = agent_steps

    def close(self):
        pass


class Refusing(Counting):
    def restore(self, weights, state, source):
        raise ValueError("it has wrapped around")


class Killed(BaseException):
    pass


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", "counting", {}, 0)


def figures(run):
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in run.metrics()]


@pytest.mark.parametrize("at", [5, 35, 40, 45, 95])
def test_a_run_that_is_killed_logs_no_line_twice_wherever_it_was(run, tmp_path, at):
    whole = Run.create(tmp_path / "whole", "counting", {}, 0)
    train_run(Counting(), Config(), whole)
    for _ in range(2):
        with pytest.raises(Killed):
            train_run(Counting({at: Killed()}), Config(), Run(run.path))
    train_run(Counting(), Config(), Run(run.path))
    assert figures(run) == figures(whole)
    assert run.checkpoint_steps() == whole.checkpoint_steps()


def test_a_run_restarted_from_weights_and_killed_says_so_once(run, tmp_path):
    run.save_checkpoint(40, {"w": torch.zeros(1)})
    for end in ({60: Killed()}, {65: Killed()}):
        with pytest.raises(Killed):
            train_run(Counting(end), Config(), Run(run.path))
    train_run(Counting(), Config(), Run(run.path))
    assert [line["step"] for line in run.metrics() if "restarted_from_weights" in line] == [40]
    assert [line["step"] for line in run.metrics() if "steps" in line] == [50, 60, 70, 80, 90, 100]


@pytest.mark.parametrize("at", [15, 40, 75])
def test_what_was_learned_is_saved_before_a_dead_actor_ends_the_training(run, at):
    saved = rf" Training ended at step {at} of 100, saved in .*run/checkpoints/{at}; run the same command"
    with pytest.raises(WorkerError, match=rf"actor 1 died\.{saved}"):
        train_run(Counting({at: WorkerError("actor 1 died.")}), Config(), Run(run.path))
    assert run.checkpoint_steps()[-1] == at
    train_run(Counting(), Config(), Run(run.path))
    logged = [line["step"] for line in run.metrics() if "steps" in line]
    assert logged == sorted({at, *range(10, 101, 10)}), "nor are the figures since the last line lost"


def test_a_training_that_is_refused_is_not_made_longer(tmp_path):
    run = Run.create(tmp_path / "run", "counting", {"agent_steps": 50}, 0)
    train_run(Counting(), Config(agent_steps=50), run)
    with pytest.raises(RunError, match="does not fit the training"):
        train_run(Refusing(), Config(), run)
    assert run.config == {"agent_steps": 50}
    train_run(Counting(), Config(), run)
    assert run.config["agent_steps"] == run.checkpoint_steps()[-1] == 100
    assert [(each["from"], each["to"], each["at"]) for each in run.meta["extended"]] == [(50, 100, 50)]


def test_a_training_whose_actors_never_began_has_nothing_to_save(run):
    with pytest.raises(WorkerError, match=r"^actor 0 died\.$"):
        train_run(Counting({0: WorkerError("actor 0 died.")}), Config(), Run(run.path))
    assert not run.checkpoint_steps()


def test_a_run_that_another_command_writes_is_left_alone(run):
    before = sorted(run.path.rglob("*"))
    with writing(run.path):
        refused = []

        def second():
            with pytest.raises(RunError, match="is being written by another command") as error:
                train_run(Counting(), Config(), Run(run.path))
            refused.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused
    assert sorted(run.path.rglob("*")) == before


def test_weights_are_kept_along_the_way_and_those_after_a_resume_are_written_again(run):
    config = Config(keep_checkpoints=4)
    assert config.kept_steps == [0, 4, 100]
    with pytest.raises(WorkerError):
        train_run(Counting(end={60: WorkerError("died")}), config, run)
    run.keep_weights(80, nn.Linear(1, 1).state_dict())
    train_run(Counting(), config, run)
    assert run.history_steps() == [0, 5, 100]
    assert run.weights(5).load()["weight"].dtype == torch.float32
    even = Config(keep_checkpoints=5, keep_spacing="even")
    assert even.kept_steps == [0, 25, 50, 75, 100]


def test_no_weights_are_kept_between_the_first_step_and_the_first_update():
    config = DQNConfig(agent_steps=120_000, learning_starts=20_000, keep_checkpoints=3)
    assert config.kept_steps == [0, 20_200, 120_000]
    assert replace(config, keep_spacing="even").kept_steps == [0, 70_000, 120_000]
    assert replace(config, agent_steps=10_000).kept_steps == [0, 10_000]


def test_more_to_keep_than_the_disk_has_room_for_is_refused_at_once(run, monkeypatch):
    monkeypatch.setattr("rl_interp.agents.loop.free_mib", lambda path: -1)
    with pytest.raises(UserError, match="2 checkpoints to keep need 0 MiB, and the disk of .* has -1 MiB left"):
        train_run(Counting(), Config(keep_checkpoints=4), run)
