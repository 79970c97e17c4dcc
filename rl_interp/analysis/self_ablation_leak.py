"""What the masks of a self-ablated agent tell: the leak test, whether they alone say which action it takes.

A mask is made by the agent itself, so it can carry the decision instead of cutting away what the decision does not
need. What can be read from masks is told by probes, fitted on some episodes and scored on others, beside the same
probes on the activations of the same units, each binarised at its median, and beside shuffled labels.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.impala.self_ablation import ablated, winners
from rl_interp.agents.load import Loaded
from rl_interp.core.agent import Agent
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.interventions import as_hooks
from rl_interp.core.replay import replay
from rl_interp.core.stats import bootstrap, plain
from rl_interp.core.store import ActivationStore

HELD_OUT = 0.3
"""Share of the episodes that probes are scored on."""


@dataclass(frozen=True)
class Followed:
    """What an agent and its ablated stream computed along N recorded steps, by layer (`fc`, `conv1`)."""

    episodes: NDArray[np.int64]
    """`[N]`."""
    actions: NDArray[np.int64]
    """`[N]`: the agent's greedy ones."""
    units: dict[str, NDArray[np.float32]]
    """`[N, D]`: the agent's activations; of channels, their mean over positions."""
    masks: dict[str, NDArray[np.bool_]]
    """`[N, D]`: which units won in the ablated stream; none without one."""
    won: dict[str, NDArray[np.float32]]
    """`[D]`: a unit's mean activation in the ablated stream where it won."""
    policies: dict[str, NDArray[np.float32]]
    """`[N, A]`: probabilities of the actions by the `agent` and, if there is one, its `ablated` stream."""


@torch.no_grad()
def follow(loaded: Loaded, store: ActivationStore) -> Followed:
    """The recorded episodes of a store, followed by the agent and by its ablated stream."""
    agent, parts = loaded.agent, []
    k = loaded.run.config.get("self_ablation", 0)
    for number, episode in enumerate(replay(loaded.env, store)):
        obs = torch.from_numpy(episode.obs)[:, None]
        names = list(layers(agent))
        out, cache = run_with_cache(agent, obs, names=[f"{name}.post" for name in names], unroll=True)
        part = {f"units {name}": by_unit(cache[f"{name}.post"]) for name in names}
        if k:
            stream = ablated(agent)
            points = [point for each in stream for point in (each.at, each.scores)]
            cut, cache = run_with_cache(agent, obs, names=points, hooks=as_hooks(stream), unroll=True)
            part["policy ablated"] = cut.preferences.softmax(-1).flatten(0, -2)
            for each in stream:
                name = each.at.removesuffix(".post")
                part |= {f"masks {name}": winners(cache[each.scores], k), f"cut {name}": by_unit(cache[each.at])}
        part["policy agent"] = out.preferences.softmax(-1).flatten(0, -2)
        part["actions"] = out.preferences.argmax(-1).flatten()
        parts.append({name: value.numpy() for name, value in part.items()} | {"episodes": np.full(len(obs), number)})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def of(kind: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(kind): whole[name] for name in whole if name.startswith(kind)}

    masks = {name: mask > 0 for name, mask in of("masks ").items()}
    won = {name: cut.sum(0) / np.maximum(masks[name].sum(0), 1) for name, cut in of("cut ").items()}
    return Followed(whole["episodes"], whole["actions"], of("units "), masks, won, of("policy "))


def layers(agent: Agent, wider_than: int = 0) -> Iterator[str]:
    """The layers with a nonlinearity that self-ablation can cut: `conv1`, `block1.res1`, `fc` and so on."""
    for name, point in agent.hook_points.items():
        before = agent.hook_points.get(name.removesuffix(".post") + ".pre")
        if name.endswith(".post") and before is not None:
            width = len(agent.get_submodule(before.path).weight)  # pyright: ignore[reportArgumentType]
            if width > wider_than and point.kind != "recurrent":
                yield name.removesuffix(".post")


def by_unit(value: Tensor) -> Tensor:
    """`[B, D]`: of channels, the mean over positions."""
    return value.flatten(2).mean(2) if value.dim() > 2 else value


def leak(seen: Followed, seed: int = 0) -> dict[str, Any]:
    """Share of held-out steps whose greedy action a probe tells, with its 95% bootstrap interval over episodes, by what
    it is fitted on (`fc` alone, or all layers together) and by probe."""
    held_out = _held_out(seen.episodes, seed)
    sets: dict[str, NDArray[np.bool_]] = {}
    units = {name: seen.units[name] for name in bits_of(seen)}
    for name, columns in (("masks", seen.masks), ("units at their medians", _binarised(units, ~held_out))):
        if columns:
            sets |= {f"{name}, fc": columns["fc"], f"{name}, all": np.concatenate(list(columns.values()), 1)}
    most = np.bincount(seen.actions[~held_out]).argmax()
    result = {"most frequent action": _accuracy(seen.actions[held_out] == most, seen.episodes[held_out])}
    shuffled = seen.actions.copy()
    shuffled[~held_out] = np.random.default_rng(seed).permutation(shuffled[~held_out])
    for name, bits in sets.items():
        for labels, suffix in ((seen.actions, ""), (shuffled, ", shuffled labels")):
            for kind in ("linear", "mlp") if name.endswith("all") else ("linear",):
                right = _probe(kind, bits, labels, held_out, seed) == seen.actions[held_out]
                result[f"{kind}: {name}{suffix}"] = _accuracy(right, seen.episodes[held_out])
    return result


def _held_out(episodes: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """`[N]`: whether a step is of the episodes to be scored on; whole ones, as the steps of one are alike."""
    order = np.random.default_rng(seed).permutation(np.unique(episodes))
    if len(order) < 2:
        raise UserError(
            f"the {len(episodes)} recorded steps are of one episode, and probes are scored on other episodes than they "
            "are fitted on; record more (--samples)."
        )
    return np.isin(episodes, order[: max(1, round(HELD_OUT * len(order)))])


def information(policy: NDArray[np.floating[Any]]) -> float:
    """Nats that an action, drawn from a policy `[N, A]`, tells of the state: the mutual information of the two, which
    is 0 if the policy is the same in all N states and at most its entropy."""
    from scipy.stats import entropy

    p = np.asarray(policy, np.float64)
    return float(entropy(p.mean(0)) - entropy(p, axis=1).mean())


def bits_of(seen: Followed) -> dict[str, int]:
    """By layer, the units that are masked or, without masks, all: the bits that a probe is given."""
    return {name: bits.shape[1] for name, bits in (seen.masks or seen.units).items()}


def _binarised(units: dict[str, NDArray[np.float32]], fitted: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    return {name: values > np.median(values[fitted], 0) for name, values in units.items()}


def _probe(
    kind: str, bits: NDArray[np.bool_], labels: NDArray[np.int64], held_out: NDArray[np.bool_], seed: int
) -> NDArray[np.int64]:
    """What a probe, fitted on the other steps, says of those held out."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if len(np.unique(labels[~held_out])) == 1:
        return labels[~held_out][:1]
    linear = LogisticRegression(max_iter=100, C=0.1)
    model = linear if kind == "linear" else MLPClassifier((64,), max_iter=20, random_state=seed)
    given = bits.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many steps are all that it is given
        return np.asarray(model.fit(given[~held_out], labels[~held_out]).predict(given[held_out]))


def _accuracy(right: NDArray[np.bool_], episodes: NDArray[np.int64]) -> dict[str, Any]:
    """The share of all steps; its interval is by drawing whole episodes, long ones and short ones."""
    number = np.unique(episodes, return_inverse=True)[1]
    rights, steps = np.bincount(number, right), np.bincount(number)

    def share(drawn: NDArray[np.float64]) -> float:
        rows = drawn.astype(int)
        return rights[rows].sum() / steps[rows].sum()

    found = bootstrap([np.arange(len(steps))], share)
    return {"value": found.value, "interval": plain(found)}
