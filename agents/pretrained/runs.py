"""Runs made of checkpoints that other programs saved, to be evaluated and analysed like our own."""

from pathlib import Path
from typing import Any

from rl_interp.agents.pretrained import dreamerv3, maze
from rl_interp.core.agent import Agent
from rl_interp.core.envs import EnvConfig
from rl_interp.core.files import sha256
from rl_interp.core.run import Run


def import_dreamerv3(checkpoint: Path, env: EnvConfig, path: Path) -> dict[str, Any]:
    """Make a run of a checkpoint of the published package dreamerv3 1.5.0.

    Args:
        env: what the agent was trained on.
        path: directory of the run.

    Raises:
        RunError: no such checkpoint, one of another size or environment, or a directory that holds a run.
    """
    step, arrays = dreamerv3.read_checkpoint(checkpoint)
    agent = dreamerv3.agent_of(arrays, env, checkpoint)
    run = _saved(agent, step, path, "dreamerv3", agent.config, checkpoint)
    return {"run": str(run.path), "agent_steps": step, "size": agent.config.size, "parameters": _parameters(agent)}


def import_maze(checkpoint: Path, region: int, path: Path) -> dict[str, Any]:
    """Make a run of a maze policy of train-procgen-pytorch (Langosco et al. 2022).

    Args:
        region: cells along the region at the top right that its cheese was in; 0 for anywhere.
        path: directory of the run.

    Raises:
        RunError: no such checkpoint, one of a different architecture, or a directory that holds a run.
    """
    config, agent = maze.agent_of(maze.read_checkpoint(checkpoint), region, checkpoint)
    run = _saved(agent, 0, path, maze.KIND, config, checkpoint)  # the file does not say how long it was trained
    return {"run": str(run.path), "channels": list(config.channels), "parameters": _parameters(agent)}


def _saved(agent: Agent, step: int, path: Path, kind: str, config: Any, checkpoint: Path) -> Run:
    source = {"checkpoint": str(checkpoint), "sha256": sha256(checkpoint)}
    run = Run.create(path, kind, config, 0, parent=source)
    run.save_checkpoint(step, agent.state_dict())
    return run


def _parameters(agent: Agent) -> int:
    return sum(each.numel() for each in agent.parameters())
