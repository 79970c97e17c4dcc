"""Turn a published checkpoint into a run, to evaluate and analyse it."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from rl_interp.agents.load import new_run_path
from rl_interp.agents.pretrained import runs
from rl_interp.app.commands.flags import CountOrZero, Name
from rl_interp.core.envs import env_config


def import_dreamerv3(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    env: Annotated[str, tyro.conf.arg(metavar="ID")] = "CrafterReward-v1",
    name: Name = "dreamerv3-imported",
) -> dict[str, Any]:
    """Turn a checkpoint that the published package dreamerv3 1.5.0 saved into a run.

    Args:
        checkpoint: The package's checkpoint.ckpt, a pickle; no code in it is run.
        env: Gymnasium id of the environment that the agent was trained in.
        name: Name of the new run, or a path.
    """
    return runs.import_dreamerv3(checkpoint, env_config(env), new_run_path(name))


def import_maze(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    region: CountOrZero = 5,
    name: Name = "impala-maze-imported",
) -> dict[str, Any]:
    """Turn a maze policy that train-procgen-pytorch saved (Langosco et al. 2022) into a run.

    Args:
        checkpoint: Its .pth file: weights as model_state_dict or state_dict, or bare; no code in it is run.
        region: Cells along the side of the region at the top right that its cheese was in; 0 for anywhere.
        name: Name of the new run, or a path.
    """
    return runs.import_maze(checkpoint, region, new_run_path(name))
