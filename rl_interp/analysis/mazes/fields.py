"""Vector fields: what an agent would do from every free cell of a maze.

Turner et al. 2023, "Understanding and controlling a maze-solving policy network", arXiv 2310.08043, §2. An agent with a
memory is asked as if each cell were its first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.agent import Agent, PolicyOutput
from rl_interp.core.envs.maze import ACTIONS, MOVES, MazeConfig
from rl_interp.core.envs.maze.layout import NOWHERE
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import Intervention, as_hooks
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.receptive_fields import receptive_fields

STEPS = np.array(MOVES)
"""`[A, 2]`: where each action leads, as (rows down, columns right)."""
_BATCH = 512


@dataclass(frozen=True)
class Field:
    """A policy at M cells of one maze."""

    cells: NDArray[np.int64]
    """`[M, 2]`: where the mouse stands."""
    probabilities: NDArray[np.float32]
    """`[M, A]`."""
    values: NDArray[np.float32]
    """`[M]`: of the value head; NaN for an agent without one."""

    @property
    def arrows(self) -> NDArray[np.float32]:
        """`[M, 2]`: the mean step, (rows down, columns right)."""
        return self.probabilities @ STEPS.astype(np.float32)

    def __sub__(self, other: "Field") -> "Field":
        """What an intervention changed: differences, cell by cell."""
        if not np.array_equal(self.cells, other.cells):
            raise UserError("two fields of different cells can't be subtracted; make both of the same maze.")
        return Field(self.cells, self.probabilities - other.probabilities, self.values - other.values)


def vector_field(agent: Agent, maze: Mazes, interventions: Sequence[Intervention] = ()) -> Field:
    """The policy at every free cell of one maze but the cheese's, in one batch.

    Raises:
        UserError: other than one maze, or actions other than the maze's.
    """
    _one(maze)
    cells = np.argwhere(~maze.walls[0] & (maze.distances(maze.mouse)[0] != NOWHERE))
    cells = cells[(cells != maze.cheese[0]).any(1)]
    out = decide(agent, _with_mice(maze, cells), interventions)
    return Field(cells, *_policy(out))


def decide(agent: Agent, mazes: Mazes, interventions: Sequence[Intervention] = ()) -> PolicyOutput:
    """The decisions of an agent that sees each maze first, `[N, ...]`."""
    return _asked(agent, torch.from_numpy(mazes.observations()), interventions)


@torch.no_grad()
def _asked(agent: Agent, obs: Tensor, interventions: Sequence[Intervention] = ()) -> PolicyOutput:
    device = agent.device
    out = run_with_hooks(agent, obs.to(device), hooks=as_hooks(interventions))
    if out.preferences.shape[1] != len(ACTIONS):
        raise UserError(f"the agent has {out.preferences.shape[1]} actions, a maze {len(ACTIONS)}: give a maze agent.")
    return out


def _policy(out: PolicyOutput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    probabilities = out.preferences.float().softmax(-1).cpu().numpy()
    has_value = out.value is not None or out.q_values is not None
    values = out.state_value.float().cpu().numpy() if has_value else np.full(len(probabilities), np.nan, np.float32)
    return probabilities, values


def _with_mice(maze: Mazes, cells: NDArray[np.int64]) -> Mazes:
    return maze[np.zeros(len(cells), int)].edit(mouse=cells)


def _one(maze: Mazes) -> None:
    if len(maze) != 1:
        raise UserError(f"{len(maze)} mazes given; a field is of one: give mazes[i : i + 1].")


@dataclass(frozen=True)
class Retargeting:
    """How well a clamped channel moves the goal, for each free cell of one maze."""

    cells: NDArray[np.int64]
    """`[M, 2]`."""
    before: NDArray[np.float64]
    """`[M]`: the geometric mean of the probabilities of the steps from the mouse to the cell."""
    after: NDArray[np.float64]
    """`[M]`: the same with the channel clamped at the position of that cell."""


def retarget(agent: Agent, env: MazeConfig, maze: Mazes, at: str, channel: int, value: float) -> Retargeting:
    """Clamp a channel of the spatial point `at` to `value` at one position after another, and see whether the mouse
    would go there (arXiv 2310.08043, §3.2: the normalised probability of the path).

    Only the layers after the edit are run for each position.

    Raises:
        UserError: other than one maze, or a channel that is not there.
        HookError: a point without positions, or one that can't be run again from.
    """
    _one(maze)
    ways = _ways(maze)
    cells = np.array([way[-1] for way in ways])
    of_cell = np.repeat(np.arange(len(ways)), [len(way) - 1 for way in ways])
    actions = np.concatenate([_actions(way) for way in ways])
    stands, rows = np.unique(np.concatenate([way[:-1] for way in ways]), axis=0, return_inverse=True)
    obs = torch.from_numpy(_with_mice(maze, stands).observations()).to(agent.device)
    where = receptive_fields(agent, at, obs[:1]).nearest(env, cells)[of_cell]
    rerun = PartialForward(agent, obs, at)
    if not 0 <= channel < rerun.values.shape[1]:
        raise UserError(f"channel {channel} given for {at!r}, which has channels 0 to {rerun.values.shape[1] - 1}.")
    before, _ = _policy(_asked(agent, obs))
    after = np.empty(len(rows))
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        of_obs = torch.from_numpy(rows[part]).to(obs.device)
        values = rerun.values[of_obs]
        values[torch.arange(len(values)), channel, where[part, 0], where[part, 1]] = value
        after[part] = _policy(rerun(values, of_obs))[0][np.arange(len(values)), actions[part]]
    return Retargeting(cells, _geometric(before[rows, actions], of_cell), _geometric(after, of_cell))


def _ways(maze: Mazes) -> list[NDArray[np.int64]]:
    """The cells from the mouse to each free cell that it can reach, `[steps + 1, 2]` each, but its own."""
    steps = maze.distances(maze.mouse)[0]
    came = {tuple(maze.mouse[0].tolist()): [maze.mouse[0]]}
    for cell in np.argwhere(steps > 0)[np.argsort(steps[steps > 0], kind="stable")]:
        beside = (tuple((cell - step).tolist()) for step in STEPS[:4])
        before = next(each for each in beside if each in came and steps[each] == steps[tuple(cell)] - 1)
        came[tuple(cell.tolist())] = [*came[before], cell]
    return [np.array(way) for way in came.values() if len(way) > 1]


def _actions(way: NDArray[np.int64]) -> NDArray[np.int64]:
    """The actions that lead along a way."""
    return (np.diff(way, axis=0)[:, None] == STEPS).all(-1).argmax(-1)


def _geometric(probabilities: NDArray[np.floating], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Geometric means by group."""
    logs = np.log(np.maximum(probabilities, 1e-12))
    return np.exp(np.bincount(group, logs) / np.bincount(group))
