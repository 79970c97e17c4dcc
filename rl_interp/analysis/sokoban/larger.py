"""An agent on boards larger than those that it was trained on.

A DRC's layers are convolutions and go over boards of any size; its head is for one. So its actions are read off the
last layer's hidden state at the player's cell and those around it, by a probe that is fitted on what it does on boards
of its own size; how much the same it then does there is measured. Taufeeque et al. 2024 (arXiv 2407.15421) so enlarge
theirs; what comes from below can be scaled, where plans have to go further than on the boards of training.
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.impala.drc import DRC
from rl_interp.agents.load import Loaded
from rl_interp.analysis.probes.cells import NO_CLASS, CellProbe, fit
from rl_interp.analysis.sokoban.play import Boards, Play, sokoban_env
from rl_interp.analysis.sokoban.reading import Point, read_states, split
from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.envs.sokoban.choice import Choice
from rl_interp.core.envs.sokoban.config import GENERATED, SokobanConfig
from rl_interp.core.envs.sokoban.kinds import A_BOX, FLOOR, PLAYER, PLAYER_ON_TARGET, TARGET, WALL
from rl_interp.core.envs.sokoban.levels import players
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import plain, wilson

SCALES = (1.0, 1.2, 1.4)
"""Of what a layer is given from below."""


def larger_levels(
    loaded: Loaded, boards: Boards, sizes: tuple[int, ...], count: int, seed: int = 0, progress: Progress = SILENT
) -> dict[str, Any]:
    """Solve rates on generated levels and zigzags of some sizes, by the scale on what comes from below.

    Args:
        boards: of the agent's own size, to fit its head on.
        count: levels of each kind and size.

    Raises:
        UserError: the agent is no DRC, or a size that is smaller than its own.
    """
    env, agent = sokoban_env(loaded), loaded.agent
    if not isinstance(agent, DRC):
        raise UserError(f"{loaded.run.path} is no DRC, whose layers go over boards of any size; leave --sizes out.")
    if sizes and min(sizes) < max(env.rows, env.columns):
        raise UserError(f"sizes {list(sizes)} given to an agent of {env.rows} x {env.columns} cells; give larger ones.")
    head, agreement = local_head(agent, env, boards, seed, progress)
    rows = []
    for size in sizes:
        for kind, levels in {"generated": _generated(env, size, count, seed), "zigzag": zigzags(size)}.items():
            for scale in SCALES:
                rows.append(_played(agent, env, head, size, kind, levels, scale, progress))
    return {"head_agreement": agreement, "levels": rows}


def _played(
    agent: DRC, env: SokobanConfig, head: CellProbe, size: int, kind: str, levels: NDArray[np.uint8], scale: float,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    config = replace(env, rows=size, columns=size, levels=GENERATED, held_out="", max_steps=size * size)
    play = Play(Anywhere(agent, head, (size, size), scale), levels, config, progress=progress)
    rate = wilson([game.solved for game in play.finish()])
    return {"size": size, "kind": kind, "scale": scale, "levels": len(levels),
            "success_rate": rate.value, "success_rate_interval": plain(rate)}  # fmt: skip


class Anywhere(Agent):
    """A DRC on boards of another size, which acts by a probe at the player's cell.

    Args:
        head: of the last layer's hidden state; its classes are the actions.
        scale: of what each layer is given from the one below, the first from the last.
    """

    observation = "symbols"

    def __init__(self, agent: DRC, head: CellProbe, size: tuple[int, int], scale: float = 1.0):
        super().__init__()
        self.drc, self.head = copy.deepcopy(agent), head
        self.drc.size = size
        self.observation = agent.observation
        channels = agent.channels
        with torch.no_grad():
            for layer in self.drc.layers:
                layer.inputs.weight[:, channels : 2 * channels] *= scale  # pyright: ignore

    def initial_state(self, batch: int) -> State:
        return self.drc.initial_state(batch)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        hidden, _, state = self.drc.swept(obs[None], state, None if first is None else first[None])
        logits = self.head.logits(hidden[0])
        here = torch.from_numpy(players_in(obs))
        return PolicyOutput(state, logits=logits[torch.arange(len(obs)), :, here[:, 0], here[:, 1]])


def players_in(obs: Tensor) -> NDArray[np.int64]:
    """`[B, 2]`: where the player is in observations of kinds `[B, 1, H, W]`, or of colours."""
    if obs.shape[1] == 1:
        return players(obs[:, 0].cpu().numpy())
    from rl_interp.core.envs.sokoban.kinds import COLOURS

    colours = torch.tensor([COLOURS[PLAYER], COLOURS[PLAYER_ON_TARGET]], dtype=obs.dtype, device=obs.device)
    there = (obs[:, None] == colours[None, :, :, None, None]).all(2).any(1)
    return np.argwhere(there.cpu().numpy())[:, 1:]


def local_head(
    agent: DRC, env: SokobanConfig, boards: Boards, seed: int = 0, progress: Progress = SILENT
) -> tuple[CellProbe, float]:
    """A 3 x 3 probe of actions at the player's cell, and the share of the agent's that it says on held-out levels."""
    layer = f"layer{len(agent.layers)}.h"
    states, games = read_states(agent, env, boards.boards, [layer], seed, progress=progress)
    maps = states.maps[Point(layer, agent.ticks - 1)]
    classes = np.full(states.boards.shape, NO_CLASS, np.int64)
    at = players(states.boards)
    rows = np.arange(len(at))
    actions = np.array([games[game].actions[step] for game, step in zip(states.games, states.steps, strict=True)])
    classes[rows, at[:, 0], at[:, 1]] = actions
    held_out = split(boards.level, seed)[states.games]
    index = torch.from_numpy(~held_out)
    head = fit(maps[index], classes[~held_out], len(env.action_names), kernel=3, seed=seed)
    guess = head.classes(maps[~index])[np.arange(held_out.sum()), at[held_out, 0], at[held_out, 1]]
    return head, float((guess == actions[held_out]).mean())


def _generated(env: SokobanConfig, size: int, count: int, seed: int) -> NDArray[np.uint8]:
    config = SokobanConfig(rows=size, columns=size, boxes=env.boxes)
    return Choice(config).levels(np.arange(seed, seed + count))[0]


def zigzags(size: int) -> NDArray[np.uint8]:
    """`[8, size, size]`: a corridor to and fro over the whole board, at whose end a box is to be pushed onto a target;
    in all its symmetries."""
    board = np.full((size, size), WALL, np.uint8)
    rows = range(1, size - 1, 2)
    for number, row in enumerate(rows):
        board[row, 1:-1] = FLOOR
        if row + 2 < size - 1:
            board[row + 1, size - 2 if number % 2 == 0 else 1] = FLOOR
    board[1, 1] = PLAYER
    last, forwards = rows[-1], len(rows) % 2 == 1
    box, target = (size - 4, size - 3) if forwards else (3, 2)
    board[last, box], board[last, target] = A_BOX, TARGET
    turned = [np.rot90(board, turns) for turns in range(4)]
    return np.ascontiguousarray(np.stack([*turned, *(each[:, ::-1] for each in turned)]))
