"""Lenses: where attention adds a constant the OCA lens is the transformer, and a fit comes near what is said."""

import pytest
import torch
from torch import nn

from rl_interp.agents.transformer import Architecture, Transformer
from rl_interp.analysis.circuits.lenses import LensConfig, OCALens, TunedLens, fit_lens, lens_loss, streams_of


def transformer() -> Transformer:
    torch.manual_seed(0)
    agent = Transformer(Architecture(vocabulary=9, context=6, layers=2, width=8, heads=2, hidden=12)).eval()
    for weight in agent.parameters():
        nn.init.normal_(weight, 0.0 if weight.dim() > 1 else 0.5, 0.5)
    return agent


def test_where_attention_adds_a_constant_the_oca_lens_is_the_transformer():
    agent, texts = transformer(), torch.randint(9, (3, 6))
    for block in agent.blocks:
        nn.init.zeros_(block.attention.output.weight)
    streams, said = streams_of(agent, texts)
    assert torch.allclose(said, agent.along(texts).logits.transpose(0, 1), atol=1e-5)
    for at in (0, 1):
        lens = OCALens(agent, at)
        lens.constants.data = torch.stack([block.attention.output.bias.data for block in agent.blocks[at:]])
        assert torch.allclose(lens(streams[at]), said, atol=1e-5)


@pytest.mark.parametrize("kind", [lambda agent: OCALens(agent, 1), TunedLens], ids=["oca", "tuned"])
def test_a_fit_lowers_the_distance_and_leaves_the_transformer_as_it_is(kind):
    agent, texts = transformer(), torch.randint(9, (40, 6))
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    both = streams_of(agent, texts)
    streams, said = both[0][1].flatten(0, 1), both[1].flatten(0, 1)
    lens = kind(agent)
    first = float(lens_loss(lens(streams), said).mean().detach())
    fit_lens(lens, streams, said, LensConfig(updates=60, batch=64))
    assert float(lens_loss(lens(streams), said).mean().detach()) < 0.8 * first
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())
    assert all(weight.grad is None for weight in agent.parameters())
