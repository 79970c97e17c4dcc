"""Claims about features, put to the test: "feature 12 held high makes RIGHT more likely".

A statement is about what the agent does, so it is tested by intervening: on held-out states the feature is set to a
value, everything else left as it is, and the probability of the actions is compared with what it was, and with what
random directions of the same norm do over the same distances.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.core.errors import UserError, unknown
from rl_interp.core.stats import bootstrap
from sae.measure.effects import activation
from sae.model import SAE

CONTROLS = 20
"""Random directions."""
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Of the value that counts as high."""
_FORM = re.compile(r"\s*(\S+)\s+(high|off)\s*:\s*(\S+)\s+(more|less)\s*")


@dataclass(frozen=True)
class Statement:
    """`FEATURE high|off: ACTION[,ACTION...] more|less`."""

    feature: int
    change: Literal["high", "off"]
    actions: tuple[int, ...]
    claim: Literal["more", "less"]
    text: str

    @classmethod
    def parse(cls, text: str, actions: Sequence[str], feature_of: Callable[[str], int]) -> "Statement":
        """From e.g. `12 high: LEFT,UPLEFT less`; `feature_of` names the feature of what is no number, a concept.

        Raises:
            UserError: another form, or an unknown action.
        """
        match = _FORM.fullmatch(text)
        if not match:
            raise UserError(
                f"{text!r} is no statement; it has the form FEATURE high|off: ACTION more|less, such as '12 high: LEFT "
                "more'."
            )
        name, change, named, claim = match.groups()
        for action in named.split(","):
            if action not in actions:
                raise UserError(unknown("action", action, actions))
        feature = int(name) if name.isdecimal() else feature_of(name)
        chosen = tuple(actions.index(action) for action in named.split(","))
        return cls(feature, change, chosen, claim, text)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Outcome:
    """Changes of the probability of a statement's actions: of a Q-value agent's greedy choice, of a policy's own."""

    statement: str
    feature: int
    value: float
    """What the feature was set to."""
    before: float
    """The actions' probability, nothing changed."""
    effect: float
    """Mean change over states."""
    control: float
    """Mean change by random directions."""
    difference: float
    interval: tuple[float, float]
    """95% bootstrap interval of the difference, over episodes."""
    passed: bool
    """Whether the interval is on the claimed side of zero."""
    dose: list[tuple[float, float]]
    """Values of the feature, and the effect of each."""


@torch.no_grad()
def judge(
    statement: Statement,
    sae: SAE,
    x: Tensor,
    episodes: NDArray[np.integer],
    head: Callable[[Tensor], Tensor],
    high: float,
    greedy: bool,
    seed: int = 0,
) -> Outcome:
    """Test one statement on states with activations `x [N, D]` of the given `episodes [N]`, or, at all of a layer's P
    positions, on `x [N, P, D]`.

    Args:
        head: preferences `[N, A]` from activations like `x`.
        high: the value that counts as high for the feature.
        greedy: the agent takes its largest preference; otherwise it samples from their softmax.

    Raises:
        UserError: no such feature, or states of fewer than two episodes.
    """
    if not 0 <= statement.feature < sae.d_sae:
        raise UserError(f"feature {statement.feature} given; the autoencoder has features 0 to {sae.d_sae - 1}.")
    if len(np.unique(episodes)) < 2:
        raise UserError("the states are of one episode; a test needs several: collect more.")
    active = activation(sae.encode_sparse(x.flatten(0, -2)), statement.feature).view(x.shape[:-1])
    direction = sae.W_dec[statement.feature]

    def probability(values: Tensor) -> Tensor:
        preferences = head(values)
        actions = torch.as_tensor(statement.actions)
        if greedy:
            return torch.isin(preferences.argmax(1).cpu(), actions).float()
        return preferences.softmax(1)[:, actions].sum(1).cpu()

    def moved(value: float, along: Tensor) -> Tensor:
        return probability(x + (value - active)[..., None] * along)

    before = probability(x)
    value = high if statement.change == "high" else 0.0
    effect = moved(value, direction) - before
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(CONTROLS, len(direction), generator=generator).to(direction)
    noise *= direction.norm() / noise.norm(dim=1, keepdim=True)
    control = torch.stack([moved(value, each) - before for each in noise]).mean(0)
    by_episode = _episode_means((effect - control).numpy(), episodes)
    interval = bootstrap([by_episode], lambda means: float(means.mean()), seed=seed)
    sign = 1 if statement.claim == "more" else -1
    return Outcome(
        statement=statement.text,
        feature=statement.feature,
        value=value,
        before=before.mean().item(),
        effect=effect.mean().item(),
        control=control.mean().item(),
        difference=float(by_episode.mean()),
        interval=(interval.low, interval.high),
        passed=bool(min(sign * interval.low, sign * interval.high) > 0),
        dose=[(dose * high, (moved(dose * high, direction) - before).mean().item()) for dose in DOSES],
    )


def _episode_means(values: NDArray[np.float32], episodes: NDArray[np.integer]) -> NDArray[np.float64]:
    _, index = np.unique(episodes, return_inverse=True)
    return np.bincount(index, values) / np.bincount(index)
