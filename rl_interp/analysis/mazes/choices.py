"""What a maze agent chooses where its mouse stands, above all at the decision square, where the way to the cheese
leaves the way to the corner. The policy is asked there without playing on; an agent with a memory is asked as if the
episode began there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.core.agent import Agent, PolicyOutput, evaluating
from rl_interp.core.envs.maze import ACTIONS, MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.truth import nearer
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hook_point, run_with_cache
from rl_interp.core.interventions import Intervention, intervened
from rl_interp.core.stats import bootstrap, mean

Choices = tuple[NDArray[np.floating], NDArray[np.floating]]
"""P(step towards the cheese) and P(step towards the corner), `[N]` each."""
Steps = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""`[N, 4]` each: which steps lead nearer to the cheese, and which to the corner."""


def maze_env(loaded: Loaded) -> MazeConfig:
    """The environment of a maze agent.

    Raises:
        UserError: it plays something else.
    """
    if not isinstance(loaded.env, MazeConfig):
        raise UserError(
            f"{loaded.run.path} is an agent in {loaded.env.id}, and this is about mazes: give a maze agent."
        )
    return loaded.env


def draw_mazes(config: MazeConfig, count: int, seed: int) -> Mazes:
    """The mazes of the first `count` episodes that one environment plays from `seed` on."""
    return Mazes.draw(config, [episode_seed(seed, 0, i) for i in range(count)])


@torch.no_grad()
def ask(agent: Agent, mazes: Mazes, interventions: Sequence[Intervention] = ()) -> PolicyOutput:
    """What an agent decides in mazes as they stand, `[N, ...]`.

    Raises:
        UserError: the agent's actions are not a maze's.
    """
    obs = torch.from_numpy(mazes.observations()).to(agent.device)
    with evaluating(agent), intervened(agent, interventions):
        out = agent.step(obs, agent.initial_state(len(obs)))
    if out.preferences.shape[1] != len(ACTIONS):
        raise UserError(f"the agent has {out.preferences.shape[1]} actions, a maze {len(ACTIONS)}: give a maze agent.")
    return out


@torch.no_grad()
def activations(agent: Agent, mazes: Mazes, at: str) -> Tensor:
    """`[N, ...]` at a hook point, for mazes as they stand."""
    hook_point(agent, at)
    obs = torch.from_numpy(mazes.observations()).to(agent.device)
    return run_with_cache(agent, obs, names=[at])[1][at]


def probabilities(out: PolicyOutput) -> NDArray[np.float32]:
    """`[N, A]`."""
    return out.preferences.float().softmax(-1).cpu().numpy()


def at_decision_square(mazes: Mazes) -> Mazes:
    """The mazes with their mice moved to the decision square.

    Raises:
        UserError: a maze has none.
    """
    return mazes.edit(mouse=decision_squares(mazes))


def decision_squares(mazes: Mazes) -> NDArray[np.int64]:
    """`[N, 2]`: the cells.

    Raises:
        UserError: a maze has none.
    """
    without = (mazes.decision < 0).any(1)
    if without.any():
        raise UserError(f"maze {int(np.argmax(without))} has no decision square: draw mazes with decision=True.")
    return mazes.decision


def choices(agent: Agent, mazes: Mazes, interventions: Sequence[Intervention] = ()) -> Choices:
    """What the policy says at the decision squares."""
    there = at_decision_square(mazes)
    return choices_of(ask(agent, there, interventions), towards(there))


def choices_of(out: PolicyOutput, steps: Steps) -> Choices:
    """What a policy's output says of steps, from `towards`."""
    of_steps = probabilities(out)[:, :4]
    cheese, corner = ((of_steps * each).sum(1) for each in steps)
    return cheese, corner


def towards(mazes: Mazes) -> Steps:
    """Which steps lead nearer to the goals, from where the mice stand."""
    each = np.arange(len(mazes)), mazes.mouse[:, 0], mazes.mouse[:, 1]
    cheese, corner = (nearer(mazes.distances(to), mazes.walls)[:, *each].T for to in (mazes.cheese, mazes.corner))
    return cheese, corner


@dataclass(frozen=True)
class Effect:
    """What an intervention does in N mazes: the mean change of P(step towards the cheese) and of P(step towards the
    corner), with the 95% interval of the first over mazes; None of too few."""

    cheese: float
    low: float | None
    high: float | None
    corner: float

    @property
    def real(self) -> bool:
        """Whether there is an interval, and it excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @staticmethod
    def between(before: Choices, after: Choices) -> "Effect":
        """The change from one to the other, in the same mazes."""
        changed = after[0] - before[0]
        cheese = bootstrap([changed], mean)
        return Effect(cheese.value, cheese.low, cheese.high, float((after[1] - before[1]).mean()))


def effect(agent: Agent, mazes: Mazes, interventions: Sequence[Intervention]) -> Effect:
    """What interventions do at the decision squares."""
    return Effect.between(choices(agent, mazes), choices(agent, mazes, interventions))
