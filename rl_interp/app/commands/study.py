"""`rl-interp study cbet`, `study transfer` and `study maze`."""

import os
from pathlib import Path
from typing import Any, Literal

import tyro

from rl_interp.agents.load import load_agent, new_run_path
from rl_interp.analysis.mazes.goals import find_goals
from rl_interp.analysis.study import Job, compare, markdown, plot, run_study
from rl_interp.app.progress import TERMINAL, progress_bar
from rl_interp.core.envs import env_config
from rl_interp.core.errors import at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.run import Run


def study_cbet(
    agents: tuple[Literal["impala", "dreamerv3"], ...] = ("impala",),
    envs: tuple[str, ...] = ("MiniGrid-Unlock-v0",),
    seeds: int = 5,
    agent_steps: int | None = None,
    coefficient: float = 0.005,
    jobs: int | None = None,
    run: str = "study-cbet",
) -> dict[str, Any]:
    """Train with and without CBET, over seeds, and say whether it made a difference; again, it goes on.

    Args:
        agents: Which agents.
        envs: Gymnasium ids.
        seeds: Trainings of each condition, with seeds 0, 1 and so on; an interval needs 5.
        agent_steps: Decisions of each; by default what suits the environment.
        coefficient: Factor of the bonus.
        jobs: Trainings at a time, one core each; by default as many as there are cores.
        run: Name under runs/ or a path, for results and run directories.
    """
    bonus = ("--cbet.coefficient", str(coefficient))
    planned = _plan(agents, envs, seeds, agent_steps, {"base": (), "cbet": bonus})
    return _study(planned, run, jobs)


def study_transfer(
    explorer: tyro.conf.Positional[str],
    envs: tuple[str, ...] = ("MiniGrid-Unlock-v0", "MiniGrid-KeyCorridorS3R3-v0"),
    seeds: int = 3,
    agent_steps: int | None = None,
    jobs: int | None = None,
    run: str = "study-transfer",
) -> dict[str, Any]:
    """Train IMPALA from nothing and beside a pre-trained exploration policy, over seeds; again, it goes on.

    Args:
        explorer: Run of the exploration policy: `rl-interp train impala --env A,B,C --cbet --pretrain ...` made it.
        envs: Gymnasium ids.
        seeds: Trainings of each condition, with seeds 0, 1 and so on; an interval needs 5.
        agent_steps: Decisions of each; by default what suits the environment.
        jobs: Trainings at a time, one core each; by default as many as there are cores.
        run: Name under runs/ or a path, for results and run directories.
    """
    source = ("--explorer", str(Run.open(explorer).path))
    planned = _plan(("impala",), envs, seeds, agent_steps, {"base": (), "transfer": source})
    return _study(planned, run, jobs)


def study_maze(
    regions: tuple[int, ...] = (1, 2, 3, 5, 10, 15, 0),
    seeds: int = 1,
    agent_steps: int | None = None,
    episodes: int = 1000,
    jobs: int | None = None,
    run: str = "study-maze",
) -> dict[str, Any]:
    """Train IMPALA in mazes with the cheese in regions of the top right, and find out what each agent wants where the
    cheese can be anywhere; again, it goes on.

    Args:
        regions: Cells along the region's side; 0 for anywhere.
        seeds: Trainings of each, with seeds 0, 1 and so on.
        agent_steps: Decisions of each; by default what suits the environment.
        episodes: Held-out mazes to play with each agent.
        jobs: Trainings at a time, one core each; by default as many as there are cores.
        run: Name under runs/ or a path, for results and run directories.
    """
    at_least_one(regions=len(regions))
    conditions = {f"region{each}" if each else "anywhere": ("--env.region", str(each)) for each in regions}
    planned = _plan(("impala",), ("rl_interp/Maze-v0",), seeds, agent_steps, conditions)
    path, _ = _trained(planned, run, jobs)
    agents = [load_agent(path / "training" / job.name) for job in planned]
    goals = find_goals(agents, episodes, folder=path, progress=TERMINAL)
    return {"run": str(path), **goals}


def _plan(
    agents: tuple[str, ...],
    envs: tuple[str, ...],
    seeds: int,
    agent_steps: int | None,
    conditions: dict[str, tuple[str, ...]],
) -> list[Job]:
    """Every training; those of one seed beside one another, so that a study that is stopped compares what it has."""
    for env in envs:
        env_config(env)
    return [
        Job(agent, env, condition, seed, (*_command(agent, env, seed, agent_steps), *flags))
        for agent in agents
        for env in envs
        for seed in range(seeds)
        for condition, flags in conditions.items()
    ]


def _study(planned: list[Job], run: str, jobs: int | None) -> dict[str, Any]:
    path, results = _trained(planned, run, jobs)
    table = compare(results, "base")
    write_json(path / "result.json", table)
    write_text(path / "table.md", markdown(table))
    curves = plot(results, path / "curves.png")
    return {"run": str(path), "table": str(path / "table.md"), "plot": str(curves), "result": table}


def _trained(planned: list[Job], run: str, jobs: int | None) -> tuple[Path, list[dict[str, Any]]]:
    """The study's directory and its trainings' results."""
    path = new_run_path(run)
    with progress_bar(f"Study {path.name}", len(planned), "trainings") as update:
        return path, run_study(planned, path, jobs or os.cpu_count() or 1, update)


def _command(agent: str, env: str, seed: int, agent_steps: int | None) -> tuple[str, ...]:
    command = ("train", agent, "--env", env, "--seed", str(seed), "--eval-episodes", "100")
    if agent == "impala":
        command += ("--actors", "0")  # in one process, so that trainings share the cores and resume bit for bit
    if agent_steps is not None:
        command += ("--agent-steps", str(agent_steps), "--log-every", str(max(1, agent_steps // 150)))
    return command
