"""States that an agent was in, on which its circuits are looked for and measured."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_interp.core.agent import Agent, State, tree_map
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hook_point, run_with_cache

_AT_ONCE = 256


@dataclass(frozen=True)
class States:
    """N states: what the agent saw in each, and what it remembered when it came there.

    Raises:
        UserError: no states, or parts that are not of equally many.
    """

    obs: Tensor
    """`[N, ...]`."""
    memory: State = ()
    """The agent's own state before each step, leaves `[N, ...]`; `()` for an agent without memory."""
    steps: Tensor | None = None
    """int64 `[N]`: of the episode, from 0."""
    episodes: Tensor | None = None
    """int64 `[N]`: which episode each is of."""
    counterfactual: "States | None" = None
    """What each would be with one thing changed."""

    def __post_init__(self) -> None:
        if not len(self.obs):
            raise UserError("no states given; give at least one.")
        sizes = {len(self.obs)} | {len(part) for part in (self.steps, self.episodes) if part is not None}
        tree_map(lambda leaf: (sizes.add(len(leaf)), leaf)[1], self.memory)
        if self.counterfactual is not None:
            sizes.add(len(self.counterfactual))
        if len(sizes) > 1:
            raise UserError(f"the parts of the states are of {sorted(sizes)} states; give as many of each.")

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, rows: Tensor | slice) -> "States":
        """Some of them, by index or by a boolean for each."""
        steps, episodes, other = (None if part is None else part[rows] for part in self._parts())
        return States(self.obs[rows], tree_map(lambda leaf: leaf[rows], self.memory), steps, episodes, other)  # pyright: ignore[reportArgumentType]

    def _parts(self) -> "tuple[Tensor | None, Tensor | None, States | None]":
        return self.steps, self.episodes, self.counterfactual

    def split(self, size: int) -> "Iterator[States]":
        """All of them in order, at most `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


@torch.no_grad()
def values_at(agent: Agent, states: States, at: str) -> Tensor:
    """`[N, ...]`: the value at a hook point in each state.

    Raises:
        HookError: no such hook point, or one that the agent does not pass through when it acts.
    """
    recurrent, found = hook_point(agent, at).kind == "recurrent", []
    for some in states.split(_AT_ONCE):
        _, cache = run_with_cache(agent, some.obs, some.memory or None, names=[at])
        found.append(cache[at][-1] if recurrent else cache[at])
    return torch.cat(found)
