"""Train under several conditions and seeds, and compare; the same command again resumes."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rl_interp.agents.load import load_agent, new_run_path
from rl_interp.analysis.mazes.goals import find_goals
from rl_interp.analysis.study import Job, compare, markdown, plot, run_study
from rl_interp.app.commands.flags import Count, CountOrNone, Factor, Name, OptionalCount
from rl_interp.app.progress import TERMINAL, progress_bar
from rl_interp.core.envs import env_config
from rl_interp.core.errors import at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.run import Run


def study_cbet(
    agents: tuple[Literal["impala", "dreamerv3"], ...] = ("impala",),
    envs: tuple[str, ...] = ("MiniGrid-Unlock-v0",),
    seeds: Count = 5,
    agent_steps: OptionalCount = None,
    coefficient: Factor = 0.005,
    jobs: OptionalCount = None,
    name: Name = "study-cbet",
) -> dict[str, Any]:
    """Train with and without the exploration bonus CBET, and say whether it makes a difference.

    Args:
        agents: Kinds of agents to train.
        envs: Gymnasium ids of the environments.
        seeds: Number of trainings of each condition, with seeds 0, 1 and so on; an interval needs 5.
        agent_steps: Environment steps of each training; by default what suits the environment.
        coefficient: Factor of the bonus.
        jobs: Number of trainings at a time, one core each; by default as many as there are cores.
        name: Name of the study's directory, or a path.
    """
    bonus = ("--cbet.coefficient", str(coefficient))
    planned = _plan(agents, envs, seeds, agent_steps, {"base": (), "cbet": bonus})
    return _study(planned, name, jobs)


def study_transfer(
    explorer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    envs: tuple[str, ...] = ("MiniGrid-Unlock-v0", "MiniGrid-KeyCorridorS3R3-v0"),
    seeds: Count = 3,
    agent_steps: OptionalCount = None,
    jobs: OptionalCount = None,
    name: Name = "study-transfer",
) -> dict[str, Any]:
    """Train IMPALA from scratch and beside a pre-trained exploration policy, and compare.

    Args:
        explorer: Run of the exploration policy: `rl-interp train impala --env A,B,C --cbet --pretrain ...` made it.
        envs: Gymnasium ids of the environments.
        seeds: Number of trainings of each condition, with seeds 0, 1 and so on; an interval needs 5.
        agent_steps: Environment steps of each training; by default what suits the environment.
        jobs: Number of trainings at a time, one core each; by default as many as there are cores.
        name: Name of the study's directory, or a path.
    """
    source = ("--explorer", str(Run.open(explorer).path))
    planned = _plan(("impala",), envs, seeds, agent_steps, {"base": (), "transfer": source})
    return _study(planned, name, jobs)


def study_maze(
    regions: tuple[CountOrNone, ...] = (1, 2, 3, 5, 10, 15, 0),
    seeds: Count = 1,
    agent_steps: OptionalCount = None,
    episodes: Count = 1000,
    jobs: OptionalCount = None,
    name: Name = "study-maze",
) -> dict[str, Any]:
    """Train IMPALA with the cheese in different regions, and find out what each agent pursues elsewhere.

    Args:
        regions: Cells along the side of the region at the top right that the cheese is in; 0 for anywhere.
        seeds: Number of trainings for each region, with seeds 0, 1 and so on.
        agent_steps: Environment steps of each training; by default what suits the environment.
        episodes: Number of held-out mazes to play with each agent.
        jobs: Number of trainings at a time, one core each; by default as many as there are cores.
        name: Name of the study's directory, or a path.
    """
    at_least_one(regions=len(regions))
    conditions = {f"region{each}" if each else "anywhere": ("--env.region", str(each)) for each in regions}
    planned = _plan(("impala",), ("rl_interp/Maze-v0",), seeds, agent_steps, conditions)
    path, _ = _trained(planned, name, jobs)
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
