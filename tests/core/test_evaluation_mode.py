"""Whatever runs an agent runs it in evaluation mode, and leaves every module in the mode that it was in."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from rl_interp import check_agent, evaluate, run_with_cache, run_with_hooks, wrap
from rl_interp.core.agent import evaluating
from rl_interp.core.collect import collect
from rl_interp.core.envs import MazeConfig, Step
from rl_interp.core.hooks import hooked
from rl_interp.core.interventions import Zero
from rl_interp.core.partial_forward import PartialForward
from rl_interp.core.receptive_fields import receptive_fields
from rl_interp.core.replay import Episode, activations
from rl_interp.saliency import METHODS, Advantage, Feature, randomisation_check, saliency_map

CONFIG = MazeConfig(max_side=5)


class Net(nn.Module):
    """A policy for mazes that trains with dropout and batch norm, one of which is frozen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.fc, self.frozen, self.head = nn.Linear(4 * 256, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)
        self.frozen.eval()

    def forward(self, obs):
        x = self.drop(self.norm(self.conv(obs.float() / 255)).relu())
        return self.head(self.frozen(self.fc(x.flatten(1))))


@pytest.fixture
def agent():
    return wrap(Net(), {"conv": ("conv", "B C H W"), "fc": ("fc", "B D")})


@pytest.fixture
def obs():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8))


def _collect(agent, obs, tmp_path):
    return collect(agent, CONFIG, "fc", 10, tmp_path / f"{len(list(tmp_path.iterdir()))}", seed=0, num_envs=2).read(
        [0, 1]
    )


class Scripted:
    """Two environments of five steps, which pay what is done."""

    num_envs = 2

    def reset(self, seed):
        self.t, self.rng = 0, np.random.default_rng(seed)
        return self.rng.integers(0, 256, (2, 3, 64, 64), np.uint8)

    def send(self, actions):
        self.actions = actions.astype(np.float32)

    def recv(self):
        self.t += 1
        no, done = np.zeros(2, bool), np.full(2, self.t % 5 == 0)
        return Step(self.rng.integers(0, 256, (2, 3, 64, 64), np.uint8), self.actions, done, no, no, {})


def _evaluate(agent, obs, tmp_path):
    return evaluate(agent, Scripted(), 4, seed=0, interventions=[Zero("conv", units=[0])]).returns


ENTRIES = {
    "run_with_hooks": lambda agent, obs, _: run_with_hooks(agent, obs, hooks={}).logits,
    "run_with_cache": lambda agent, obs, _: run_with_cache(agent, obs, names=["fc"])[1]["fc"],
    "evaluate": _evaluate,
    "collect": _collect,
    "rerun": lambda agent, obs, _: PartialForward(agent, obs, "fc")(torch.ones(3, 8)).logits,
    "probes": lambda agent, obs, _: activations(agent, Episode(obs.numpy(), np.zeros(3, np.int64)), ["fc"])["fc"],
    "positions": lambda agent, obs, _: receptive_fields(agent, "conv", obs[:1]).start,
    "contract": lambda agent, obs, _: check_agent(agent, obs),
    "feature": lambda agent, obs, _: saliency_map(agent, obs, Feature("fc", lambda x: x, 2)),
    "control": lambda agent, obs, _: randomisation_check(agent, obs, Advantage(), "gradient"),
    **{
        method: lambda agent, obs, _, method=method: METHODS[method](agent, obs, Advantage())
        for method in METHODS
        if method != "lrp" or find_spec("zennit")
    },
}  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_entry_runs_in_evaluation_mode_and_restores_each_modules_own(agent, obs, entry, tmp_path):
    modes = [module.training for module in agent.modules()]
    buffers = {name: value.clone() for name, value in agent.named_buffers()}
    given = [entry(agent, obs, tmp_path) for _ in range(2)]
    assert [module.training for module in agent.modules()] == modes
    assert all(torch.equal(buffers[name], value) for name, value in agent.named_buffers())
    agent.eval()
    for each in (given[1], entry(agent, obs, tmp_path)):
        if each is not None:
            np.testing.assert_array_equal(*(np.asarray(torch.as_tensor(x).detach()) for x in (given[0], each)))


def test_modes_are_restored_after_an_error_and_by_the_modules_own_train(agent, obs):
    switched = []

    class Merging(nn.Linear):
        """Does something when it is switched, as adapters do that are merged into weights."""

        def train(self, mode=True):
            switched.append(mode)
            return super().train(mode)

    agent.module.head = Merging(8, 5)
    modes = [module.training for module in agent.modules()]
    with pytest.raises(ZeroDivisionError):
        run_with_hooks(agent, obs, hooks={"fc": lambda value, site: 1 / 0})
    assert [module.training for module in agent.modules()] == modes
    assert switched[0] is False
    assert switched[-1] is True


def test_hooked_leaves_modes_alone_so_that_an_agent_can_be_trained_under_hooks(agent, obs):
    with hooked(agent, {"fc": lambda value, site: None}):
        assert agent.training
        agent.step(obs)
    with evaluating(agent):
        assert not any(module.training for module in agent.modules())
