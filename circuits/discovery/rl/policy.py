"""A policy that is shared by all candidates, whatever their number and whatever the behaviour."""

import torch
from torch import Tensor, nn

from rl_interp.circuits.discovery.rl.env import FEATURES


class PruningPolicy(nn.Module):
    """Sees each action by its features, and all that are allowed by their mean and maximum (a deep set, Zaheer et al.
    2017, arXiv 1703.06114), so that the order of candidates does not matter and their number may vary."""

    def __init__(self, hidden: int = 64, features: int = len(FEATURES)):
        super().__init__()
        self.each = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.score = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.value = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        for last in (self.score[-1], self.value[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)  # at first all allowed actions are as likely, and nothing is expected
            nn.init.zeros_(last.bias)

    def forward(self, rows: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, A]`, -inf where an action is not allowed, and the expected sum of rewards `[B]`, from features
        `[B, A, F]` and bool `[B, A]`."""
        seen = self.each(rows)
        here = allowed[..., None]
        mean = (seen * here).sum(1) / here.sum(1)
        around = torch.cat([mean, seen.masked_fill(~here, 0).amax(1)], -1)
        both = torch.cat([seen, around[:, None].expand(*seen.shape[:2], -1)], -1)
        logits = self.score(both)[..., 0].masked_fill(~allowed, -torch.inf)
        return logits, self.value(around)[..., 0]
