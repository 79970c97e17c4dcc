"""Each kind of replacement puts in a unit's place what its name says."""

from dataclasses import replace

import pytest
import torch

from rl_interp.circuits.replacement import Recorded, intervention, record, replacement
from rl_interp.circuits.states import States, values_at
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks


@pytest.fixture
def recorded() -> Recorded:
    """40 states of 3 channels of 2×2, which grow with time."""
    values = torch.randn(40, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    steps = torch.arange(40)
    return Recorded("conv", -3, values + steps.view(-1, 1, 1, 1), steps)


def put(kind: str, here: Recorded, bank: Recorded | None = None) -> torch.Tensor:
    return replacement(kind)(here, bank or here, torch.Generator().manual_seed(1))


def test_constants_have_the_shape_of_one_value(recorded):
    values = recorded.values
    assert not put("zero", recorded).any()
    for position in ((0, 0), (1, 1)):
        torch.testing.assert_close(put("mean", recorded)[:, *position], values.mean((0, 2, 3)))
        torch.testing.assert_close(put("mean-position", recorded)[:, *position], values[:, :, *position].mean(0))


def test_the_mean_by_time_is_that_of_states_at_about_the_same_time(recorded):
    bank = replace(recorded, values=recorded.values.repeat(32, 1, 1, 1), steps=torch.arange(40).repeat(32))
    here = replace(recorded, values=recorded.values[:2], steps=torch.tensor([7, 30]))
    torch.testing.assert_close(put("mean-time", here, bank), recorded.values[[7, 30]])
    with pytest.raises(UserError, match="do not say when in their episodes they were"):
        put("mean-time", replace(here, steps=None), bank)


def test_resampled_values_are_those_of_other_states(recorded):
    drawn = put("resample", recorded)
    assert drawn.shape == recorded.values.shape
    assert all(any(torch.equal(each, value) for value in recorded.values) for each in drawn)
    assert not torch.equal(drawn, recorded.values)


def test_noise_has_each_units_own_spread_around_its_value():
    values = torch.randn(4000, 2) * torch.tensor([1.0, 5.0])
    added = put("noise", Recorded("fc", -1, values)) - values
    torch.testing.assert_close(added.std(0), values.std(0), rtol=0.1, atol=0)
    assert added.mean(0).abs().max() < 0.3


def test_what_is_not_there_is_asked_for_in_a_sentence(recorded):
    with pytest.raises(UserError, match="the states of 'conv' have no counterfactuals"):
        put("counterfactual", recorded)
    with pytest.raises(UserError, match="there are no optimal constants of 'conv' yet"):
        put("optimal", recorded)
    with pytest.raises(UserError, match="Did you mean 'mean'"):
        intervention("meen", recorded, [0])
    with pytest.raises(UserError, match="'noise' given; units can be cut while the agent plays by zero, mean"):
        intervention("noise", recorded, [0])
    with pytest.raises(UserError, match=r"the parts of the states are of \[2, 3\] states"):
        States(torch.zeros(2, 4), steps=torch.arange(3))


def test_values_are_read_from_where_the_agent_had_come_to(recurrent_agent):
    states = States(torch.randn(3, 5), (torch.randn(3, 6),))
    _, cache = run_with_cache(recurrent_agent, states.obs, states.memory, names=["gru"])
    assert torch.equal(values_at(recurrent_agent, states, "gru"), cache["gru"][0])
    other = replace(states, counterfactual=States(states.obs, (torch.zeros(3, 6),)))
    found = record(recurrent_agent, other, "gru").counterfactual
    assert found is not None
    assert torch.equal(found, values_at(recurrent_agent, States(states.obs), "gru"))


@pytest.mark.parametrize("kind", ["zero", "mean", "mean-position", "resample"])
def test_an_intervention_replaces_its_units_alone(kind, conv_agent, conv_obs):
    bank = record(conv_agent, States(conv_obs), "conv.post")
    seen = []
    hooks = {"conv.post": [intervention(kind, bank, [1]), lambda value, site: seen.append(value)]}
    with torch.no_grad():
        run_with_hooks(conv_agent, conv_obs, hooks=hooks)
    assert torch.equal(seen[0][:, [0, 2]], bank.values[:, [0, 2]])
    if kind == "resample":
        assert all(any(torch.equal(each, value) for value in bank.values[:, 1]) for each in seen[0][:, 1])
    else:
        assert torch.equal(seen[0][:, 1], put(kind, bank)[1].expand_as(seen[0][:, 1]))
