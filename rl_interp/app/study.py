"""A study: the same training under several conditions and seeds, with a table, a plot, and the differences' intervals.

<study>/<environment>-<condition>-seed<N>.json    one training's curve and final scores; small, to be kept
        training/<environment>-<condition>-seed<N>/   its run directory
        result.json  table.md  curves.png

What is there already is not trained again, and what was stopped goes on from its checkpoint.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import atomic_path, write_json
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.run import Run
from rl_interp.core.stats import bootstrap, iqm


@dataclass(frozen=True)
class Job:
    """One training of a study."""

    env: str
    condition: str
    seed: int
    command: tuple[str, ...]
    """What follows `rl-interp`, without --run."""

    @property
    def name(self) -> str:
        return f"{short_name(self.env)}-{self.condition}-seed{self.seed}"


def short_name(env_id: str) -> str:
    """e.g. `unlock` of MiniGrid-Unlock-v0, `crafter` of CrafterReward-v1."""
    return env_id.removeprefix("MiniGrid-").removesuffix("Reward-v1").rpartition("-v")[0].lower() or "crafter"


def run_study(
    jobs: Sequence[Job], path: Path, parallel: int, progress: Callable[[float, str], None] = lambda done, note: None
) -> list[dict[str, Any]]:
    """Run the jobs that have no result yet, `parallel` at a time, each in a process of one thread.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, when every training has written its checkpoint.
        RunError: a training failed; its own sentence is in the message.
    """
    waiting = [job for job in jobs if not _result_path(path, job).exists()]
    running: dict[Job, subprocess.Popen[str]] = {}
    with graceful_stop() as stop:
        try:
            while (waiting or running) and not stop:
                while waiting and len(running) < parallel:
                    job = waiting.pop(0)
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
    return [json.loads(_result_path(path, job).read_text(encoding="utf-8")) for job in jobs]


def _start(job: Job, path: Path) -> "subprocess.Popen[str]":
    run = str(path / "training" / job.name)
    return subprocess.Popen(
        [sys.executable, "-m", "rl_interp.app.cli", *job.command, "--run", run, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C reaches the study alone, which stops its trainings itself
    )


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
            "env": job.env,
            "condition": job.condition,
            "seed": job.seed,
            "command": " ".join(("rl-interp", *job.command)),
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
    opened = Run(run)
    logged = opened.metrics()
    return min(0.99, logged[-1]["step"] / opened.config["agent_steps"]) if logged else 0.0


def compare(results: Sequence[dict[str, Any]], base: str) -> dict[str, Any]:
    """Per environment and condition: the IQM over seeds of the final return, with its 95% interval; and for each
    condition but `base` the difference to it, and whether its interval excludes zero."""
    table: dict[str, Any] = {}
    for env in dict.fromkeys(result["env"] for result in results):
        of_env = [result for result in results if result["env"] == env]
        conditions = dict.fromkeys(result["condition"] for result in of_env)
        scores = {
            name: np.array([r["evaluation"]["mean"] for r in of_env if r["condition"] == name]) for name in conditions
        }
        if base not in scores:
            raise UserError(f"a study without the condition {base!r} has nothing to compare with.")
        table[env] = {}
        for name, values in scores.items():
            interval = bootstrap([values])
            row = {"seeds": len(values), "iqm": iqm(values), "interval": [interval.low, interval.high]}
            row |= _own_scores([r["evaluation"] for r in of_env if r["condition"] == name])
            if name != base:
                difference = bootstrap([values, scores[base]], lambda ours, theirs: iqm(ours) - iqm(theirs))
                row["difference"] = iqm(values) - iqm(scores[base])
                row["difference_interval"] = [difference.low, difference.high]
                row["excludes_zero"] = not difference.low <= 0 <= difference.high
            table[env][name] = row
    return table


def _own_scores(evaluations: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The environment's own scores, averaged over seeds."""
    names = [name for name in ("crafter_score", "success_rate") if name in evaluations[0]]
    return {name: float(np.mean([each[name] for each in evaluations])) for name in names}


def markdown(table: dict[str, Any]) -> str:
    """The comparison as a table."""
    lines = [
        "| environment | condition | seeds | final return, IQM [95% interval] | difference to base | excludes zero |",
        "|---|---|---|---|---|---|",
    ]
    for env, rows in table.items():
        for name, row in rows.items():
            score = f"{row['iqm']:.3g} [{row['interval'][0]:.3g}, {row['interval'][1]:.3g}]"
            difference = excludes = ""
            if "difference" in row:
                low, high = row["difference_interval"]
                difference = f"{row['difference']:+.3g} [{low:+.3g}, {high:+.3g}]"
                excludes = "yes" if row["excludes_zero"] else "no"
            lines.append(f"| {env} | {name} | {row['seeds']} | {score} | {difference} | {excludes} |")
    return "\n".join(lines) + "\n"


def plot(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Training returns against decisions: every seed a thin line, the mean over seeds a thick one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    envs = list(dict.fromkeys(result["env"] for result in results))
    colours = dict(
        zip(dict.fromkeys(r["condition"] for r in results), ("0.35", "tab:orange", "tab:blue"), strict=False)
    )
    figure, axes = plt.subplots(1, len(envs), figsize=(5.2 * len(envs), 3.6), layout="constrained", squeeze=False)
    for panel, env in zip(axes[0], envs, strict=True):
        for condition, colour in colours.items():
            of_env = [r for r in results if r["env"] == env and r["condition"] == condition]
            curves = [r for r in of_env if r["steps"]]  # in a short training no episode may have ended
            if not curves:
                continue
            grid = np.linspace(0, max(r["steps"][-1] for r in curves), 200)
            every = np.array([np.interp(grid, r["steps"], _smooth(r["returns"])) for r in curves])
            panel.plot(grid / 1e6, every.T, color=colour, linewidth=0.7, alpha=0.45)
            panel.plot(grid / 1e6, every.mean(0), color=colour, linewidth=2, label=f"{condition} ({len(curves)} seeds)")
        panel.set(title=env, xlabel="decisions, millions", ylabel="return of training episodes", xlim=(0, None))
        panel.legend(frameon=False, loc="lower right")
        panel.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    return path


def _smooth(values: Sequence[float], window: int = 5) -> np.ndarray:
    """Centred running mean, shorter at the ends."""
    padded = np.pad(np.asarray(values, float), window // 2, mode="edge")
    return np.convolve(padded, np.ones(window) / window, "valid")
