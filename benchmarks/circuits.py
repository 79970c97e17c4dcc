"""Ablations a second: each of a DQN's 640 channels and neurons replaced by its mean, on 256 states of Ms. Pac-Man.

An ablation is one unit replaced in one state. Beside it: the whole agent run under a hook, one unit after the other, as
a user would. The limit is the layers after each unit alone, on values that lie ready: what the arithmetic takes if
nothing is shared between units. Ours begins with the agent and the observations, and ends with D of every unit.

Every figure is the median of repeats, which take turns. The loops and the limit are timed on some units of each layer
and counted for all, as every unit of a layer takes them the same.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Result, main
from rl_interp.agents.dqn import DQN
from rl_interp.circuits.ablation import Ablations
from rl_interp.circuits.distance import Distance
from rl_interp.circuits.importance import importance
from rl_interp.circuits.states import States
from rl_interp.core.envs import AtariConfig, make_vector
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import Mean

STATES = 256
LAYERS = {"conv1.post": "relu1", "conv2.post": "relu2", "conv3.post": "relu3", "fc.post": "relu4"}
SAMPLED = 2
REPEATS = 3


def observations() -> Tensor:
    """`[STATES, 4, 84, 84]` of random play."""
    env = make_vector(AtariConfig(), 32)
    obs, rng, kept = env.reset(0), np.random.default_rng(0), []
    for step in range(160):
        env.send(rng.integers(9, size=32))
        obs = env.recv().obs
        if step >= 160 - STATES // 32:
            kept.append(obs.copy())
    env.close()
    return torch.from_numpy(np.concatenate(kept))


def ours(agent: DQN, obs: Tensor, distance: Distance) -> dict[str, Tensor]:
    """D of every unit."""
    found = {}
    for at in LAYERS:
        ablations = Ablations(agent, States(obs), at)
        found[at] = importance(ablations, _means(ablations.values), distance).kl
    return found


@torch.no_grad()
def one_at_a_time(agent: DQN, obs: Tensor, distance: Distance, at: str, values: Tensor, units: range) -> Tensor:
    """D of some units of a layer, each by a whole pass under a hook."""
    own, mean = agent.step(obs).preferences, _means(values)
    changed = (run_with_hooks(agent, obs, hooks={at: Mean(at, mean=mean, units=[unit])}) for unit in units)
    return torch.stack([distance(own, out.preferences).mean() for out in changed])


@torch.no_grad()
def layers_after(after: nn.Module, values: Tensor) -> None:
    for part in values.split(64):
        after(part)


def measure() -> Result:
    """Ablations of a DQN's units, a second."""
    torch.manual_seed(0)
    agent, obs, distance = DQN(9).eval(), observations(), Distance(0.01)
    _, cache = run_with_cache(agent, obs, names=list(LAYERS))
    values = {at: cache[at].detach() for at in LAYERS}
    units = {at: value.shape[1] for at, value in values.items()}
    children = list(agent.named_children())
    after = {
        at: nn.Sequential(*(module for _, module in children[[name for name, _ in children].index(path) + 1 :]))
        for at, path in LAYERS.items()
    }
    found = ours(agent, obs, distance)
    for at in LAYERS:
        wanted = one_at_a_time(agent, obs, distance, at, values[at], range(SAMPLED))
        torch.testing.assert_close(found[at][:SAMPLED], wanted, rtol=1e-2, atol=1e-9)
    times: dict[str, list[float]] = {"ours": [], "hooks": [], "limit": []}
    for _ in range(REPEATS):
        times["ours"].append(_seconds(lambda: ours(agent, obs, distance)))
        times["hooks"].append(
            sum(
                units[at] / SAMPLED
                * _seconds(lambda at=at: one_at_a_time(agent, obs, distance, at, values[at], range(SAMPLED)))
                for at in LAYERS
            )
        )  # fmt: skip
        times["limit"].append(
            sum(units[at] * _seconds(lambda at=at: layers_after(after[at], values[at])) for at in LAYERS)
        )
    count = sum(units.values()) * STATES
    rates = {name: count / median(each) for name, each in times.items()}
    parts = {at: Ablations(agent, States(obs[:2]), at) for at in LAYERS}
    cost = {at: [part.passes.arithmetic, part.passes_of_layer.arithmetic] for at, part in parts.items()}
    return Result(
        "circuits",
        "ablations/s",
        rates["ours"],
        {"one unit at a time, under a hook": rates["hooks"]},
        rates["limit"],
        {
            "units": sum(units.values()),
            "states": STATES,
            "arithmetic of an ablation and of the layers after, of a whole pass's": cost,
        },
    )


def _means(values: Tensor) -> Tensor:
    return values.mean(0)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(measure, ())
