"""`rl-interp import dreamerv3`."""

from pathlib import Path
from typing import Any

import tyro

from agents.dreamerv3.published import agent_of, read_checkpoint
from rl_interp.app.load import new_run_path
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
    step, arrays = read_checkpoint(checkpoint)
    agent = agent_of(arrays, env_config(env), checkpoint)
    source = {"checkpoint": str(checkpoint), "sha256": sha256(checkpoint)}
    opened = Run.create(new_run_path(run), "dreamerv3", agent.config, 0, parent=source)
    opened.save_checkpoint(step, agent.state_dict())
    parameters = sum(p.numel() for p in agent.parameters())
    return {"run": str(opened.path), "agent_steps": step, "size": agent.config.size, "parameters": parameters}
