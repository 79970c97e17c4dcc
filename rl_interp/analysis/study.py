"""A study: the same training under several conditions and seeds, with a table, a plot, and the differences' intervals.

<study>/<agent>-<environment>-<condition>-seed<N>.json    one training's curve, scores, code and machine; worth keeping
        training/<agent>-<environment>-<condition>-seed<N>/   its run directory
        result.json  table.md  curves.png

A training that has a result is not repeated, and one that was stopped goes on from its checkpoint.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rl_interp.agents.load import load_agent, new_run_path
from rl_interp.analysis.mazes.goals import find_goals
from rl_interp.analysis.study_results import OWN_SCORES, compare, markdown, plot
from rl_interp.core.envs import env_config
from rl_interp.core.errors import RunError, at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.locks import writing
from rl_interp.core.progress import SILENT, Progress, Update
from rl_interp.core.read import numbers, read_json, require
from rl_interp.core.run import Run

MAZE = "rl_interp/Maze-v0"
_BASE = "base"
"""The condition that others are compared with."""
_EVAL_EPISODES = 100
_PATIENCE = 120.0
"""Seconds that the trainings of a killed study have to save and end."""
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
"""Loaded in advance, since nothing may be loaded between fork and exec."""


def cbet_study(
    name: str,
    agents: Sequence[str],
    envs: Sequence[str],
    seeds: int,
    agent_steps: int | None = None,
    coefficient: float = 0.005,
    key: Literal["exact", "simhash"] | None = None,
    parallel: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train with and without CBET, over seeds, and say whether it made a difference.

    Args:
        name: of the study under `runs/`, or its path.
        agents: impala, dreamerv3.
        envs: Gymnasium ids.
        seeds: trainings of each condition, with seeds 0, 1 and so on.
        agent_steps: of each; by default what suits the environment.
        coefficient: factor of the bonus.
        key: how observations are counted; by default as suits the environment.
        parallel: trainings at a time, one core each; by default as many as there are cores.

    Raises:
        Interrupted, RunError: see `run_study`.
    """
    bonus = ("--cbet.coefficient", str(coefficient), *(("--cbet.key", key) if key else ()))
    conditions = {_BASE: (), "cbet": bonus}
    return _comparison(name, plan(agents, envs, seeds, agent_steps, conditions), parallel, progress)


def transfer_study(
    name: str,
    explorer: Path | str,
    envs: Sequence[str],
    seeds: int,
    agent_steps: int | None = None,
    parallel: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train IMPALA from scratch and beside a pre-trained exploration policy, the run `explorer`, over seeds; see
    `cbet_study`."""
    conditions = {_BASE: (), "transfer": ("--explorer", str(Run.open(explorer).path))}
    return _comparison(name, plan(["impala"], envs, seeds, agent_steps, conditions), parallel, progress)


def maze_study(
    name: str,
    regions: Sequence[int],
    seeds: int,
    agent_steps: int | None = None,
    episodes: int = 1000,
    parallel: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train IMPALA in mazes with the cheese in regions of the top right, and find out what each agent pursues where the
    cheese can be anywhere: `find_goals`.

    Args:
        regions: cells along the region's side; 0 for anywhere.
        episodes: held-out mazes of each kind to play with each agent.
        name, seeds, agent_steps, parallel: see `cbet_study`.
    """
    at_least_one(regions=len(regions))
    conditions = {f"region{each}" if each else "anywhere": ("--env.region", str(each)) for each in regions}
    jobs, path = plan(["impala"], [MAZE], seeds, agent_steps, conditions), new_run_path(name)
    run_study(jobs, path, parallel, progress)
    agents = [load_agent(path / "training" / job.name) for job in jobs]
    return {"run": str(path), **find_goals(agents, episodes, folder=path, progress=progress)}


@dataclass(frozen=True)
class Job:
    """One training of a study: a command of the suite, run in its own process, so that it can be repeated alone."""

    agent: str
    env: str
    condition: str
    seed: int
    command: tuple[str, ...]
    """What follows `rl-interp`, without --name."""

    @property
    def line(self) -> str:
        """The command as typed."""
        return " ".join(("rl-interp", *self.command))

    @property
    def name(self) -> str:
        return f"{self.agent}-{short_name(self.env)}-{self.condition}-seed{self.seed}"


def short_name(env_id: str) -> str:
    """e.g. `unlock` of MiniGrid-Unlock-v0, `maze` of rl_interp/Maze-v0, `crafter` of CrafterReward-v1."""
    name = env_id.rpartition("/")[2].removeprefix("MiniGrid-").removesuffix("Reward-v1")
    return name.rpartition("-v")[0].lower() or "crafter"


def plan(
    agents: Sequence[str],
    envs: Sequence[str],
    seeds: int,
    agent_steps: int | None,
    conditions: Mapping[str, Sequence[str]],
) -> list[Job]:
    """Every training of a study, from conditions with their flags. Those of one seed follow one another, so that a
    study that is stopped can compare what it has."""
    for env in envs:
        env_config(env)  # an unknown one is refused before anything is trained
    return [
        Job(agent, env, condition, seed, (*_command(agent, env, seed, agent_steps), *flags))
        for agent in agents
        for env in envs
        for seed in range(seeds)
        for condition, flags in conditions.items()
    ]


def _command(agent: str, env: str, seed: int, agent_steps: int | None) -> tuple[str, ...]:
    command = ("train", agent, "--env", env, "--seed", str(seed), "--eval-episodes", str(_EVAL_EPISODES))
    if agent == "impala":
        command += ("--actors", "0")  # in one process, so that trainings share the cores and resume bit for bit
    if agent_steps is not None:
        command += ("--agent-steps", str(agent_steps), "--log-every", str(max(1, agent_steps // 150)))
    return command


def _comparison(name: str, jobs: Sequence[Job], parallel: int | None, progress: Progress) -> dict[str, Any]:
    path = new_run_path(name)
    results = run_study(jobs, path, parallel, progress)
    table = compare(results, _BASE)
    write_json(path / "result.json", table)
    write_text(path / "table.md", markdown(table))
    curves = plot(results, path / "curves.png")
    return {"run": str(path), "table": str(path / "table.md"), "plot": str(curves), "result": table}


def run_study(
    jobs: Sequence[Job], path: Path, parallel: int | None = None, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Run the jobs that have no result yet, `parallel` at a time, each in a process of one thread.

    Returns:
        The result of every job, in their order.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, once every training has written its checkpoint.
        RunError: a training failed, and its own sentence is in the message; a result there is of a different command;
            or a different study is being written there.
    """
    with writing(path), progress.bar(f"Study {path.name}", len(jobs), "trainings") as update:
        _check_results(jobs, path)
        return _run_jobs(jobs, path, parallel or os.cpu_count() or 1, update)


def _run_jobs(jobs: Sequence[Job], path: Path, parallel: int, update: Update) -> list[dict[str, Any]]:
    waiting = [job for job in jobs if not _result_path(path, job).exists()]
    running: dict[Job, subprocess.Popen[str]] = {}
    deadline = time.monotonic() + _PATIENCE
    with graceful_stop() as stop:
        try:
            while (waiting or running) and not stop:
                while len(running) < parallel and (job := _next(waiting, path, time.monotonic() > deadline)):
                    waiting.remove(job)
                    running[job] = _start(job, path)
                time.sleep(0.5)
                for job, process in list(running.items()):
                    if process.poll() is not None:
                        _finish(running.pop(job), job, path)
                done = [_share_done(job, path) for job in jobs]
                update(sum(done), f"{sum(share == 1 for share in done)} of {len(jobs)} trainings finished")
        finally:
            # Each saves its checkpoint and ends.
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.communicate()
        if stop:
            raise Interrupted("stopped, every training saved; run the same command again to go on.")
    return [_read_result(job, path) for job in jobs]


def _read_result(job: Job, directory: Path) -> dict[str, Any]:
    """A job's result.

    Raises:
        RunError: it is damaged, or is that of a different training, whose name is the same.
    """
    path, remedy = _result_path(directory, job), "remove the file to train again"
    result = read_json(path, remedy)
    kinds = {"evaluation": dict, "steps": list, "returns": list}
    require(result, path, remedy, agent=str, env=str, condition=str, command=str, **kinds)
    own = {name: float for name in OWN_SCORES if name in result["evaluation"]}
    require(result["evaluation"], path, remedy, mean=float, **own)
    for name in ("steps", "returns"):
        if result[name]:
            numbers(result, name, path, remedy)
    if len(result["steps"]) != len(result["returns"]):
        raise RunError(f"{path} has {len(result['steps'])} steps and {len(result['returns'])} returns; {remedy}.")
    if result["command"] != job.line:
        raise RunError(
            f"{path} is the result of `{result['command']}`, and `{job.line}` was asked for; give the study a "
            "different name, or move the file away."
        )
    for name in ("agent", "env", "condition"):
        if result[name] != (wanted := getattr(job, name)):
            raise RunError(f"{path} has {result[name]!r} for {name!r}, where its command says {wanted!r}; {remedy}.")
    return result


def _check_results(jobs: Sequence[Job], path: Path) -> None:
    """Raise `RunError` for the first result that there is and that can't be used; see `_read_result`."""
    for job in jobs:
        if _result_path(path, job).exists():
            _read_result(job, path)


def _next(waiting: Sequence[Job], path: Path, impatient: bool) -> Job | None:
    """The first training that no process is writing: one whose study was killed lives on until it has saved."""
    for job in waiting:
        with suppress(RunError):
            if not impatient:
                with writing(path / "training" / job.name):
                    pass
            return job
    return None


def _start(job: Job, path: Path) -> "subprocess.Popen[str]":
    run = str(path / "training" / job.name)
    return subprocess.Popen(
        [sys.executable, "-m", "rl_interp.app.cli", *job.command, "--name", run, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C reaches the study alone, which stops its trainings itself
        preexec_fn=stop_with_parent,
    )


def stop_with_parent() -> None:
    """In a new process, on Linux: get SIGTERM when the thread that started it ends, as it does when its process is
    killed, so that a training saves and ends instead of going on with nobody to take its result."""
    if _LIBC:
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _finish(process: "subprocess.Popen[str]", job: Job, path: Path) -> None:
    out, err = process.communicate()
    if process.returncode:
        last = err.strip().splitlines()[-1:] or ["it said nothing"]
        raise RunError(f"training {job.name} failed (exit status {process.returncode}): {last[0]}")
    result, run = json.loads(out.splitlines()[-1]), Run.open(path / "training" / job.name)
    curve = [(line["step"], line["episode_return"]) for line in run.metrics() if "episode_return" in line]
    write_json(
        _result_path(path, job),
        {
            "agent": job.agent,
            "env": job.env,
            "condition": job.condition,
            "seed": job.seed,
            "command": job.line,
            "steps": [step for step, _ in curve],
            "returns": [round(value, 4) for _, value in curve],
            "evaluation": result["evaluation"],
            "steps_per_second": result["steps_per_second"],
            # The same seed trains otherwise by other code and on other processors.
            **{name: run.meta.get(name) for name in ("versions", "git", "hardware")},
        },
    )


def _result_path(path: Path, job: Job) -> Path:
    return path / f"{job.name}.json"


def _share_done(job: Job, path: Path) -> float:
    """The share of a training that is done, by its last logged line."""
    if _result_path(path, job).exists():
        return 1.0
    run = path / "training" / job.name
    if not (run / "metrics.jsonl").exists():
        return 0.0
    try:
        logged, steps = Run(run).metrics(), Run(run).config["agent_steps"]
    except (RunError, KeyError):  # the training itself is about to read it, and says what is wrong
        return 0.0
    return min(0.99, logged[-1]["step"] / steps) if logged else 0.0
