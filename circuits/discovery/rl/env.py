"""Cutting candidates as an environment: cut one, cut all out of a unit, or stop.

The reward of a step is the change of the potential, undiscounted, so that the rewards of an episode add up to the
potential at its end less that at its beginning, whatever was done between. With a discount a potential below 0 would
pay for staying where one is, and one above 0 would charge for it; here neither does, and as nothing that is cut comes
back, an episode ends after at most K cuts.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.circuits.discovery.rl.candidates import Candidates
from rl_interp.circuits.discovery.rl.task import Ledger, Task

FEATURES = (
    "is a candidate", "is a unit", "is stopping", "not cut yet", "attribution", "attribution's sign",
    "attribution's rank", "attribution of all below", "share of the candidates", "depth of the source",
    "depth of the end", "kept out of the source", "kept into the end", "kept", "attribution kept", "faithfulness",
    "faithfulness above tau", "change by the last action",
)  # fmt: skip
"""What a policy sees of each action."""


class Actions:
    """What can be done in a task: an action for each candidate, one for each unit that several come out of, and last
    stopping."""

    def __init__(self, candidates: Candidates):
        count = len(candidates)
        units, sizes = candidates.sources.unique(return_counts=True)
        self.shared = units[sizes > 1]
        """int64 `[U]`: the units that several candidates come out of."""
        self.cuts = torch.cat(
            [
                torch.eye(count, dtype=torch.bool),
                candidates.sources[None] == self.shared[:, None],
                torch.zeros(1, count, dtype=torch.bool),
            ]
        )
        """bool `[A, K]`: what each action cuts."""
        self.stop = len(self.cuts) - 1
        self._fixed = _fixed(candidates, self.cuts, count)
        scores = candidates.scores.abs()
        self._share = (scores / scores.sum()).float()
        same = [(group[:, None] == group[None]).float() for group in (candidates.sources, candidates.dests)]
        self._ends = [each / each.sum(0) for each in same]

    def __len__(self) -> int:
        return len(self.cuts)

    def allowed(self, kept: Tensor) -> Tensor:
        """bool `[B, A]` of masks bool `[B, K]`: candidates that are not cut, units out of which two or more are left,
        and stopping."""
        left = kept.float() @ self.cuts.float().T
        least = torch.ones(len(self))
        least[kept.shape[-1] : self.stop] = 2
        least[self.stop] = 0
        return left >= least

    def features(self, kept: Tensor, faithfulness: Tensor, change: Tensor, tau: float) -> Tensor:
        """float32 `[B, A, F]` between -1 and 1: see `FEATURES`.

        Args:
            faithfulness, change: `[B]`, now, and what the last action added to it.
        """
        batch, cuts = len(kept), self.cuts.float()
        on = kept.float()
        fixed = self._fixed.expand(batch, -1, -1)
        size = cuts.sum(1).clamp(min=1)
        ends = [(on @ same) @ cuts.T / size for same in self._ends]
        overall = [
            on.mean(1), on @ self._share, faithfulness.float(), (faithfulness - tau).float(), change.float()
        ]  # fmt: skip
        rows = [
            *fixed[..., :3].unbind(-1),
            (on @ cuts.T) / size,
            (on * self._share) @ cuts.T / self._share.amax(),
            *fixed[..., 3:6].unbind(-1),
            *fixed[..., 6:].unbind(-1),
            *ends,
            *(each[:, None].expand(batch, len(self)) for each in overall),
        ]
        return torch.stack(rows, -1).clamp(-1, 1)


class Pruning:
    """B episodes of one task at once.

    Rewards and ends are those of the environment; an episode that has ended stays as it is, at reward 0.

    Args:
        keep_best: whether a reward is the change of the greatest potential so far instead, so that an episode's add up
            to what was gained at its best moment. To go too far then costs nothing, and there is no reason to stop at
            once for fear of it.
    """

    def __init__(self, ledger: Ledger, episodes: int, keep_best: bool = False):
        self.ledger, self.task, self._keep_best = ledger, ledger.task, keep_best
        self.actions = Actions(self.task.candidates)
        self._episodes = episodes
        self.reset()

    def reset(self) -> None:
        """All candidates are kept again."""
        self.kept = self.task.all_kept(self._episodes)
        self.faithfulness = self.ledger(self.kept)
        self.potential = self.task.potential(self.kept, self.faithfulness)
        self.greatest = self.potential
        """float64 `[B]`: the greatest potential so far."""
        self.change = torch.zeros(self._episodes, dtype=torch.float64)
        self.ended = torch.zeros(self._episodes, dtype=torch.bool)

    def observe(self) -> Tensor:
        """float32 `[B, A, F]`."""
        return self.actions.features(self.kept, self.faithfulness, self.change, self.task.tau)

    def allowed(self) -> Tensor:
        """bool `[B, A]`."""
        return self.actions.allowed(self.kept)

    def step(self, actions: Tensor) -> Tensor:
        """float64 `[B]`: rewards of the actions int64 `[B]`. One that is not allowed changes nothing."""
        running = ~self.ended
        chosen = self.actions.cuts[actions] & running[:, None] & self.allowed().gather(1, actions[:, None])
        self.kept = self.kept & ~chosen
        faithfulness, before = self.faithfulness.clone(), self.potential
        if chosen.any():
            changed = chosen.any(1)
            faithfulness[changed] = self.ledger(self.kept[changed])
        self.change = faithfulness - self.faithfulness
        self.faithfulness = faithfulness
        self.potential = self.task.potential(self.kept, faithfulness)
        self.ended = self.ended | (actions == self.actions.stop)
        greatest, self.greatest = self.greatest, torch.maximum(self.greatest, self.potential)
        return self.greatest - greatest if self._keep_best else self.potential - before


class PruningEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One episode at a time of a task, for any library that takes Gymnasium's environments.

    An observation has a row for each action; `action_masks` tells which are allowed, and `info["action_mask"]` does. An
    episode ends by stopping, and is truncated after K + 1 steps, which only actions that are not allowed can reach.
    """

    metadata = {"render_modes": []}

    def __init__(self, task: Task):
        self.ledger = Ledger(task)
        self._pruning = Pruning(self.ledger, 1)
        count = len(self._pruning.actions)
        self.action_space = spaces.Discrete(count)
        self.observation_space = spaces.Box(-1.0, 1.0, (count, len(FEATURES)), np.float32)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._pruning.reset()
        self._steps = 0
        return self._pruning.observe()[0].numpy(), self._info()

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        reward = float(self._pruning.step(torch.tensor([int(action)]))[0])
        self._steps += 1
        ended = bool(self._pruning.ended[0])
        truncated = not ended and self._steps > len(self._pruning.task.candidates)
        return self._pruning.observe()[0].numpy(), reward, ended, truncated, self._info()

    def action_masks(self) -> NDArray[np.bool_]:
        """bool `[A]`: which actions are allowed now."""
        return self._pruning.allowed()[0].numpy()

    def _info(self) -> dict[str, Any]:
        state = self._pruning
        return {
            "action_mask": self.action_masks(),
            "potential": float(state.potential[0]),
            "faithfulness": float(state.faithfulness[0]),
            "kept": state.kept[0].numpy().copy(),
        }


def _fixed(candidates: Candidates, cuts: Tensor, count: int) -> Tensor:
    """`[A, 8]`: what does not change in an episode."""
    scores, size = candidates.scores.abs(), cuts.sum(1).clamp(min=1)
    at_most = (scores[None] <= scores[:, None]).double()
    rank, below = at_most.mean(1), at_most @ scores / scores.sum()
    kind = torch.zeros(len(cuts), 3, dtype=torch.float64)
    kind[:count, 0], kind[count:-1, 1], kind[-1, 2] = 1, 1, 1
    per_candidate = torch.stack([candidates.scores.sign(), rank, below, *candidates.depths.unbind(1)], 1)
    means = cuts.double() @ per_candidate / size[:, None]
    share = cuts.double().mean(1, keepdim=True)
    return torch.cat([kind, means[:, :3], share, means[:, 3:]], 1).float()
