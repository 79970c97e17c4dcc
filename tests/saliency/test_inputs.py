"""What every method does with an agent and observations of one kind or another: mapped as the agent takes them, or
refused in a sentence."""

import numpy as np
import pytest
import torch
from map_agents import ANY, SIZE, OneSpot, Vectors
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.saliency import (
    Ablation,
    Advantage,
    Chosen,
    Feature,
    Gradient,
    IntegratedGradients,
    Perturbation,
    Preference,
    Value,
    saliency_map,
)


def test_what_cannot_be_mapped_is_refused(agent, obs):
    with pytest.raises(UserError, match="unknown saliency method 'lime'; known: perturbation, greydanus, sarfa"):
        saliency_map(agent, obs, Value(), "lime")
    with pytest.raises(UserError, match=r"saliency maps need a tensor, images \[B, C, H, W\] or vectors"):
        saliency_map(agent, torch.zeros(1, 5, 5), Value())
    with pytest.raises(UserError, match="sigma=0, stride=5 given; both must be positive"):
        Perturbation(sigma=0)


def test_methods_with_gradients_refuse_symbols_whoever_calls_them(agent, obs):
    agent.observation = "symbols"
    for method in (Gradient(), IntegratedGradients()):
        with pytest.raises(UserError, match="symbols given, which have no gradient; use perturbation"):
            method(agent, obs, Value())


class ByDtype(Agent):
    """Scales bytes, and takes floats for scaled already, unless `properly`."""

    hook_points: dict[str, HookPoint] = {}

    def __init__(self, properly: bool):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.properly = nn.Linear(2 * SIZE * SIZE, 3), properly

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        scaled = obs.float() / 255 if self.properly or obs.dtype == torch.uint8 else obs
        return PolicyOutput(q_values=self.layer(scaled.view(len(obs), -1)))


@pytest.mark.parametrize("method", ANY)
def test_no_method_feeds_an_agent_observations_that_it_takes_for_others(method, obs):
    assert np.isfinite(saliency_map(ByDtype(properly=True), obs, Advantage(), method)).all()
    with pytest.raises(UserError, match="decides differently on observations as float32s.*scale .* by a constant"):
        saliency_map(ByDtype(properly=False), obs, Advantage(), method)


@pytest.mark.parametrize("method", ANY)
def test_an_agent_whose_numbers_are_not_finite_gets_no_map(method, agent, obs):
    with torch.no_grad():
        agent.q.bias[1] = torch.nan
    with pytest.raises(UserError, match="the agent's preferences are NaN or infinite"):
        saliency_map(agent, obs, Preference(0), method)
    with torch.no_grad():
        agent.q.bias[1] = 0
    if method == "sarfa":  # which explains actions alone
        return
    with pytest.raises(UserError, match="the maps of feature 0 are NaN or infinite"):
        saliency_map(agent, obs, Feature("hidden", lambda x: x / 0, 0), method)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ANY)
def test_observations_that_are_floats_keep_their_type(method, dtype, obs):
    class Plain(Agent):
        hook_points: dict[str, HookPoint] = {}

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.q = nn.Conv2d(2, 4, 8, stride=4), nn.Linear(4 * 81, 3)
            self.to(dtype)

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return PolicyOutput(q_values=self.q(torch.tanh(self.conv(obs)).flatten(1)))

    found = saliency_map(Plain(), (obs[:1] / 255).to(dtype), Preference(0), method)
    assert found.dtype == np.float32
    assert np.ptp(found) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_vectors_that_are_floats_are_ablated_in_their_type(dtype):
    agent, obs = Vectors(), torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    agent.to(dtype).step = lambda obs, state=(), first=None: PolicyOutput(q_values=agent.q(agent.hidden(obs).tanh()))
    for baseline in (0.1, torch.full((8,), 0.1, dtype=torch.float64)):
        assert Ablation(baseline)(agent, obs.to(dtype), Value()).shape == (2, 8)


def test_bytes_are_ablated_as_bytes_where_the_baseline_is_one():
    class Memory(Vectors):
        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            assert obs.dtype == torch.uint8
            return super().step(obs)

    obs = torch.arange(16, dtype=torch.uint8).view(2, 8)
    assert Ablation(3.0)(Memory(), obs, Value()).shape == (2, 8)
    with pytest.raises(UserError, match=r"baseline \(3,\) given; give a number, or one of each of 8"):
        Ablation(torch.zeros(3))(Memory(), obs, Value())


class Looks(Agent):
    """Looks bytes up, as categories."""

    hook_points = {"head": HookPoint("head", "B D")}

    def __init__(self, indexes: bool):
        super().__init__()
        self.table, self.head, self.indexes = nn.Embedding(256, 1), nn.Linear(8, 3), indexes

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        obs = obs.int() if obs.dtype == torch.uint8 else obs
        looked = self.table.weight[obs] if self.indexes else self.table(obs)
        return PolicyOutput(logits=self.head(looked.flatten(1)))


@pytest.mark.parametrize("indexes", [False, True])
def test_an_agent_that_cannot_take_floats_is_told_what_the_contract_says(indexes):
    agent, obs = Looks(indexes), torch.arange(16, dtype=torch.uint8).view(2, 8)
    for method in ("gradient", "integrated-gradients"):
        for target in (Chosen(), Feature("head", lambda x: x, 0)):
            with pytest.raises(UserError, match='step takes bytes but not .* as floats .* observation="symbols"'):
                saliency_map(agent, obs, target, method)
    with pytest.raises(UserError, match="step takes bytes but not the same values as floats"):
        Ablation(0.5)(agent, obs, Chosen())
    agent.observation = "symbols"
    with pytest.raises(UserError, match=r"baseline 0.5 given for an agent that sees symbols; give a symbol's number"):
        Ablation(0.5)(agent, obs, Chosen())
    assert Ablation(3.0)(agent, obs, Chosen()).shape == (2, 8)


def test_a_narrow_grid_is_mapped_where_the_agent_takes_it():
    class Grid(Agent):
        hook_points: dict[str, HookPoint] = {}

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.q = nn.Conv2d(6, 4, 3), nn.Linear(4 * 6 * 2, 3)

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return PolicyOutput(q_values=self.q(self.conv(obs.float()).flatten(1)))

    grids = torch.randint(2, (2, 6, 8, 4), dtype=torch.uint8)
    with pytest.warns(UserWarning, match=r"if these are no narrow grids: .* look like \[B, H, W, C\]"):
        assert saliency_map(Grid(), grids, Value()).shape == (2, 8, 4)


def test_observations_that_are_not_channels_first_images_are_refused(agent, obs):
    with pytest.raises(UserError, match=r"look like \[B, H, W, C\]; give the agent \[B, C, H, W\]"):
        saliency_map(agent, obs.permute(0, 2, 3, 1), Value())
    for bad in (obs[:0], obs.numpy()):
        with pytest.raises(UserError, match=r"saliency maps need a tensor, images \[B, C, H, W\] or vectors"):
            saliency_map(agent, bad, Value())


def test_an_agent_that_no_gradient_passes_is_refused_in_a_sentence(obs):
    class Rounding(OneSpot):
        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            return super().step(obs.byte(), state, first)

    for method in ("gradient", "integrated-gradients"):
        with pytest.raises(UserError, match="value has no gradient with respect to the observations"):
            saliency_map(Rounding(20, 30), obs, Value(), method)


def test_gradients_of_recurrent_layers_do_without_cudnn_which_has_none_in_evaluation_mode():
    class Recurrent(Vectors):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 8)

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            assert not torch.backends.cudnn.enabled
            return super().step(self.lstm(obs[None])[0][0])

    before = torch.backends.cudnn.enabled
    for method in ("gradient", "integrated-gradients"):
        assert np.ptp(saliency_map(Recurrent().train(), torch.randn(2, 8), Value(), method)) > 0
    assert torch.backends.cudnn.enabled == before
