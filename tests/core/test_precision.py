"""Agents that compute in other precisions than dictionaries and stores, which are float32."""

import pytest
import torch
from torch import nn

from rl_interp import run_with_hooks, wrap
from rl_interp.core.check_agent import ContractError
from rl_interp.core.interventions import as_hooks
from rl_interp.core.partial_forward import PartialForward
from rl_interp.sae import ClampFeature, ScaleFeature, TopK, splice

PRECISIONS = [torch.float64, torch.float16, torch.bfloat16]
OBS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def agent(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    return wrap(net, "auto", lambda net, obs: net(obs.to(dtype)), obs=OBS)


def dictionary(d_out=None):
    sae = TopK(4, 8, 2, d_out)
    for weight in (sae.W_enc, sae.W_dec):
        nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    return sae


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    "intervention",
    [
        splice(dictionary(), "1"),
        splice(dictionary(4), "1", source="0"),
        ClampFeature("1", sae=dictionary(), feature=1, value=2.0),
        ScaleFeature("1", sae=dictionary(), feature=1, factor=3.0),
    ],
    ids=["autoencoder", "transcoder", "clamped", "scaled"],
)
@torch.no_grad()
def test_a_dictionary_acts_on_an_agent_of_any_precision_as_on_one_of_its_own(dtype, intervention):
    changed, own = (
        run_with_hooks(agent(each), OBS, hooks=as_hooks([intervention])).logits for each in (dtype, torch.float32)
    )
    assert changed.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(changed.float(), own, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_an_agent_of_any_precision_is_run_again_from_stored_values(dtype):
    whole = agent(dtype)
    again = PartialForward(whole, OBS, "1")
    torch.testing.assert_close(again(again.values.float()).logits, whole.step(OBS).logits)


def test_a_module_that_needs_other_precision_than_observations_have_is_told_of_its_dtype():
    with pytest.raises(ContractError, match=r"obs: module\(obs.to\(dtype\)\)\) with the dtype of its weights"):
        wrap(nn.Linear(3, 2).double(), "auto", obs=OBS)
