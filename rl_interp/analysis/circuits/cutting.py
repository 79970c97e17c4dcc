"""Playing on without the half of the units that matters least."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.layers import Layer, cut_by
from rl_interp.circuits.replacement import Kind, intervention
from rl_interp.core.envs import make_vector
from rl_interp.core.interventions import Intervention
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import evaluate
from rl_interp.core.stats import bootstrap, mean

_ENVS = 16
AGENT, RANDOM = "agent", "random"


def play_without_half(
    loaded: Loaded,
    layers: Mapping[str, Layer],
    cut: Kind | None,
    episodes: int,
    seed: int,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Returns of whole episodes as trained, without the least important half of each layer by each kind's ranking, and
    without a random half; units are cut all the time, and what takes their place is the same for all rankings.

    Episodes of equal numbers begin alike and have the same random numbers, so that differences are paired.

    Args:
        cut: what takes the place of the units; None for optimal constants where there are some, else the mean, position
            by position.

    Returns:
        `cut`; `returns`, a condition's mean return with its interval; and `differences` from the agent.
    """
    kind = cut_by(cut, (layer.bank for layer in layers.values()))
    rng = np.random.default_rng(seed)
    halves = {AGENT: {}, RANDOM: {hook: rng.permutation(layer.bank.units) for hook, layer in layers.items()}}
    for name in next(iter(layers.values())).kinds:
        halves[name] = {hook: np.argsort(layer.kl(name), kind="stable") for hook, layer in layers.items()}
    env, returns = make_vector(loaded.env, min(episodes, _ENVS)), {}
    with progress.bar("Playing without half of the units", len(halves) * episodes, "episodes") as update:
        for i, (name, orders) in enumerate(halves.items()):
            returns[name] = evaluate(
                loaded.agent, env, episodes, seed=seed, interventions=_without(layers, orders, kind, seed),
                progress=lambda finished, before=i * episodes: update(before + finished),
            ).returns  # fmt: skip
    env.close()
    own = returns[AGENT]
    return {
        "cut": kind,
        "episodes": episodes,
        "returns": {name: vars(bootstrap([each], mean)) for name, each in returns.items()},
        "differences": {name: vars(bootstrap([each - own], mean)) for name, each in returns.items() if name != AGENT},
    }


def _without(
    layers: Mapping[str, Layer], orders: Mapping[str, NDArray[np.integer]], kind: Kind, seed: int
) -> Sequence[Intervention]:
    """The first half of the units of each layer, in some order, replaced."""
    return [
        intervention(kind, layers[hook].bank, order[: len(order) // 2].tolist(), seed) for hook, order in orders.items()
    ]
