"""A dictionary's latents as units of the graph: the agent decides as before, and a latent that is cut is gone."""

import pytest
import torch
from circuit_agents import make

from rl_interp.analysis.sae.policy import policy_metric
from rl_interp.circuits.ablation import Ablations
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.distance import Distance
from rl_interp.circuits.importance import importance, keeping
from rl_interp.circuits.latents import Components, with_latents
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Circuit, run_masked
from rl_interp.circuits.states import States
from rl_interp.circuits.trace import trace
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import intervened
from rl_interp.sae.interventions import ClampFeature
from rl_interp.sae.model import SAE, JumpReLU, TopK

LATENTS = 11


def dictionary(kind: type, width: int) -> SAE:
    torch.manual_seed(1)
    sae = TopK(width, LATENTS, 4) if kind is TopK else JumpReLU(width, LATENTS)
    for parameter in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec):
        parameter.data.normal_()
    return sae.requires_grad_(False)


PLACES = [("dqn", "fc.post", 8), ("dqn", "conv2.post", 64), ("lstm", "lstm.h", 6), ("own", "h", 6)]


@pytest.fixture(scope="module", params=[(*place, kind) for place in PLACES for kind in (TopK, JumpReLU)], ids=str)
def found(request):
    name, at, width, kind = request.param
    agent, obs = make(name)
    sae = dictionary(kind, width)
    return agent, obs, sae, at, with_latents(agent, sae, at)


def test_the_agent_decides_as_before_and_every_latent_has_its_edges(found):
    agent, obs, _, at, coded = found
    state = agent.initial_state(len(obs))
    before, after = (each.step(obs, state).preferences for each in (agent, coded))
    torch.testing.assert_close(before, after)
    graph = trace(coded, obs)
    torch.testing.assert_close(run_masked(coded, Mask.full(graph), obs).preferences, after)
    links = {link.source: link.shape for link in graph.into(at)}
    width = graph.nodes[at].units
    assert links == {f"{at}.latents": (width, LATENTS), f"{at}.error": (width,)}
    assert [link.shape for link in graph.into(f"{at}.latents")] == [(LATENTS, width)]
    assert set(trace(agent, obs).outputs) == set(graph.outputs)


def test_a_latent_whose_edges_are_cut_is_the_feature_clamped_to_zero(found):
    """Beside `ClampFeature`, which changes the plain agent's value and knows of no graph."""
    agent, obs, sae, at, coded = found
    graph, changed = trace(coded, obs), 0
    for latent in range(LATENTS):
        mask = Mask.full(graph).without_nodes({f"{at}.latents": [latent]})
        cut = run_masked(coded, mask, obs).preferences
        clamped = run_with_hooks(
            agent, obs, agent.initial_state(len(obs)), hooks={at: ClampFeature(at, sae=sae, feature=latent, value=0.0)}
        ).preferences
        torch.testing.assert_close(cut, clamped)
        changed += not torch.allclose(clamped, agent.step(obs, agent.initial_state(len(obs))).preferences)
    assert changed > 2


def test_a_circuit_of_latents_plays_in_the_place_of_the_agent(found):
    agent, obs, _, at, coded = found
    graph, state = trace(coded, obs), agent.initial_state(len(obs))
    mask = Mask.full(graph).without_nodes({f"{at}.latents": range(0, LATENTS, 2)})
    wanted, before = run_masked(coded, mask, obs).preferences, agent.step(obs, state).preferences
    with intervened(agent, [Circuit(mask=mask, coded=coded)]):
        torch.testing.assert_close(agent.step(obs, state).preferences, wanted)
    assert torch.equal(agent.step(obs, state).preferences, before)


def test_attribution_finds_the_latents_that_matter_when_cut(found):
    """Edges' scores, added up over a latent's edges, rank latents as cutting each does."""
    _, obs, _, at, coded = found
    if at != "fc.post":
        return
    states = States(torch.randint(0, 255, (48, *obs.shape[1:]), dtype=torch.uint8), ())
    behaviour = Behaviour.of(coded, states, "mean")
    scores = Mask.of_vector(behaviour.graph, attribute(behaviour, 4, absolute=False).scores)
    out = scores.values[f"{at}.latents -> {at}"].sum(0).abs()
    cut = [
        behaviour.mean_distances(Mask.full(behaviour.graph).without_nodes({f"{at}.latents": [latent]}))
        for latent in range(LATENTS)
    ]
    best = int(torch.cat(cut).argmax())
    assert best in out.topk(3).indices


def test_a_dictionary_of_another_width_and_a_place_that_is_no_whole_output_are_refused():
    agent, obs = make("dqn")
    with pytest.raises(UserError, match="a dictionary 7 wide given for 'fc.post', whose value is .* fitted there"):
        with_latents(agent, dictionary(TopK, 7), "fc.post").step(obs)
    with pytest.raises(UserError, match="is a module's input"):
        own, _ = make("lstm")
        with_latents(own, dictionary(TopK, 6), next(n for n, p in own.hook_points.items() if p.side == "input"))


def test_keeping_units_is_replacing_the_others():
    agent, obs = make("dqn")
    ablations = Ablations(agent, States(obs, ()), "fc.post")
    distance = Distance.of(agent, ablations.preferences)
    new = torch.randn(8)
    order = torch.randperm(8)
    kl, _ = keeping(ablations, new, order, [0, 3, 8], distance)
    for count, value in ((0, kl[0]), (3, kl[1])):

        def cut(value, site, count=count):
            value = value.clone()
            value[:, order[count:]] = new[order[count:]]
            return value

        out = run_with_hooks(agent, obs, hooks={"fc.post": cut}).preferences
        torch.testing.assert_close(distance(ablations.preferences, out).mean().double(), value)
    assert kl[2] == 0
    # An order of its own for each state does no worse than any one unit for all, which is among its choices.
    by_state = importance(ablations, new, distance).by_state
    everywhere, _ = keeping(ablations, new, by_state.argsort(0, descending=True), [7], distance)
    alone = by_state.min(0).values.mean()
    torch.testing.assert_close(everywhere[0], alone.double())


def test_components_by_policy_come_first_that_decide():
    agent, _ = make("dqn")
    torch.nn.init.normal_(agent.q.weight, std=0.1)
    obs = torch.randint(0, 255, (60, 2, 36, 36), dtype=torch.uint8)
    values = run_with_cache(agent, obs, names=["fc.post"])[1]["fc.post"].detach()
    components = Components(values, policy_metric(agent, States(obs), "fc.post"))
    coded = with_latents(agent, components, "fc.post")
    out, cache = run_with_cache(coded, obs, names=["fc.post.latents", "fc.post.error"])
    torch.testing.assert_close(out.preferences, agent.step(obs).preferences)
    latents = cache["fc.post.latents"].double()
    torch.testing.assert_close(
        torch.cov(latents.T, correction=0), torch.eye(latents.shape[1]).double(), atol=1e-3, rtol=0
    )
    # Four Q-values have three differences, so three components say what is decided, and the rest nothing of it.
    few = run_with_hooks(
        coded, obs, hooks={"fc.post.latents": lambda value, site: value * (torch.arange(value.shape[1]) < 3)}
    )

    def advantages(q):
        return q - q.mean(-1, keepdim=True)

    torch.testing.assert_close(advantages(few.q_values), advantages(out.q_values), atol=1e-4, rtol=1e-3)


def test_principal_components_are_uncorrelated_and_all_of_them_are_the_layer():
    agent, _ = make("dqn")
    obs = torch.randint(0, 255, (40, 2, 36, 36), dtype=torch.uint8)
    values = run_with_cache(agent, obs, names=["fc.post"])[1]["fc.post"]
    coded = with_latents(agent, Components(values), "fc.post")
    out, cache = run_with_cache(coded, obs, names=["fc.post.latents", "fc.post.error"])
    torch.testing.assert_close(out.preferences, agent.step(obs).preferences)
    assert cache["fc.post.error"].abs().max() < 1e-6 * values.abs().max()
    covariance = torch.cov(cache["fc.post.latents"].double().T)
    assert covariance.fill_diagonal_(0).abs().max() < 1e-6 * values.var()
