"""Training an agent as a run: made or resumed, trained to its end, and scored."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rl_interp.agents.dqn import DQNConfig
from rl_interp.agents.impala import IMPALAConfig
from rl_interp.agents.load import agent_package, load_config, new_run_path
from rl_interp.agents.loop import TrainConfig
from rl_interp.analysis.playing import scores_json
from rl_interp.core.config import differences
from rl_interp.core.errors import RunError
from rl_interp.core.locks import writing
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.run import Run


def train_agent(
    kind: str,
    config: TrainConfig,
    seed: int = 0,
    name: str | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
    **options: Any,
) -> dict[str, Any]:
    """Train an agent, from the start or from where its run stands.

    Args:
        kind: dqn, impala or dreamerv3.
        seed: of everything random.
        name: of the run under `runs/`, or its path; by default made of agent, environment and seed.
        device: to learn on.
        options: what the agent's own `train` takes besides, such as IMPALA's `actors` and `ray_address`.

    Returns:
        The run's path, steps, updates and speed, and the final evaluation.

    Raises:
        RunError: the run is of a different kind, seed or configuration, or longer; or a command is writing it.
        Interrupted, DivergedError, WorkerError: see `agents.loop.train_run`.
    """
    _ = config.env.action_names  # an unknown environment is refused before a run is made for it
    path = new_run_path(name or default_name(kind, config, seed))
    with writing(path):
        run = _open_or_create(path, kind, config, seed, progress)
        started, before = time.perf_counter(), max(run.checkpoint_steps(), default=0)
        scores = agent_package(kind).train(config, run, seed, device, progress, **options)
        newest = run.newest_step()
        return {
            "run": str(path),
            "agent_steps": newest,
            "env_frames": newest * config.env.frames_per_step,
            # A run shared without its training state does not say how many there were.
            "updates": run.load_state(newest)["learner"]["updates"] if run.has_state(newest) else None,
            "steps_per_second": (newest - before) / (time.perf_counter() - started),
            "evaluation": scores_json(scores, config.env.scored, seed + 1, config.eval_epsilon),
        }


def default_name(kind: str, config: TrainConfig, seed: int) -> str:
    """e.g. `dqn-mspacman-seed0`, `impala-minigrid-unlock-cbet-seed3`."""
    task = config.env.id.rpartition("/")[2].lower().replace(",", "+").replace(".py:", "-").replace(":", "-")
    task = re.sub(r"-v\d+", "", task)
    kinds = [word for word in ("cbet", "pretrain", "explorer") if getattr(config, word, None)]
    if winners := getattr(config, "self_ablation", 0):
        kinds.append(f"ablation{winners}")
    return "-".join([kind, task, *kinds, f"seed{seed}"])


def _open_or_create(path: Path, kind: str, config: TrainConfig, seed: int, progress: Progress) -> Run:
    if not Run(path).checkpoint_steps():
        if (path / "meta.json").exists():
            progress.warn(f"{path} was begun before and has no checkpoint; it begins anew.")
        return Run.create(path, kind, config, seed)
    run = Run.open(path)
    # The same training, but for its length: anything else would mix two configurations in one run.
    _require_same(path, {name: run.meta[name] for name in ("kind", "seed")}, {"kind": kind, "seed": seed})
    theirs = load_config(run)
    _require_same(path, replace(theirs, agent_steps=config.agent_steps), config)
    if config.agent_steps < theirs.agent_steps:
        raise RunError(
            f"{path} is trained for {theirs.agent_steps} steps, and --agent-steps {config.agent_steps} was given; a "
            "run can be made longer, not shorter: give a different name."
        )
    if config.agent_steps > theirs.agent_steps:
        progress.warn(_made_longer(run, theirs, config))
    return run


def _require_same(path: Path, recorded: Any, given: Any) -> None:
    if other := differences(recorded, given):
        raise RunError(
            f"{path} already holds a run of which {other} (all settings are in its config.yaml); repeat that run's "
            "flags to resume it, or give a different name."
        )


def _made_longer(run: Run, before: TrainConfig, config: TrainConfig) -> str:
    sentence = f"{run.path} is made longer, from {before.agent_steps} to {config.agent_steps} steps."
    # Of the schedules, only that of the step size depends on the run's length.
    if isinstance(before, IMPALAConfig | DQNConfig) and isinstance(config, IMPALAConfig | DQNConfig):
        at = run.newest_step()
        rates = [each.step_size(at / each.agent_steps) for each in (before, config)]
        if rates[0] != rates[1]:
            sentence += (
                f" Its step size falls to {config.step_size(1):g} at the last step, so that at step {at} it now is "
                f"{rates[1]:.3g} instead of {rates[0]:.3g}."
            )
    return sentence
