"""All edges of a transformer under one mask."""

import pytest
import torch

from rl_interp.agents.transformer import Transformer, default_config, make_agent
from rl_interp.analysis.circuits.edges import Edges
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import run_masked
from rl_interp.circuits.trace import trace
from rl_interp.core.envs import make_vector
from rl_interp.core.errors import UserError

LLAMA = dict(
    layers=2, heads=4, kv_heads=2, width=16, hidden=24, positions="rotary", norm="rms", mlp="gated", bias=False
)  # fmt: skip


@pytest.fixture
def case() -> tuple[Transformer, torch.Tensor]:
    torch.manual_seed(0)
    config = default_config("rl_interp/Text-ioi", **LLAMA)
    agent = make_agent(config).eval()
    for weight in agent.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return agent, torch.from_numpy(make_vector(config.env, 6).reset(seed=0))[:, :14]


def test_without_a_cut_it_is_the_transformer(case):
    agent, obs = case
    edges = Edges.of(agent, obs)
    stream = edges.stream(obs, torch.zeros(0, dtype=torch.int64))
    torch.testing.assert_close(agent.read_out(stream), agent.along(obs).logits.transpose(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whole", [True, False])
def test_a_cut_gives_what_the_traced_graph_gives_under_it(case, whole):
    agent, obs = case
    edges = Edges(agent, torch.zeros(11, 2, 16))  # zeros in the place of what is cut, as without a reference
    graph, generator = trace(agent, obs), torch.Generator().manual_seed(1)
    assert len(edges) == graph.edges
    cut = torch.randperm(len(edges), generator=generator)[:30]
    left = torch.zeros(30) if whole else torch.rand(30, generator=generator)
    kept = torch.ones(len(edges)).index_put((cut,), left)
    theirs = run_masked(agent, _as_traced(graph, edges, kept), obs).logits
    ours = agent.read_out(edges.stream(obs, cut, left)[:, -1])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - agent.step(obs).logits).abs().max() > 0.1


def test_without_any_edge_every_text_is_read_alike_and_means_are_what_sources_add(case):
    agent, obs = case
    edges = Edges.of(agent, obs)
    stream = edges.stream(obs, torch.arange(len(edges)))
    torch.testing.assert_close(stream, stream[:1].expand_as(stream), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(edges.means[0, 0], agent.embed(obs)[:, 0].mean(0))
    torch.testing.assert_close(edges.means[0, 1], agent.embed(obs)[:, 1:].mean((0, 1)))


def test_slopes_are_those_by_what_is_kept_of_each_edge(case):
    agent, obs = case
    edges = Edges.of(agent, obs)

    def loss(stream: torch.Tensor) -> torch.Tensor:
        return agent.read_out(stream)[:, -1, 3].sum()

    kept = torch.ones(len(edges), requires_grad=True)
    (by_kept,) = torch.autograd.grad(loss(edges.stream(obs, torch.arange(len(edges)), kept)), kept)
    slopes = edges.slopes(obs, loss)
    torch.testing.assert_close(slopes, -by_kept, rtol=1e-3, atol=1e-3)
    assert slopes.abs().max() > 0.1


def test_edges_have_names(case):
    edges = Edges.of(*case)
    assert edges.name(0) == "embedding to 0.query 0"
    assert edges.name(len(edges) - 1) == "mlp 1 to unembedding"


def test_a_transformer_with_biases_is_refused():
    agent = make_agent(default_config("rl_interp/Text-ioi", layers=1, width=16, heads=2, hidden=16))
    with pytest.raises(UserError, match="without biases"):
        Edges.of(agent, torch.zeros(2, 3, dtype=torch.int64))


def _as_traced(graph, edges: Edges, kept: torch.Tensor) -> Mask:
    """The same mask, link by link: the graph names a reader's links after their source, and queries, keys and values
    by a number."""
    split = kept.split([readers * sources for _, readers, sources in edges.shapes])
    parts = {name: part.view(rows, -1) for part, (name, rows, _) in zip(split, edges.shapes, strict=True)}
    numbers = {"": "query", "#2": "key", "#3": "value"}
    values = {}
    for link in graph.links:
        block, _, part = link.dest.removeprefix("terms.block").partition(".")
        if part == "heads":
            rows = parts[f"{block}.{numbers[link.name.partition(f'{link.dest}')[2].strip()]}"]
        else:
            rows = parts[f"{block}.mlp" if part == "mlp" else "unembedding"]
        source = link.source.removeprefix("terms.")
        number = int(source.removeprefix("block").partition(".")[0]) if source != "embed" else -1
        first = {"heads": 1 + 5 * number, "mlp": 5 + 5 * number}.get(source.partition(".")[2], 0)
        values[link.name] = rows[:, first : first + link.shape[1]]
    return Mask(graph, values)
