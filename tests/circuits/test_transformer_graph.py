"""The graph of a transformer: heads and MLPs, and what each reads of each."""

import pytest
import torch
from torch import nn

from rl_interp.agents.transformer import Architecture, Transformer
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.constants import Constants, ConstantsConfig, fit_constants
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Circuit, run_masked, terms
from rl_interp.circuits.replacement import record, replacement
from rl_interp.circuits.states import States
from rl_interp.circuits.trace import trace
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import Zero, intervened

LLAMA = dict(kv_heads=2, positions="rotary", norm="rms", mlp="gated", bias=False)


def transformer(**changes):
    torch.manual_seed(0)
    shape = dict(vocabulary=11, context=8, layers=2, width=12, heads=2, hidden=16)
    agent = Transformer(Architecture(**{**shape, **changes})).eval()
    for weight in agent.parameters():
        nn.init.normal_(weight, 0.0 if weight.dim() > 1 else 0.5, 0.4)
    return agent


def states(count=6):
    drawn = torch.Generator().manual_seed(1)
    texts, others = torch.randint(11, (2, count, 8), generator=drawn)
    return States(texts, counterfactual=States(others))


@pytest.mark.parametrize("changes", [{}, {**LLAMA, "heads": 6}, {"hidden": 0}], ids=["gpt", "llama", "attention"])
def test_every_part_reads_every_part_before_it(changes):
    agent = transformer(**changes)
    graph, heads = trace(agent, states().obs), agent.shape.heads
    mlps = int(agent.shape.hidden > 0)
    edges, written = 0, 1
    for _ in range(2):
        edges += 3 * heads * written
        written += heads
        edges += mlps * written
        written += mlps
    assert graph.edges == edges + written
    assert graph.outputs == {"logits": "terms.last"}
    assert {node.width for node in graph.nodes.values()} == {12}


@pytest.mark.parametrize("changes", [{}, LLAMA], ids=["gpt", "llama"])
def test_all_edges_are_the_agent_and_terms_add_up(changes):
    agent, obs = transformer(**changes), states().obs
    graph = trace(agent, obs)
    assert torch.equal(
        run_masked(agent, Mask.full(graph), obs).logits, run_with_hooks(agent, obs, hooks=_looking()).logits
    )
    read = [link for link in graph.links if link.dest == "terms.last"]
    seen = []
    run_with_hooks(agent, obs, hooks={"terms.last": lambda value, site: seen.append(value)})
    total = sum(terms(agent, link, graph, obs).sum(2) for link in read)
    biases = [block.attention.output.bias for block in agent.blocks if block.attention.output.bias is not None]
    assert torch.allclose(total + sum(biases), seen[0], atol=1e-5)


def _looking():
    return {"terms.last": lambda value, site: None}


def test_a_head_without_edges_is_a_head_at_zero_also_as_an_intervention():
    agent, obs = transformer(), states().obs
    mask = Mask.full(trace(agent, obs)).without_nodes({"terms.block0.heads": [1]})
    cut = run_with_hooks(agent, obs, hooks={"block0.z": Zero("block0.z", units=[1])}).logits
    assert torch.allclose(run_masked(agent, mask, obs).logits, cut, atol=1e-5)
    with intervened(agent, [Circuit(mask=mask)]):
        assert torch.allclose(agent.step(obs).logits, cut, atol=1e-5)


def test_the_value_edge_alone_is_what_a_head_moves():
    """Of one word repeated, attention reads the same whatever its weights, so only the value's edge matters."""
    agent = transformer(positions="rotary", layers=1)
    obs = torch.full((2, 8), 3)
    graph = trace(agent, obs)
    own = run_masked(agent, Mask.full(graph), obs).logits
    for number, matters in (("", False), (" #2", False), (" #3", True)):
        mask = Mask.full(graph)
        mask.values[f"terms.embed -> terms.block0.heads{number}"][0] = 0.0
        assert torch.allclose(run_masked(agent, mask, obs).logits, own, atol=1e-5) != matters


def test_what_replaces_a_head_is_a_vector():
    agent, some = transformer(), states()
    recorded = record(agent, some, "block0.z")
    generator = torch.Generator().manual_seed(0)
    mean = replacement("mean")(recorded, recorded, generator)
    assert torch.allclose(mean[1, 3], recorded.values[:, 1].mean((0, 1)), atol=1e-6)
    behaviour = Behaviour.of(agent, some, "mean")
    key = next(key for key, links in behaviour.graph.keys.items() if links[0].dest == "terms.last")
    assert len(behaviour.reference[key][0, 0].unique(dim=0)) == 1
    assert behaviour.reference[key][0, 0].std() > 0


def test_constants_are_vectors_and_do_better_than_means():
    behaviour = Behaviour.of(transformer(), states(), "optimal")
    mask = Mask.full(behaviour.graph).without_nodes({"terms.block0.heads": [0, 1]})
    assert {tuple(weight.shape) for weight in Constants(behaviour).parameters()} == {(1, 12), (2, 12)}
    before = float(behaviour.mean_distances(mask))
    after = fit_constants(behaviour, mask, ConstantsConfig(updates=30))
    assert float(behaviour.with_reference(after).mean_distances(mask)) < 0.8 * before


def test_integrated_attributions_of_edges_add_up_to_the_distance():
    behaviour = Behaviour.of(transformer(), states(), "counterfactual")
    scores = attribute(behaviour, steps=60, absolute=False).scores
    assert float(scores.sum()) == pytest.approx(behaviour.require(), rel=0.03)


def test_many_masks_at_once_are_one_after_the_other():
    behaviour = Behaviour.of(transformer(), states(), "counterfactual")
    vectors = (torch.rand(3, behaviour.graph.edges, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    together = behaviour.distances(Mask.of_vector(behaviour.graph, vectors)).mean(1)
    assert torch.allclose(together, behaviour.mean_distances(Mask.of_vector(behaviour.graph, vectors)), atol=1e-5)
