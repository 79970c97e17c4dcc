"""When a diffusion policy decides, on one whose denoiser is exact: two ways, of which the goal may name one."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rl_interp.agents import beso
from rl_interp.agents.beso.network import GOAL
from rl_interp.agents.transformer.network import Point
from rl_interp.analysis.denoising.deciding import PLACES, decide_ways
from rl_interp.analysis.denoising.samplers import compare_samplers
from rl_interp.core.errors import UserError

WAY, SPREAD = 0.5, 0.05
"""Height of the two actions, in the network's units, and their standard deviation."""


class Exact(nn.Module):
    """E[a | x] where a is at ±WAY, each with the same probability, or as the goal's token says."""

    def __init__(self):
        super().__init__()
        self.noised, self.denoised, self.final = Point(), Point(), Point()
        self.trunk = nn.Module()
        self.trunk.embed, self.trunk.blocks = Point(), nn.ModuleList([Point()])

    def forward(self, noised, sigma, states, goal, acting=None):
        noised = self.noised(noised)
        tokens = noised.new_zeros(len(noised), 2 + 2 * noised.shape[1], 2)
        tokens[:, GOAL, 0] = 50 * torch.sign(goal[:, 1]) * (goal[:, 1].abs() > 0.5)
        tokens[:, GOAL + 2 :: 2] = noised
        tokens = self.trunk.blocks[0](self.trunk.embed(tokens))
        x, told = tokens[:, GOAL + 2 :: 2], tokens[:, GOAL, 0]
        total = SPREAD**2 + sigma[:, None] ** 2
        above = torch.sigmoid(2 * WAY * x[..., 1] / total + told[:, None])
        centre = torch.stack([torch.zeros_like(above), WAY * (2 * above - 1)], -1)
        shrink = (SPREAD**2 / total)[..., None]
        return self.denoised(centre + shrink * (x - centre))


@pytest.fixture
def loaded(tmp_path):
    config = beso.default_config("rl_interp/TwoWays-v0", layers=1, width=2, heads=1, hidden=1, window=2)
    agent = beso.make_agent(config).eval()
    agent.denoiser = Exact()
    agent.scaling.action_std.fill_(0.2)
    run = SimpleNamespace(outputs=tmp_path, path=tmp_path)
    return SimpleNamespace(agent=agent, env=config.env, run=run, source={"run": str(tmp_path)}, weights_sha256="0" * 64)


@pytest.mark.full
def test_the_goal_decides_until_the_noised_action_has(loaded):
    found = decide_ways(loaded, states=200, steps=8)
    ways = found["ways"]
    assert ways["above"]["above"] == 1.0
    assert ways["below"]["above"] == 0.0
    assert abs(ways["end"]["above"] - 0.5) < 0.1
    assert ways["end"]["entropy"] > 0.97
    kept = [row["first_goal"] for row in found["swapped"]]
    assert kept[0] == 0.0  # told the other goal from the start
    assert kept[-1] == 1.0  # never told
    assert kept == sorted(kept)
    read = {(row["read"], row["step"]): row for row in found["probed"]}
    assert read["noised", 7]["auroc"] > 0.99
    assert read["noised", 0]["auroc"] > 0.9  # the sign of the first noise is the way
    assert abs(read["block0.sum", 0]["shuffled_labels"] - 0.5) < 0.1


def test_patches_tell_the_place_that_holds_the_goal_from_those_that_do_not(loaded):
    found = decide_ways(loaded, states=120, steps=2)
    at = {(row["layer"], row["step"], row["place"]): row for row in found["patched"]}
    assert {row["place"] for row in found["patched"]} == set(PLACES)
    assert at["embed", 0, "state"]["effect"] == 0.0
    assert at["embed", 0, "goal"]["effect"] == at["block0.sum", 0, "goal"]["effect"] > 0.5
    assert at["embed", 0, "goal"]["control"] == pytest.approx(0.0, abs=1e-6)
    assert json.loads((loaded.run.outputs / "analyses" / "denoising" / "decide.json").read_text())["layers"]


def test_samplings_are_compared_on_the_same_episodes_and_the_run_keeps_its_own(loaded):
    own = loaded.agent.sampling
    found = compare_samplers(loaded, steps=[1, 3], samplers=["euler", "heun"], guidance=[0.0, 1.0], episodes=6)
    assert [(row["sampler"], row["steps"], row["passes"]) for row in found["samplings"][:4]] == [
        ("euler", 1, 1), ("euler", 3, 3), ("heun", 1, 1), ("heun", 3, 5),
    ]  # fmt: skip
    assert [row["guidance"] for row in found["samplings"][4:]] == [0.0, 1.0]
    assert loaded.agent.sampling == own


def test_what_does_not_denoise_or_has_not_two_ways_is_refused(loaded):
    clone = beso.make_agent(beso.default_config("rl_interp/TwoWays-v0", objective="mse"))
    with pytest.raises(UserError, match=r"holds ClonedMean, which does not sample by denoising"):
        compare_samplers(SimpleNamespace(agent=clone, run=loaded.run))
    loaded.env = SimpleNamespace(id="PointMaze_UMaze-v3")
    with pytest.raises(UserError, match=r"PointMaze_UMaze-v3 given; when a way is decided"):
        decide_ways(loaded)


def test_an_exact_denoiser_keeps_both_ways_whatever_the_sampler(loaded):
    agent = loaded.agent
    states, goal = torch.zeros(2_000, 2, 2), torch.zeros(2_000, 2)
    key = agent.reseeded(agent.initial_state(2_000), np.random.default_rng(0))[2]
    for sampler in ("euler", "ancestral", "heun", "dpm++2m"):
        agent.sampling = replace(agent.sampling, sampler=sampler, steps=30, guidance=0.0)
        y = agent.sample(states, goal, key)[:, 0, 1]
        assert abs((y > 0).double().mean() - 0.5) < 0.05
        assert abs(y.abs().mean() - WAY) < 0.02
