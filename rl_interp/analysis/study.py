"""A study: the same training under several conditions and seeds, with a table, a plot, and the differences' intervals.

<study>/<agent>-<environment>-<condition>-seed<N>.json    one training's curve and final scores; small, to be kept
        training/<agent>-<environment>-<condition>-seed<N>/   its run directory
        result.json  table.md  curves.png

What is there already is not trained again, and what was stopped goes on from its checkpoint.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_interp.core import tables
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import write_json
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.locks import writing
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.read import numbers, read_json, require
from rl_interp.core.run import Run
from rl_interp.core.stats import bootstrap, iqm, plain, shown

_OWN_SCORES = ("crafter_score", "success_rate")
_PATIENCE = 120.0
"""Seconds for trainings of a study that was killed to save and end."""
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
"""Loaded here: between fork and exec nothing may be."""


@dataclass(frozen=True)
class Job:
    """One training of a study."""

    agent: str
    env: str
    condition: str
    seed: int
    command: tuple[str, ...]
    """What follows `rl-interp`, without --name."""

    @property
    def line(self) -> str:
        """The command as one types it."""
        return " ".join(("rl-interp", *self.command))

    @property
    def name(self) -> str:
        return f"{self.agent}-{short_name(self.env)}-{self.condition}-seed{self.seed}"


def short_name(env_id: str) -> str:
    """e.g. `unlock` of MiniGrid-Unlock-v0, `maze` of rl_interp/Maze-v0, `crafter` of CrafterReward-v1."""
    name = env_id.rpartition("/")[2].removeprefix("MiniGrid-").removesuffix("Reward-v1")
    return name.rpartition("-v")[0].lower() or "crafter"


def run_study(
    jobs: Sequence[Job], path: Path, parallel: int, progress: Callable[[float, str], None] = lambda done, note: None
) -> list[dict[str, Any]]:
    """Run the jobs that have no result yet, `parallel` at a time, each in a process of one thread.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, when every training has written its checkpoint.
        RunError: a training failed, and its own sentence is in the message; a result there is of another command; or
            another study is being written there.
    """
    with writing(path):
        _check_results(jobs, path)
        return _run_jobs(jobs, path, parallel, progress)


def _run_jobs(
    jobs: Sequence[Job], path: Path, parallel: int, progress: Callable[[float, str], None]
) -> list[dict[str, Any]]:
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
                progress(sum(done), f"{sum(share == 1 for share in done)} of {len(jobs)} trainings finished")
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.communicate()
        if stop:
            raise Interrupted("stopped, every training saved; run the same command again to go on.")
    return [_read_result(_result_path(path, job)) for job in jobs]


def _read_result(path: Path) -> dict[str, Any]:
    remedy = "remove the file to train again"
    result = read_json(path, remedy)
    kinds = {"evaluation": dict, "steps": list, "returns": list}
    require(result, path, remedy, agent=str, env=str, condition=str, command=str, **kinds)
    require(result["evaluation"], path, remedy, mean=float)
    for name in ("steps", "returns"):
        if result[name]:
            numbers(result, name, path, remedy)
    if len(result["steps"]) != len(result["returns"]):
        raise RunError(f"{path} has {len(result['steps'])} steps and {len(result['returns'])} returns; {remedy}.")
    return result


def _check_results(jobs: Sequence[Job], path: Path) -> None:
    """Raise `RunError` where the result of another training lies under a job's name."""
    for job in jobs:
        if not _result_path(path, job).exists():
            continue
        made_by = _read_result(_result_path(path, job))["command"]
        if made_by != job.line:
            raise RunError(
                f"{_result_path(path, job)} is the result of `{made_by}`, and `{job.line}` was asked for; give another "
                "--run, or move it away."
            )


def _next(waiting: Sequence[Job], path: Path, impatient: bool) -> Job | None:
    """The first training that nobody writes: one whose study was killed lives on until it has saved."""
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
    """In a new process, on Linux: when the thread that started it ends, as it does when its process is killed, get
    SIGTERM, so that a training saves and ends instead of going on with nobody to take its result."""
    if _LIBC:
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _finish(process: "subprocess.Popen[str]", job: Job, path: Path) -> None:
    out, err = process.communicate()
    if process.returncode:
        last = err.strip().splitlines()[-1:] or ["it said nothing"]
        raise RunError(f"training {job.name} failed (exit status {process.returncode}): {last[0]}")
    result, metrics = json.loads(out.splitlines()[-1]), Run.open(path / "training" / job.name).metrics()
    curve = [(line["step"], line["episode_return"]) for line in metrics if "episode_return" in line]
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
        },
    )


def _result_path(path: Path, job: Job) -> Path:
    return path / f"{job.name}.json"


def _share_done(job: Job, path: Path) -> float:
    """Share of a training that is done, by its last logged line."""
    if _result_path(path, job).exists():
        return 1.0
    run = path / "training" / job.name
    if not (run / "metrics.jsonl").exists():
        return 0.0
    try:
        logged, steps = Run(run).metrics(), Run(run).config["agent_steps"]
    except (RunError, KeyError):  # its own training, which is about to read it, says what is wrong
        return 0.0
    return min(0.99, logged[-1]["step"] / steps) if logged else 0.0


def compare(results: Sequence[dict[str, Any]], base: str) -> list[dict[str, Any]]:
    """Per agent, environment and condition: the IQM over seeds of the final return, with its 95% interval; and for each
    condition but `base` the difference to it, and whether its interval excludes zero; None for the intervals of too few
    seeds, and for what they would say."""
    rows: list[dict[str, Any]] = []
    for agent, env in _groups(results):
        evaluations = _evaluations(results, agent, env)
        if base not in evaluations:
            raise UserError(f"a study without the condition {base!r} has nothing to compare with.")
        scores = {name: np.array([each["mean"] for each in found]) for name, found in evaluations.items()}
        for name, values in scores.items():
            row = {"agent": agent, "env": env, "condition": name, "seeds": len(values)}
            row |= {"iqm": iqm(values), "interval": plain(bootstrap([values])), **_own_scores(evaluations[name])}
            if name != base:
                difference = bootstrap([values, scores[base]], lambda ours, theirs: iqm(ours) - iqm(theirs))
                row |= {"difference": difference.value, "difference_interval": plain(difference)}
                row["excludes_zero"] = difference.excludes_zero
            rows.append(row)
    return rows


def _groups(results: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Agents and environments, as they come."""
    return list(dict.fromkeys((result["agent"], result["env"]) for result in results))


def _evaluations(results: Sequence[dict[str, Any]], agent: str, env: str) -> dict[str, list[dict[str, Any]]]:
    """Condition to its seeds' evaluations."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if (result["agent"], result["env"]) == (agent, env):
            found.setdefault(result["condition"], []).append(result["evaluation"])
    return found


def _own_scores(evaluations: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The environment's own scores, averaged over seeds."""
    names = [name for name in _OWN_SCORES if name in evaluations[0]]
    return {name: float(np.mean([each[name] for each in evaluations])) for name in names}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison as a table."""
    own = [name for name in _OWN_SCORES if any(name in row for row in rows)]
    heads = ["agent", "environment", "condition", "seeds", "final return, IQM [95% interval]", "difference to base"]
    heads += ["excludes zero", *(name.replace("_", " ") for name in own)]
    table = []
    for row in rows:
        difference = excludes = ""
        if "difference" in row:
            difference = f"{row['difference']:+.3g} {shown(row['difference_interval'], '+.3g')}"
            excludes = {True: "yes", False: "no", None: "unknown"}[row["excludes_zero"]]
        score = f"{row['iqm']:.3g} {shown(row['interval'])}"
        cells = [row["agent"], row["env"], row["condition"], str(row["seeds"]), score, difference, excludes]
        table.append([*cells, *(f"{row[name]:.3g}" if name in row else "" for name in own)])
    return tables.markdown(heads, table)


def plot(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Training returns against environment steps: every seed a thin line, the mean over seeds a thick one."""
    from matplotlib.ticker import EngFormatter

    groups = _groups(results)
    colours = dict(
        zip(dict.fromkeys(r["condition"] for r in results), ("0.35", "tab:orange", "tab:blue"), strict=False)
    )
    figure, axes = new_figure(1, len(groups), 5.2 * len(groups), 3.6)
    for panel, (agent, env) in zip(axes[0], groups, strict=True):
        for condition, colour in colours.items():
            group = [r for r in results if (r["agent"], r["env"], r["condition"]) == (agent, env, condition)]
            curves = [r for r in group if r["steps"]]  # in a short training no episode may have ended
            if not curves:
                continue
            grid = np.linspace(0, max(r["steps"][-1] for r in curves), 200)
            every = np.array([np.interp(grid, r["steps"], _smooth(r["returns"])) for r in curves])
            panel.plot(grid, every.T, color=colour, linewidth=0.7, alpha=0.45)
            panel.plot(grid, every.mean(0), color=colour, linewidth=2, label=f"{condition} ({len(curves)} seeds)")
        panel.set(title=f"{agent}, {env}", xlabel="environment steps", ylabel="return of training episodes")
        panel.set_xlim(0, None)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))  # 5k, 1M
        low, high = panel.get_ylim()
        panel.set_ylim(low, max(high, low + 0.1))  # where nothing was learned the noise would fill the panel
        panel.legend(frameon=False, loc="best")
        panel.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def _smooth(values: Sequence[float], window: int = 5) -> np.ndarray:
    """Centred running mean, shorter at the ends."""
    padded = np.pad(np.asarray(values, float), window // 2, mode="edge")
    return np.convolve(padded, np.ones(window) / window, "valid")
