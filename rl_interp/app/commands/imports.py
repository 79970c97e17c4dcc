"""`rl-interp import dreamerv3` and `import maze`."""

from pathlib import Path
from typing import Any

import tyro

from rl_interp.agents.dreamerv3 import pretrained as dreamerv3
from rl_interp.agents.impala import pretrained as maze
from rl_interp.agents.load import new_run_path
from rl_interp.core.envs import env_config
from rl_interp.core.files import sha256
from rl_interp.core.run import Run


def import_dreamerv3(
    checkpoint: tyro.conf.Positional[Path],
    env: str = "CrafterReward-v1",
    run: str = "dreamerv3-imported",
) -> dict[str, Any]:
    """Turn a checkpoint that the published package dreamerv3 1.5.0 saved into a run, to be evaluated and analysed.

    Args:
        checkpoint: Its checkpoint.ckpt, a pickle; no code in it is run.
        env: Gymnasium id of what the agent was trained on.
        run: Name under runs/ or a path.
    """
    step, arrays = dreamerv3.read_checkpoint(checkpoint)
    agent = dreamerv3.agent_of(arrays, env_config(env), checkpoint)
    source = {"checkpoint": str(checkpoint), "sha256": sha256(checkpoint)}
    opened = Run.create(new_run_path(run), "dreamerv3", agent.config, 0, parent=source)
    opened.save_checkpoint(step, agent.state_dict())
    parameters = sum(p.numel() for p in agent.parameters())
    return {"run": str(opened.path), "agent_steps": step, "size": agent.config.size, "parameters": parameters}


def import_maze(
    checkpoint: tyro.conf.Positional[Path],
    region: int = 5,
    run: str = "impala-maze-imported",
) -> dict[str, Any]:
    """Turn a maze policy that train-procgen-pytorch saved (Langosco et al. 2022) into a run, for analysis in our mazes.

    Args:
        checkpoint: Its .pth file: weights as model_state_dict or state_dict, or bare; no code in it is run.
        region: Cells along the region at the top right that its cheese was in; 0 for anywhere.
        run: Name under runs/ or a path.
    """
    config, agent = maze.agent_of(maze.read_checkpoint(checkpoint), region, checkpoint)
    source = {"checkpoint": str(checkpoint), "sha256": sha256(checkpoint)}
    opened = Run.create(new_run_path(run), maze.KIND, config, 0, parent=source)
    opened.save_checkpoint(0, agent.state_dict())  # the file does not say how long it was trained
    parameters = sum(p.numel() for p in agent.parameters())
    return {"run": str(opened.path), "channels": list(config.channels), "parameters": parameters}
