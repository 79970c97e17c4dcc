"""Train under several conditions and seeds, and compare; the same command again resumes."""

from typing import Annotated, Any, Literal

import tyro

from rl_interp.analysis.history.checkpoints import Settings as HistorySettings
from rl_interp.analysis.history.study import study_history
from rl_interp.analysis.self_ablation import Settings, self_ablation_study
from rl_interp.analysis.study import cbet_study, maze_study, transfer_study
from rl_interp.app.commands.flags import Count, CountOrZero, Factor, FromAgent, Hook, Name, OptionalCount, optional
from rl_interp.app.progress import TERMINAL


def study_cbet(
    agents: tuple[Literal["impala", "dreamerv3"], ...] = ("impala",),
    envs: tuple[str, ...] = ("MiniGrid-Unlock-v0",),
    seeds: Count = 5,
    agent_steps: OptionalCount = None,
    coefficient: Factor = 0.005,
    key: Annotated[Literal["exact", "simhash"] | None, optional("exact|simhash")] = None,
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
        key: Which observations count as the same: equal ones, or those with the same SimHash; by default equal ones
            where they come again, and SimHash elsewhere.
        jobs: Number of trainings at a time, one core each; by default as many as there are cores.
        name: Name of the study's directory, or a path.
    """
    return cbet_study(name, agents, envs, seeds, agent_steps, coefficient, key, jobs, TERMINAL)


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
    return transfer_study(name, explorer, envs, seeds, agent_steps, jobs, TERMINAL)


def study_maze(
    regions: tuple[CountOrZero, ...] = (1, 2, 3, 5, 10, 15, 0),
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
    return maze_study(name, regions, seeds, agent_steps, episodes, jobs, TERMINAL)


def study_self_ablation(
    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")
    ],
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings(),  # noqa: B008 - frozen
    name: Name = "study-self-ablation",
) -> dict[str, Any]:
    """Measure agents trained with and without --self-ablation: returns, dictionaries, and what the masks tell.

    A run that was measured already, with the same settings, is not measured again.

    Args:
        runs: Runs of `rl-interp train impala`, with and without --self-ablation.
        settings: What is measured of each run.
        name: Name of the study's directory, or a path.
    """
    return self_ablation_study(runs, name, settings, TERMINAL)


def study_training(
    agent: FromAgent,
    hook: Hook = None,
    settings: Annotated[HistorySettings, tyro.conf.arg(name="")] = HistorySettings(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Follow a layer of an agent through its training: what forms when.

    All checkpoints that were kept see the same recorded episodes; the untrained one is the control.

    Args:
        agent: An agent trained with --keep-checkpoints.
        hook: Hook point to look at; by default the last layer.
        settings: What is measured of each checkpoint.
    """
    return study_history(agent.load(), hook, settings, TERMINAL)
