"""What every agent's training shares: its configuration, and the loop that logs, scores, checkpoints, stops and
resumes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rl_interp.core.agent import Agent
from rl_interp.core.device import computes_in_bf16
from rl_interp.core.envs import EnvConfig, make_vector
from rl_interp.core.envs.workers import WorkerError
from rl_interp.core.errors import NotFiniteError, UserError, require_numbers
from rl_interp.core.files import free_mib
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.progress import SILENT, Progress, Update
from rl_interp.core.read import reading
from rl_interp.core.rollout import Episodes, evaluate
from rl_interp.core.run import Run

_SHOWN = ("episode_return", "eval_return", "loss")
"""Figures shown beside the progress bar."""


class DivergedError(UserError):
    """Training produced a value that is not finite."""


@dataclass(frozen=True)
class TrainConfig:
    """What the configuration of every agent has; each agent adds its own fields and the defaults that suit it.

    A step is one environment step: one action in one environment, however many frames the emulator repeats it for.
    """

    env: EnvConfig
    """The environment and its conventions."""
    agent_steps: int
    """Environment steps to train for, over all environments."""
    num_envs: int
    """Environments stepped together."""
    log_every: int
    """Steps between lines of metrics."""
    checkpoint_every: int
    """Steps between checkpoints; 0 for one at the end only."""
    keep_checkpoints: int = 0
    """Checkpoints from the first step to the last of which the weights are kept, for `study training`; 0 for none."""
    keep_spacing: Literal["log", "even"] = "log"
    """How those lie: ever wider apart, or evenly."""
    eval_every: int = 0
    """Steps between evaluations; 0 for one at the end only."""
    eval_episodes: int = 30
    """Whole episodes per evaluation."""
    eval_epsilon: float = 0.0
    """Probability of a random action in evaluation; otherwise a policy is sampled from, and Q-values are maximised."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 autocast; `auto` uses it where the processor supports it, but not on vectors, whose numbers it rounds."""

    def __post_init__(self) -> None:
        require_numbers(
            self,
            at_least_1=("agent_steps", "num_envs", "log_every", "eval_episodes"),
            at_least_0=("checkpoint_every", "eval_every", "keep_checkpoints"),
            share=("eval_epsilon",),
        )
        if self.keep_spacing not in ("log", "even"):
            raise UserError(f"keep_spacing={self.keep_spacing!r} given; it is log or even.")

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose weights are kept: 0, and the others after learning starts and up to `agent_steps`; in `log`, from
        a 500th of these on."""
        if not self.keep_checkpoints:
            return []
        count, start = max(0, self.keep_checkpoints - 1), min(self.learning_starts_at, self.agent_steps)
        learns = self.agent_steps - start
        even = start + np.linspace(0, learns, count + 1)[1:]
        first = start + learns / 500
        steps = np.geomspace(first, self.agent_steps, count) if self.keep_spacing == "log" and count > 1 else even
        return [0, *sorted({round(step) for step in steps.tolist()} - {0})]

    @property
    def learning_starts_at(self) -> int:
        """Steps before the first update, in which the weights stay as they are."""
        return 0

    def computes_in_bf16(self, device: torch.device) -> bool:
        """Whether the agent's products are in bf16 on a device."""
        rounds = self.precision == "auto" and self.env.observation_kind == "vector"
        return computes_in_bf16("fp32" if rounds else self.precision, device)


class Training(Protocol):
    """The state of a run: everything that a checkpoint saves and a resumed run gets back."""

    @property
    def agent(self) -> Agent: ...

    @property
    def agent_steps(self) -> int: ...

    def advance(self) -> None:
        """Take some environment steps, and the updates that are due."""
        ...

    def metrics(self) -> dict[str, float]:
        """Figures since the last call."""
        ...

    def score(self) -> Episodes:
        """Evaluate the agent as it is; see the function `score`."""
        ...

    def state(self) -> dict[str, Any]:
        """All but the weights, as a tree of tensors, numbers, strings, lists and dicts."""
        ...

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any], source: Path) -> None: ...

    def continue_from(self, weights: Mapping[str, Tensor], agent_steps: int, source: Path) -> None:
        """Go on from weights alone, which is all that a shared run has."""
        ...

    def close(self) -> None: ...


def train_run(training: Training, config: TrainConfig, run: Run, progress: Progress = SILENT) -> Episodes:
    """Train `run` from its newest checkpoint, or from the start, until `config.agent_steps`.

    A run whose configuration has fewer steps is made longer: see `Run.extend`.

    A checkpoint that was shared without its training state gives the weights only; `metrics.jsonl` then
    says `restarted_from_weights` at its step.

    Returns:
        The final evaluation.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with a checkpoint written.
        DivergedError: the loss is not finite; no checkpoint is written.
        WorkerError: the process of an environment or an actor failed, with a checkpoint written.
        RunError: another command is writing the run, or the disk is full.
    """
    try:
        with run.writing(), _resumed(training, config, run):
            _require_room(training, config, run)
            if config.agent_steps > (before := run.config.get("agent_steps", config.agent_steps)):
                run.extend(config, before, config.agent_steps)  # only now, since a resume can be refused
            with progress.bar(f"Training {run.path.name}", config.agent_steps, "steps") as update:
                _advance(training, config, run, update)
                return training.score()
    finally:
        training.close()
        run.close()


def score(agent: Agent, config: TrainConfig, seed: int, num_envs: int = 16, workers: int = 0) -> Episodes:
    """Evaluate on whole episodes of the environment as it is scored (unclipped rewards, no curriculum).

    Args:
        seed: of the training; the episodes have the next one.
        num_envs: environments stepped together, at most.
        workers: see `make_vector`.
    """
    with closing(make_vector(config.env.scored, min(num_envs, config.eval_episodes), workers)) as env:
        return evaluate(agent, env, config.eval_episodes, seed=seed + 1, epsilon=config.eval_epsilon)


def restored_state(saved: Sequence[Tensor], like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """An agent's state `saved` in a checkpoint, on the devices of one that is `like` it.

    Raises:
        ValueError: its tensors are of other shapes or dtypes; where a checkpoint is read, its name is put before that.
    """
    have, want = ([(tuple(leaf.shape), leaf.dtype) for leaf in state] for state in (saved, like))
    if have != want:
        raise ValueError(f"the agent's state is {have}, where {want} is wanted")
    return tuple(leaf.to(other.device) for leaf, other in zip(saved, like, strict=True))


def check_finite(value: float, agent_steps: int, name: str = "the loss", rates: str = "learning_rate") -> None:
    """Raise `DivergedError` unless the value is finite; `rates` names the step sizes to lower."""
    if not np.isfinite(value):
        raise _diverged(value, agent_steps, name, rates)


def _diverged(value: float, agent_steps: int, name: str, rates: str) -> DivergedError:
    return DivergedError(
        f"{name} became {value} at step {agent_steps}; the last checkpoint is kept: lower {rates} and start a new run, "
        "or resume this one to see whether it happens again."
    )


@contextmanager
def _resumed(training: Training, config: TrainConfig, run: Run) -> Iterator[None]:
    """The training where the run's newest checkpoint left it; if values that are not finite come of it, the error
    names that checkpoint, which may hold them."""
    _resume(training, config, run)
    came_from = max(run.checkpoint_steps(), default=None)
    try:
        yield
    except (NotFiniteError, DivergedError) as error:
        if isinstance(error, NotFiniteError):
            error = _diverged(np.nan, training.agent_steps, "the agent's preferences", "the learning rate")
        if came_from is None:
            raise error from None
        checkpoint = run.path / "checkpoints" / str(came_from)
        raise DivergedError(f"{error} Training went on from {checkpoint}; if that is damaged, restore it.") from None


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


def _advance(training: Training, config: TrainConfig, run: Run, update: Update) -> None:
    started, started_at = time.perf_counter(), training.agent_steps
    shown: dict[str, float] = {}

    def log(values: dict[str, float]) -> None:
        run.log(training.agent_steps, values)
        shown.update({name: values[name] for name in _SHOWN if name in values})
        update(training.agent_steps, "  ".join(f"{name} {value:.3g}" for name, value in shown.items()))

    def log_metrics() -> None:
        rate = (training.agent_steps - started_at) / (time.perf_counter() - started)
        log(training.metrics() | {"steps_per_second": rate})

    kept_steps = config.kept_steps

    def keep(since: int) -> None:
        if any(since < step <= training.agent_steps for step in kept_steps):
            run.keep_weights(training.agent_steps, training.agent.state_dict())

    with graceful_stop() as stop:
        if not training.agent_steps:
            keep(-1)
        while training.agent_steps < config.agent_steps:
            before = training.agent_steps
            try:
                training.advance()
                now = training.agent_steps
                if _passes(before, now, config.eval_every):
                    scores = training.score()
                    log({"eval_return": float(scores.returns.mean())} | _numbers(scores.summary(config.env)))
            except WorkerError as error:
                # Nothing can be played any more, but what was learned is worth keeping.
                if not training.agent_steps:
                    raise
                if training.agent_steps not in run.checkpoint_steps():
                    log_metrics()
                raise WorkerError(f"{error} Training ended at {_saved(training, config, run)}") from error
            keep(before)
            saves = _passes(before, now, config.checkpoint_every)
            # Before a checkpoint too, which does not hold the figures that wait for their line.
            if stop or saves or _passes(before, now, config.log_every):
                log_metrics()
            if stop:
                raise Interrupted(f"stopped at {_saved(training, config, run)}")
            if saves:
                _save(training, run)
    if training.agent_steps not in run.checkpoint_steps():
        _save(training, run)


def _require_room(training: Training, config: TrainConfig, run: Run) -> None:
    """Refuse to begin what the disk has no room for at the end."""
    left = [step for step in config.kept_steps if step > training.agent_steps]
    need = 2 * len(left) * sum(weight.numel() for weight in training.agent.state_dict().values()) // 2**20
    if need > (free := free_mib(run.path)):
        raise UserError(
            f"{len(left)} checkpoints to keep need {need:,} MiB, and the disk of {run.path} has {free:,} MiB left; "
            "keep fewer, or free some."
        )


def _saved(training: Training, config: TrainConfig, run: Run) -> str:
    """Save what is not saved yet, and say where."""
    now = training.agent_steps
    path = run.path / "checkpoints" / str(now) if now in run.checkpoint_steps() else _save(training, run)
    return f"step {now} of {config.agent_steps}, saved in {path}; run the same command again to go on."


def _save(training: Training, run: Run) -> Path:
    return run.save_checkpoint(training.agent_steps, training.agent.state_dict(), training.state())


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if isinstance(value, float)}


def _passes(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never for 0."""
    return every > 0 and now // every > before // every
