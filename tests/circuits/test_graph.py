"""An agent's graph: its edges are what its modules compute, and a mask of them is the agent, the whole or a part."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from circuit_agents import make
from torch import Tensor, nn

from rl_interp.agents.impala.agent import IMPALA
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Circuit, counted, masked, operands, run_masked, terms
from rl_interp.circuits.trace import trace
from rl_interp.core.agent import HookPoint, tree_map
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.envs.registry import make_vector
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import Zero
from rl_interp.core.rollout import evaluate
from rl_interp.core.wrap import wrap

AGENTS = ("dqn", "resnet", "lstm", "dreamerv3", "own")


@pytest.fixture(scope="module", params=AGENTS)
def traced(request):
    agent, obs = make(request.param)
    state = tree_map(torch.randn_like, agent.initial_state(len(obs)))
    # One gate looked at is enough for an LSTM to be stepped; what is looked at lies elsewhere and rounds otherwise.
    names = ["lstm.c"] if request.param == "lstm" else list(agent.hook_points)
    plain, _ = run_with_cache(agent, obs, state, names=names)
    return SimpleNamespace(
        name=request.param, agent=agent, obs=obs, state=state, graph=trace(agent, obs), plain=plain.preferences
    )


def test_all_edges_on_is_the_agent_bit_for_bit(traced):
    """A mask that asks for gradients goes through the arithmetic; one of ones and no more is not computed with."""
    graph = traced.graph
    _, read = operands(traced.agent, graph, traced.obs, traced.state)
    elsewhere = {key: torch.randn_like(value) for key, value in read.items()}
    vector = Mask.full(graph).vector.requires_grad_()
    for mask in (Mask.full(graph), Mask.of_vector(graph, vector)):
        out = run_masked(traced.agent, mask, traced.obs, traced.state, reference=elsewhere)
        assert torch.equal(out.preferences, traced.plain)


def test_all_edges_off_is_the_agent_again_where_the_reference_is_what_it_reads(traced):
    _, read = operands(traced.agent, traced.graph, traced.obs, traced.state)
    out = run_masked(traced.agent, Mask.full(traced.graph, 0.0), traced.obs, traced.state, reference=read)
    torch.testing.assert_close(out.preferences, traced.plain)
    without = run_masked(traced.agent, Mask.full(traced.graph, 0.0), traced.obs, traced.state)
    assert not torch.allclose(without.preferences, traced.plain)


def test_masks_of_each_sample_are_as_one_after_the_other(traced):
    graph, obs, state = traced.graph, traced.obs, traced.state
    _, read = operands(traced.agent, graph, obs, state)
    vectors = torch.rand(3, graph.edges)
    other = {key: value.roll(1, 0) for key, value in read.items()}
    together = run_masked(traced.agent, Mask.of_vector(graph, vectors), obs, state, reference=other).preferences
    for i, vector in enumerate(vectors):
        one = run_masked(
            traced.agent,
            Mask.of_vector(graph, vector),
            obs[i : i + 1],
            tree_map(lambda leaf, i=i: leaf[i : i + 1], state),
            reference={key: value[i : i + 1] for key, value in other.items()},
        )
        torch.testing.assert_close(one.preferences[0], together[i], rtol=1e-4, atol=1e-5)


def test_gradients_of_a_mask_are_finite_differences(traced):
    agent, graph, obs, state = traced.agent, traced.graph, traced.obs, traced.state
    if traced.name == "dreamerv3":
        pytest.skip("it decides by the largest of its latents, which has no derivative")
    torch.manual_seed(0)
    middle, step = torch.rand(graph.edges), torch.randn(graph.edges)

    def score(at: Tensor) -> Tensor:
        return run_masked(agent, Mask.of_vector(graph, at), obs, state).preferences.double().square().sum()

    at = middle.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(at), at)
    with torch.no_grad():
        slope = (score(middle + 1e-3 * step) - score(middle - 1e-3 * step)) / 2e-3
    torch.testing.assert_close((gradient * step).sum().double(), slope, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(("name", "node", "pre"), [
    ("dqn", "conv2.post", "conv2.pre"), ("dqn", "fc.post", "fc.pre"), ("lstm", "lstm.g", "lstm.g.pre"),
    ("resnet", "block1.res1.sum", "block1.res1.sum"), ("own", "sum", "sum"),
])  # fmt: skip
def test_terms_of_edges_add_up_to_what_is_before_the_nonlinearity(name, node, pre):
    agent, obs = make(name)
    state = tree_map(torch.randn_like, agent.initial_state(len(obs)))
    graph = trace(agent, obs)
    _, cache = run_with_cache(agent, obs, state, names=[pre])
    value = cache[pre].squeeze(0) if name == "lstm" else cache[pre]
    bias = {
        "conv2.post": lambda: agent.conv2.bias[:, None, None],
        "fc.post": lambda: agent.fc.bias,
        "lstm.g": lambda: agent.lstm.bias.chunk(4)[2],
        "block1.res1.sum": lambda: agent.torso.sections[0].res1.conv2.bias[:, None, None],
        "sum": lambda: 0.0,
    }[node]()
    total = 0.0
    for link in graph.into(node):
        of_edges = terms(agent, link, graph, obs, state)
        total = total + (of_edges[:, link.rows >= 0].sum(2) if link.dense else of_edges)
    torch.testing.assert_close(total + bias, value, rtol=1e-5, atol=1e-5)


def test_links_are_those_of_the_networks():
    agent, obs = make("dqn")
    links = {link.name: link.shape for link in trace(agent, obs).links}
    assert links == {
        "obs -> conv1.post": (32, 2), "conv1.post -> conv2.post": (64, 32), "conv2.post -> conv3.post": (32, 64),
        "conv3.post -> fc.post": (8, 32), "fc.post -> q": (4, 8),
    }  # fmt: skip
    agent, obs = make("lstm")
    graph = trace(agent, obs)
    assert {link.name for link in graph.into("lstm.c")} == {
        "lstm.f -> lstm.c", "lstm.c[-1] -> lstm.c", "lstm.i -> lstm.c", "lstm.g -> lstm.c",
    }  # fmt: skip
    assert {link.name for link in graph.out_of("lstm.h[-1]")} == {f"lstm.h[-1] -> lstm.{gate}" for gate in "ifgo"}
    assert graph.nodes["lstm.h[-1]"].memory == "lstm.h"
    assert graph.outputs == {"logits": "policy", "value": "value"}


def test_a_gate_that_is_cut_off_from_memory_gives_what_it_gives_after_a_reset():
    """Every edge out of the memory cut, an LSTM decides as at an episode's first step."""
    agent, obs = make("lstm")
    graph = trace(agent, obs)
    every = {"lstm.h[-1]": range(6), "lstm.c[-1]": range(6)}
    state = tree_map(lambda leaf: torch.randn_like(leaf), agent.initial_state(3))
    cut = run_masked(agent, Mask.full(graph).without_nodes(every), obs, state)
    torch.testing.assert_close(cut.preferences, agent.step(obs, agent.initial_state(3)).preferences)


def test_a_neuron_without_edges_out_of_it_is_ablated():
    agent, obs = make("dqn")
    graph = trace(agent, obs)
    mask = Mask.full(graph).without_nodes({"conv2.post": [3, 5]})
    want = run_with_hooks(agent, obs, hooks={"conv2.post": Zero("conv2.post", units=[3, 5])})
    torch.testing.assert_close(run_masked(agent, mask, obs).preferences, want.preferences)
    assert mask.kept == graph.edges - 2 * 32
    assert Mask.of_edges(graph, mask.edges).edges == mask.edges


def test_dangling_edges_are_those_that_can_have_no_part():
    agent, obs = make("dqn")
    graph = trace(agent, obs)
    path = [("obs -> conv1.post", 3, 0), ("conv1.post -> conv2.post", 7, 3), ("conv2.post -> conv3.post", 1, 7),
            ("conv3.post -> fc.post", 2, 1), ("fc.post -> q", 0, 2)]  # fmt: skip
    no_way_on, no_way_here = ("conv1.post -> conv2.post", 8, 3), ("conv2.post -> conv3.post", 1, 20)
    mask = Mask.of_edges(graph, [*path, no_way_on, no_way_here])
    assert sorted(mask.without_dangling().edges) == sorted(path)
    both = Mask.of_vector(graph, torch.stack([mask.vector, Mask.of_edges(graph, path[:-1]).vector]))
    assert both.without_dangling().vector.sum(1).tolist() == [5, 0]


def test_an_agent_under_a_mask_unrolls_counts_its_passes_and_is_itself_again_afterwards():
    agent, obs = make("lstm")
    graph = trace(agent, obs)
    mask = Mask.full(graph, 0.5)
    segment, first = obs[:, None].expand(3, 2, *obs.shape[1:]), torch.zeros(3, 2, dtype=torch.bool)
    with torch.no_grad(), counted() as passes, masked(agent, mask):
        out = agent.unroll(segment, agent.initial_state(2), first)
        state, steps = agent.initial_state(2), []
        for t in range(3):
            one = agent.step(segment[t], state, first[t])
            state = one.state
            steps.append(one.preferences)
    assert passes.forward == 12
    torch.testing.assert_close(out.preferences, torch.stack(steps))
    assert not {"step", "unroll"} & vars(agent).keys()


def test_a_circuit_is_an_intervention_in_closed_loop():
    config = MiniGridConfig("MiniGrid-Empty-5x5-v0")
    agent = IMPALA(len(config.action_names), config.observation_shape, config.categories, hidden=8, lstm=6)
    obs = torch.zeros(1, *config.observation_shape, dtype=torch.uint8)
    graph = trace(agent, obs)
    forward = torch.zeros(len(config.action_names))
    forward[2] = 9.0  # an agent of nothing but a bias goes forward and comes nowhere
    agent.policy.bias.data.copy_(forward)
    env = make_vector(config, 2)
    silent = evaluate(agent, env, 2, seed=0, interventions=[Circuit(mask=Mask.full(graph, 0.0))])
    assert np.all(silent.returns == 0)
    assert len(set(silent.lengths)) == 1


def test_what_cannot_be_told_is_said_in_a_sentence():
    mixing = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 3))
    agent = wrap(mixing, hook_points={"h": HookPoint("1", "B D")}, output="q_values")
    with pytest.raises(HookError, match="no hook point names"):
        trace(agent, torch.randn(2, 4))
    agent, obs = make("dqn")
    graph, other = trace(agent, obs), trace(*make("own"))
    with pytest.raises(UserError, match="masks are of one graph"):
        Mask(graph, Mask.full(other).values)
    with pytest.raises(UserError, match="conv1.post -> conv2.post"):
        graph.link("conv1 -> conv2")
