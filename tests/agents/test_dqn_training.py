"""Training on the real game, small: schedules, resume, interruption, bad input."""

import os
import shutil
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from rl_interp.agents.dqn import DQNConfig, Training, make_agent, train
from rl_interp.agents.load import load_agent
from rl_interp.agents.loop import DivergedError
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.interrupt import Interrupted
from rl_interp.core.progress import Progress
from rl_interp.core.run import Run

SMALL = DQNConfig(
    agent_steps=600, num_envs=2, env_threads=1, batch_size=8, train_every=8, learning_starts=200, replay_capacity=2000,
    target_every=10, epsilon_steps=400, eval_every=0, eval_episodes=1, checkpoint_every=0, log_every=100,
)  # fmt: skip


def make(path, config=SMALL, seed=0):
    return Run.create(path, "dqn", config, seed)


@pytest.fixture(autouse=True)
def short_final_evaluation(monkeypatch):
    """The evaluation after training plays whole games; these tests are about the training before it."""
    monkeypatch.setattr("rl_interp.agents.dqn.training.Training.score", lambda self: None)


def test_training_counts_updates_and_logs(tmp_path):
    run = make(tmp_path / "run")
    train(SMALL, run, 0)
    assert run.checkpoint_steps() == [600]
    lines = run.metrics()
    assert [line["step"] for line in lines] == [100, 200, 300, 400, 500, 600]
    assert lines[-1]["updates"] == (600 - 200) // 8
    assert lines[1]["epsilon"] == pytest.approx(1 - 0.99 * 200 / 400)
    assert np.isfinite(lines[-1]["loss"])
    assert load_agent(run.path).agent.q.weight.shape == (9, 512)


TODAY = replace(SMALL, priority=0.6, dueling=True, rescale=True, clip_reward=False, reward_scale=0.1)


@pytest.mark.parametrize("config", [SMALL, replace(TODAY, final_learning_rate=0.0)])
def test_the_learner_resumes_exactly(tmp_path, config):
    """From a checkpoint, the same batches in the same order give the same weights to the last bit."""
    training = Training(config, 0, tmp_path / "replay")
    while training.agent_steps < 400:
        training.advance()
    run = make(tmp_path / "run", config)
    run.save_checkpoint(training.agent_steps, training.agent.state_dict(), training.state())
    resumed = Training(config, 0, shutil.copytree(tmp_path / "replay", tmp_path / "again"))
    resumed.restore(run.load_weights(), run.load_state(), run.path)
    assert resumed.agent_steps == 400
    for each in (training, resumed):
        for _ in range(5):
            batch = each.replay.sample(8, each.rng)
            each.learner.update(batch, each.agent_steps / config.agent_steps)
            each.replay.reprioritize(batch, each.learner.errors.numpy())
    for a, b in zip(training.agent.parameters(), resumed.agent.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(training.learner.target.parameters(), resumed.learner.target.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_step_size_falls_with_the_steps_that_are_left(tmp_path):
    training = Training(replace(SMALL, final_learning_rate=0.0), 0, tmp_path / "replay")
    sizes = []
    while training.agent_steps < SMALL.agent_steps:
        training.advance()
        sizes.append(training.learner.optimizer.param_groups[0]["lr"])
    assert sizes[0] == SMALL.learning_rate
    assert sizes[-1] == pytest.approx(SMALL.learning_rate * SMALL.train_every / SMALL.agent_steps)


def test_training_goes_on_from_weights_alone_with_a_value_and_advantages_of_these(tmp_path):
    training = Training(TODAY, 0, tmp_path / "replay")
    weights = {name: torch.randn_like(weight) * 0.01 for name, weight in training.agent.state_dict().items()}
    training.continue_from(weights, 100, tmp_path)
    while training.learner.updates < 3:
        training.advance()
    for name, weight in training.agent.state_dict().items():
        assert 0 < (weight - weights[name]).abs().max() < 3 * 3 * TODAY.learning_rate * 1.01, name


@pytest.mark.full
def test_a_run_shared_without_its_training_state_is_trained_on_from_its_weights(tmp_path):
    run = make(tmp_path / "run")
    train(SMALL, run, 0)
    shared = run.share(tmp_path / "shared")
    assert not shared.has_state(600)
    train(SMALL, shared, 0)  # it is finished: nothing to do, and nothing to say
    assert shared.metrics() == run.metrics()
    further = replace(SMALL, agent_steps=1200)
    train(further, shared, 0)
    assert {"step": 600, "restarted_from_weights": 1} in shared.metrics()
    assert shared.has_state(1200)
    first_update = next(line["step"] for line in shared.metrics() if line["step"] > 600 and line["updates"])
    assert first_update > 600 + SMALL.learning_starts, "the replay fills before learning goes on"


@pytest.mark.full
def test_a_signal_stops_with_a_checkpoint_from_which_training_goes_on(tmp_path):
    run = make(tmp_path / "run")

    class Stopping(Progress):
        @contextmanager
        def bar(self, title, total, unit):
            yield lambda done, note: done >= 300 and os.kill(os.getpid(), signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(Interrupted, match=r"stopped at step 30\d of 600, saved in .*; run the same command again"):
        train(SMALL, run, 0, progress=Stopping())
    assert len(run.checkpoint_steps()) == 1
    train(SMALL, run, 0)
    assert run.checkpoint_steps()[-1] == 600
    assert [line["step"] for line in run.metrics()] == [100, 200, 300, 400, 500, 600]


def test_an_agent_that_diverged_between_two_looks_at_the_loss_stops_as_well(tmp_path, monkeypatch):
    run = make(tmp_path / "run")

    def diverge(self, *given):
        with torch.no_grad():
            self.agent.q.bias.fill_(float("nan"))
        return torch.tensor(0.0)

    monkeypatch.setattr("rl_interp.agents.dqn.training.Learner.update", diverge)
    with pytest.raises(DivergedError, match="the agent's preferences became nan at step .*; the last checkpoint"):
        train(SMALL, run, 0)
    assert run.checkpoint_steps() == []


def test_a_diverged_loss_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    run = make(tmp_path / "run")
    monkeypatch.setattr("rl_interp.agents.dqn.training.Learner.update", lambda self, *given: torch.tensor(float("inf")))
    with pytest.raises(DivergedError, match="the loss became inf at step 300"):
        train(SMALL, run, 0)
    assert run.checkpoint_steps() == []


def test_values_of_an_explorer_on_another_scale_are_refused(tmp_path):
    run = make(tmp_path / "explorer", TODAY)
    with pytest.raises(UserError, match=r"rescale=True, and this run has rescale=False; .* give --rescale"):
        make_agent(replace(SMALL, explorer=str(run.path)))


def test_weights_of_another_stack_are_refused(tmp_path):
    run = make(tmp_path / "run")
    run.save_checkpoint(1, {k: v for k, v in Training(SMALL, 0, None).agent.state_dict().items() if k != "q.bias"})
    with pytest.raises(RunError, match="a different architecture: 'q.bias' is nothing there"):
        load_agent(run.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_step": 0}, "n_step=0 given; it must be at least 1"),
        ({"gamma": 1.5}, r"gamma=1.5 given; it must lie in \[0, 1\]"),
        ({"learning_starts": 10}, "need more than"),
    ],
)
def test_a_config_is_checked_at_construction(change, message):
    with pytest.raises(UserError, match=message):
        DQNConfig(**change)
