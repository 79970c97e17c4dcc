"""The plan in one moment of an episode, as probes read it at every tick: as it is, after more looks at the same board,
and under changes of the agent, beside random changes of the same size.

What is read is what the probes take a cell for, no more: `scores_at` says how well they do on levels that they were not
fitted on, beside the same probes of the board alone and of a network of shuffled weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import MOST_THINKING, Recording
from rl_interp.analysis.player import Moment
from rl_interp.analysis.sokoban.play import sokoban_env
from rl_interp.analysis.sokoban.reading import CONCEPTS, PointProbes, look
from rl_interp.core.agent import evaluating, tree_map
from rl_interp.core.envs.sokoban.config import SokobanConfig
from rl_interp.core.envs.sokoban.draw import kinds_of
from rl_interp.core.envs.sokoban.kinds import WALL
from rl_interp.core.envs.sokoban.plans import NEVER, future
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Intervention

SHOWN = 0.2
"""Least probability of an arrow that is drawn."""


class Arrow(NamedTuple):
    """What is to come of a cell."""

    row: int
    column: int
    direction: int
    """An index of `kinds.MOVES`."""
    sure: float
    """The probability of this direction."""


@dataclass(frozen=True)
class Plans:
    """What is read of one moment, B times in one batch, in each of L looks at the board, after each of N ticks."""

    probabilities: Mapping[str, NDArray[np.float32]]
    """`[B, L, N, 5, H, W]` by concept: of each class of `plans.CLASSES`, at every cell."""
    preferences: NDArray[np.float32]
    """`[B, L, A]`: the decision, if it were taken after this look."""


@torch.no_grad()
def plans_in(
    loaded: Loaded,
    moment: Moment,
    probes: PointProbes,
    changes: Sequence[Intervention] = (),
    thinking: int = 0,
    times: int = 1,
) -> Plans:
    """Read the plan in a moment of an episode.

    Args:
        probes: of the layer to read, as `probes_at` gives them.
        changes: under which the agent looks.
        thinking: how often it looks at the board again without acting; L is one more.
        times: B, for changes that differ from sample to sample.

    Raises:
        UserError: not an agent of Sokoban, or `thinking` out of range.
    """
    sokoban_env(loaded)
    if not 0 <= thinking <= MOST_THINKING:
        raise UserError(f"thinking={thinking} given; it is a number from 0 to {MOST_THINKING}.")
    (layer,) = {point.layer for _, point in probes}
    obs = torch.from_numpy(moment.obs[None]).to(loaded.agent.device).expand(times, *moment.obs.shape)
    state = tree_map(lambda leaf: leaf.expand(times, *leaf.shape[1:]).clone(), moment.state)
    found: dict[str, list[NDArray[np.float32]]] = {concept: [] for concept in CONCEPTS}
    preferences = []
    with evaluating(loaded.agent):
        for _ in range(thinking + 1):
            out, maps = look(loaded.agent, obs, state, [layer], changes)
            state = out.state
            preferences.append(out.preferences.float().cpu().numpy())
            for concept in CONCEPTS:
                read = [probes[concept, point].logits(held.cpu()).softmax(1).numpy() for point, held in maps.items()]
                found[concept].append(np.stack(read, 1))
    return Plans({concept: np.stack(read, 1) for concept, read in found.items()}, np.stack(preferences, 1))


def board_in(env: SokobanConfig, moment: Moment) -> NDArray[np.uint8]:
    """`[H, W]`: the board that the agent sees, each cell an index of `KINDS`."""
    board = moment.obs[0] if env.observation == "symbols" else kinds_of(moment.obs)
    assert board is not None, "the environment's own colours"
    return board


def arrows(board: NDArray[np.uint8], plan: NDArray[np.floating]) -> list[Arrow]:
    """An arrow for each cell where something is likelier to come than not: the likeliest way.

    Args:
        plan: `[5, H, W]`, probabilities of the four directions and of never.
    """
    found = []
    for row, column in np.argwhere((board != WALL) & (plan[NEVER] < 0.5)).tolist():
        direction = int(plan[:NEVER, row, column].argmax())
        if (sure := float(plan[direction, row, column])) >= SHOWN:
            found.append(Arrow(row, column, direction, sure))
    return found


def arrows_of_what_came(recording: Recording, step: int) -> dict[str, list[Arrow]]:
    """By concept, what then came of each cell, as far as the episode is recorded and its board was not edited."""
    env = sokoban_env(recording.loaded)
    later = recording.recipe.by_step()[step : recording.steps]
    edited = next((i for i, (part, _) in enumerate(later) if i and part.edits), len(later))
    actions = recording.actions[step : step + edited]
    if not len(actions):
        return {concept: [] for concept in CONCEPTS}
    came = future(board_in(env, recording.moment(step)), actions)
    return {
        concept: [
            Arrow(row, column, int(classes[row, column]), 1.0) for row, column in np.argwhere(classes != NEVER).tolist()
        ]
        for concept in CONCEPTS
        for classes in [getattr(came, concept)[0]]
    }


def cells_that_differ(board: NDArray[np.uint8], one: Plans, other: Plans) -> NDArray[np.int64]:
    """`[B, L, N]`: of how many cells, walls left out, another class is the likeliest, of either concept. `one` may be
    of a batch of one."""
    differ = [one.probabilities[name].argmax(3) != other.probabilities[name].argmax(3) for name in CONCEPTS]
    return ((differ[0] | differ[1]) & (board != WALL)).sum((-2, -1))
