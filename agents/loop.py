"""The loop around every agent's training: log, evaluate, checkpoint, stop cleanly, resume."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from rl_interp.core.agent import Agent
from rl_interp.core.envs import EnvConfig
from rl_interp.core.envs.workers import WorkerError
from rl_interp.core.errors import NotFiniteError, UserError
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.read import reading
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run

Report = Callable[[int, dict[str, float]], None]


class DivergedError(UserError):
    """Training produced a value that is not finite."""


class TrainConfig(Protocol):
    """What every agent's configuration has."""

    @property
    def env(self) -> EnvConfig: ...

    @property
    def agent_steps(self) -> int: ...

    @property
    def eval_every(self) -> int: ...

    @property
    def eval_episodes(self) -> int: ...

    @property
    def eval_epsilon(self) -> float: ...

    @property
    def checkpoint_every(self) -> int: ...

    @property
    def log_every(self) -> int: ...


class Training(Protocol):
    """The state of a run: everything that a checkpoint saves and a resume brings back."""

    @property
    def agent(self) -> Agent: ...

    @property
    def agent_steps(self) -> int: ...

    def advance(self) -> None:
        """Take some decisions, and the updates that are due."""
        ...

    def metrics(self) -> dict[str, float]:
        """Figures since the last call."""
        ...

    def score(self) -> Episodes:
        """Evaluate the agent as it is."""
        ...

    def state(self) -> dict[str, Any]:
        """All but the weights, as a tree of tensors, numbers, strings, lists and dicts."""
        ...

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any], source: Path) -> None: ...

    def continue_from(self, weights: Mapping[str, Tensor], agent_steps: int, source: Path) -> None:
        """Go on from weights alone, which is all that a shared run has."""
        ...

    def close(self) -> None: ...


def train_run(
    training: Training, config: TrainConfig, run: Run, report: Report = lambda step, values: None
) -> Episodes:
    """Train `run` from its newest checkpoint, or from the start, until `config.agent_steps`.

    A run whose configuration says fewer decisions is made longer: see `Run.extend`.

    A checkpoint that was shared without its training state gives the weights only; `metrics.jsonl` then
    says `restarted_from_weights` at its step.

    `report(agent_steps, metrics)` is called at each logged line. Returns the final evaluation.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with a checkpoint written.
        DivergedError: the loss is not finite; no checkpoint is written.
        WorkerError: an environment's or an actor's process ended it, with a checkpoint written.
        RunError: another command is writing the run, or the disk is full.
    """
    try:
        with run.writing():
            _resume(training, config, run)
            if config.agent_steps > (before := run.config.get("agent_steps", config.agent_steps)):
                run.extend(config, before, config.agent_steps)  # not before it is known that it can go on
            try:
                _advance(training, config, run, report)
                return training.score()
            except NotFiniteError:
                check_finite(np.nan, training.agent_steps, "the agent's preferences", "the learning rate")
                raise
    finally:
        training.close()
        run.close()


def _resume(training: Training, config: TrainConfig, run: Run) -> None:
    step = max(run.checkpoint_steps(), default=None)
    run.rewind(step)
    if step is None:
        return
    if run.has_state(step):
        with reading(run.path / "checkpoints" / str(step), "use another checkpoint", "does not fit the training"):
            training.restore(run.load_weights(step), run.load_state(step), run.path)
        return
    training.continue_from(run.load_weights(step), step, run.path)
    restart = {"step": step, "restarted_from_weights": 1}
    if step < config.agent_steps and restart not in run.metrics():
        run.log(step, {"restarted_from_weights": 1})


def _advance(training: Training, config: TrainConfig, run: Run, report: Report) -> None:
    started, started_at = time.perf_counter(), training.agent_steps

    def log(values: dict[str, float]) -> None:
        run.log(training.agent_steps, values)
        report(training.agent_steps, values)

    def log_metrics() -> None:
        rate = (training.agent_steps - started_at) / (time.perf_counter() - started)
        log(training.metrics() | {"steps_per_second": rate})

    with graceful_stop() as stop:
        while training.agent_steps < config.agent_steps:
            before = training.agent_steps
            try:
                training.advance()
                now = training.agent_steps
                if _passes(before, now, config.eval_every):
                    scores = training.score()
                    log({"eval_return": float(scores.returns.mean())} | _numbers(scores.summary(config.env)))
            except WorkerError as error:  # processes that play end the training: what was learned is saved first
                if not training.agent_steps:
                    raise
                if training.agent_steps not in run.checkpoint_steps():
                    log_metrics()
                raise WorkerError(f"{error} Training ended at {_saved(training, config, run)}") from error
            saves = _passes(before, now, config.checkpoint_every)
            if stop or saves or _passes(before, now, config.log_every):  # a checkpoint has no figures that wait
                log_metrics()
            if stop:
                raise Interrupted(f"stopped at {_saved(training, config, run)}")
            if saves:
                _save(training, run)
    if training.agent_steps not in run.checkpoint_steps():
        _save(training, run)


def _saved(training: Training, config: TrainConfig, run: Run) -> str:
    """Save what is not saved yet, and say where."""
    now = training.agent_steps
    path = run.path / "checkpoints" / str(now) if now in run.checkpoint_steps() else _save(training, run)
    return f"decision {now} of {config.agent_steps}, saved in {path}; run the same command again to go on."


def _save(training: Training, run: Run) -> Path:
    return run.save_checkpoint(training.agent_steps, training.agent.state_dict(), training.state())


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if isinstance(value, float)}


def check_finite(value: float, agent_steps: int, name: str = "the loss", rates: str = "learning_rate") -> None:
    """Raise `DivergedError` unless the value is finite; `rates` names the step sizes to lower."""
    if not np.isfinite(value):
        raise DivergedError(
            f"{name} became {value} at decision {agent_steps}; the last checkpoint is kept: lower {rates} and start a "
            "new run, or resume this one to see whether it happens again."
        )


def _passes(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never for 0."""
    return every > 0 and now // every > before // every
