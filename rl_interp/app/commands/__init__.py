"""The commands: one function each, whose arguments are its flags and whose result is JSON-ready."""

from rl_interp.app.commands.analyse import collect, saliency
from rl_interp.app.commands.demo import demo
from rl_interp.app.commands.evaluate import evaluate
from rl_interp.app.commands.imagine import imagine
from rl_interp.app.commands.imports import import_dreamerv3, import_maze
from rl_interp.app.commands.info import info
from rl_interp.app.commands.maps import maps
from rl_interp.app.commands.maze import maze_field, maze_goals, maze_retarget, maze_saliency, maze_steer
from rl_interp.app.commands.probe import probe_run
from rl_interp.app.commands.sae import (
    sae_compare,
    sae_evaluate,
    sae_fit,
    sae_pull,
    sae_push,
    sae_report,
    sae_sweep,
    sae_test,
)
from rl_interp.app.commands.study import study_cbet, study_maze, study_transfer
from rl_interp.app.commands.train import dqn_command, dreamerv3_command, impala_command

__all__ = [
    "collect",
    "demo",
    "dqn_command",
    "dreamerv3_command",
    "evaluate",
    "imagine",
    "impala_command",
    "import_dreamerv3",
    "import_maze",
    "info",
    "maps",
    "maze_field",
    "maze_goals",
    "maze_retarget",
    "maze_saliency",
    "maze_steer",
    "probe_run",
    "sae_compare",
    "sae_evaluate",
    "sae_fit",
    "sae_pull",
    "sae_push",
    "sae_report",
    "sae_sweep",
    "sae_test",
    "saliency",
    "study_cbet",
    "study_maze",
    "study_transfer",
]
