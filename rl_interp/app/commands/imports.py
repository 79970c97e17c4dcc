"""`rl-interp import dreamerv3` and `import maze`."""

from pathlib import Path
from typing import Any

import tyro

from rl_interp.agents import pretrained
from rl_interp.agents.load import new_run_path
from rl_interp.core.envs import env_config


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
    return pretrained.import_dreamerv3(checkpoint, env_config(env), new_run_path(run))


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
    return pretrained.import_maze(checkpoint, region, new_run_path(run))
