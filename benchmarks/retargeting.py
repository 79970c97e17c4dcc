"""Retargeting heat maps: positions of a channel clamped per second, beside running the whole network for each.

Both do what `retarget` does on one maze of 25 x 25 cells with IMPALA's [16, 32, 32] network, at the end of its second
section, after which a sixth of the operations are left. The whole network is run under a hook, in equal batches. Beside
it, seconds of a vector field of the maze.
"""

import time

import numpy as np
import torch

from benchmarks.measure import Result, main
from rl_interp.agents.impala import default_config, make_agent
from rl_interp.analysis.mazes import fields
from rl_interp.core.agent import Agent, PolicyOutput
from rl_interp.core.envs import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.partial_forward import PartialForward

AT = "block2.res2.sum"


class WholeNetwork:
    """The same answers as a partial forward's, from the first layer on."""

    def __init__(self, agent: Agent, obs: torch.Tensor, at: str):
        self.agent, self.obs, self.at = agent, obs, at
        with torch.no_grad():
            _, cache = run_with_cache(agent, obs, names=[at])
        self.values = cache[at]

    @torch.no_grad()
    def __call__(self, values: torch.Tensor, rows: torch.Tensor) -> PolicyOutput:
        return run_with_hooks(self.agent, self.obs[rows], hooks={self.at: lambda value, site: values})


def seconds(
    agent: Agent, maze: Mazes, rerun: type[PartialForward] | type[WholeNetwork]
) -> tuple[float, np.ndarray, int]:
    fields.PartialForward = rerun  # pyright: ignore[reportAttributeAccessIssue]
    start = time.perf_counter()
    found = fields.retarget(agent, MazeConfig(), maze, AT, 3, 5.0)
    edits = sum(len(way) - 1 for way in fields._ways(maze))
    return time.perf_counter() - start, found.after, edits


def share_after(agent: Agent, obs: torch.Tensor) -> float:
    """Of the network's operations, those after the edit."""
    from torch.utils.flop_counter import FlopCounterMode

    rerun = PartialForward(agent, obs, AT)
    with FlopCounterMode(display=False) as whole, torch.no_grad():
        agent.step(obs)
    with FlopCounterMode(display=False) as rest:
        rerun(rerun.values)
    return rest.get_total_flops() / whole.get_total_flops()


def measure() -> Result:
    """Clamped positions per second of a retargeting heat map."""
    torch.manual_seed(0)
    agent = make_agent(default_config("rl_interp/Maze-v0")).eval()
    maze = Mazes.draw(MazeConfig(min_side=25), [0])
    seconds(agent, maze, PartialForward)
    ours, after, edits = seconds(agent, maze, PartialForward)
    whole, same, _ = seconds(agent, maze, WholeNetwork)
    np.testing.assert_allclose(after, same, rtol=1e-4)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        cells = len(fields.vector_field(agent, maze).cells)
        times.append(time.perf_counter() - start)
    share = share_after(agent, torch.from_numpy(maze.observations()))
    return Result(
        "retargeting", "positions/s", edits / ours, {"the whole network": edits / whole}, None,
        {"hook point": AT, "seconds of a heat map": round(ours, 2), "operations after the edit": f"{share:.1%}",
         "seconds of a vector field": round(min(times), 3), "its cells": cells},
    )  # fmt: skip


if __name__ == "__main__":
    main(measure, ("numpy",))
