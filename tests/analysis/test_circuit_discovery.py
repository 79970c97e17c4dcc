"""A circuit is found in a run, kept under it, judged, and played; one of another agent is refused."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rl_interp.agents.impala import IMPALA
from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.coded import coded
from rl_interp.analysis.circuits.comparison import CompareConfig, compare_circuits
from rl_interp.analysis.circuits.discovery import DiscoverConfig, behaviour_of, discover_run, settings_of
from rl_interp.analysis.circuits.evaluation import EvaluateConfig, _on_states, evaluate_circuit
from rl_interp.analysis.circuits.importance import importance_run
from rl_interp.analysis.circuits.layers import ImportanceConfig
from rl_interp.analysis.circuits.picture import leading
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.circuits.stored import _few, load_circuit, read_circuit
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.planted import two_layers
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.interventions import intervened
from rl_interp.core.progress import Notice
from rl_interp.core.run import Run
from rl_interp.sae import SAEConfig
from rl_interp.sae.model import TopK


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Loaded:
    torch.manual_seed(0)
    env = MiniGridConfig("MiniGrid-Empty-5x5-v0")
    agent = IMPALA(len(env.action_names), env.observation_shape, env.categories, hidden=8, lstm=6).eval()
    for layer in (agent.policy, agent.fc):
        layer.weight.data *= 20
    path = tmp_path_factory.mktemp("runs") / "agent"
    path.mkdir()
    return Loaded(Run(path), 0, agent, env, "0" * 64)


CONFIG = DiscoverConfig(states=16, when="not carries_key", steps=3)


@pytest.mark.full
def test_a_circuit_is_found_kept_judged_and_played(loaded):
    found = discover_run(loaded, CONFIG)
    assert found["circuit"] == "eap-ig-mean-not-carries_key"
    assert 0 < found["edges"] <= found["candidates"]
    stored = read_circuit(loaded, found["circuit"])
    assert stored.mask.kept == found["edges"] == load_circuit(loaded, found["folder"]).mask.kept
    config = EvaluateConfig(states=16, left_out=4, random=2, again=1, kinds=("zero",), episodes=6)
    judged = evaluate_circuit(loaded, found["circuit"], config)
    assert json.loads(Path(judged["result"]).read_text())["kl"] == judged["kl"]
    assert judged["curve"]["faithfulness"][-1] == pytest.approx(1)
    assert set(judged["returns"]) == {"agent", "circuit", "without", "random", "nothing"}
    assert judged["stability"]["states"]["jaccard"] > judged["stability"]["states"]["chance"]
    assert 0 < judged["edges_in_random"] < 1
    assert judged["returns"]["random"]["low"] is None  # of two circuits, however many episodes they play


@pytest.mark.parametrize("kind", ["mean", "optimal"])
def test_a_circuit_of_no_edge_has_the_faithfulness_nought(loaded, kind):
    """Wherever its constants come from, and on whichever states it is judged."""
    discover_run(loaded, replace(CONFIG, method="eap", when=None, edges=50, replace=kind), "few")
    stored = read_circuit(loaded, "few")
    nothing = replace(stored, mask=Mask.full(stored.mask.graph, 0.0))
    behaviour = behaviour_of(loaded, settings_of(stored), 7).with_constants(stored.reference)
    assert _on_states(behaviour, behaviour, nothing, EvaluateConfig(random=1))["faithfulness"] == pytest.approx(
        0, abs=1e-9
    )


def test_a_cut_is_not_judged_as_a_circuit(loaded):
    folder = Path(discover_run(loaded, replace(CONFIG, method="eap", when=None, edges=50), "cut")["folder"])
    described = json.loads((folder / "circuit.json").read_text())
    described["result"]["habit"] = "corner"
    (folder / "circuit.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="is a cut that breaks a habit, and no circuit of a behaviour"):
        evaluate_circuit(loaded, "cut")


def test_replacements_are_kept_of_states_that_are_far_apart(monkeypatch):
    monkeypatch.setattr("rl_interp.analysis.circuits.stored._BYTES", 4 * 20)
    kept = _few({"a": torch.arange(100.0)[:, None], "b": torch.ones(1, 1)})
    assert kept["a"][:, 0].tolist() == [round(99 * i / 19) for i in range(20)]
    assert len(kept["b"]) == 1
    assert len(_few({"a": torch.zeros(100, 4000)})["a"]) == 16  # however large


@pytest.mark.full
def test_that_no_circuit_is_smaller_than_the_graph_is_said(loaded):
    with pytest.warns(Notice, match=r"all \d+ edges that lead to a decision are kept: by the scores of eap no smaller"):
        found = discover_run(loaded, replace(CONFIG, method="eap", faithfulness=1.0), "whole")
    assert found["faithfulness"] == pytest.approx(1, abs=1e-6)


@pytest.mark.full
def test_a_circuit_beside_itself_is_the_same_and_serves_as_well(loaded):
    discover_run(loaded, replace(CONFIG, when=None, method="eap", edges=3000), "one")
    found = compare_circuits(loaded, "one", loaded, "one", CompareConfig(states=12, random=2))
    assert found["by_place"]["jaccard"] == found["by_activations"]["jaccard"] == 1 > found["by_place"]["chance"]
    assert found["by_activations"]["correlation"] == pytest.approx(1, abs=0.05)  # what watches remembers the same
    assert found["by_activations"]["correlation_by_chance"] < 0.9
    served = found["second_in_first"]
    assert served["faithfulness_of_own"] == served["faithfulness_by_place"] == served["faithfulness_by_activations"]
    assert served["faithfulness_of_own"] > served["faithfulness_random"]["value"]
    assert "obs" in Path(found["table"]).read_text()


@pytest.fixture
def dictionary(loaded, tmp_path) -> Run:
    """A dictionary's run, of the agent's memory."""
    parent = loaded.source | {"hook": "lstm.h"}
    run = Run.create(tmp_path / "sae", "sae", SAEConfig(latents=9, k=3), 0, parent)
    run.save_checkpoint(1, {name: torch.randn_like(value) for name, value in TopK(6, 9, 3).state_dict().items()})
    return run


def test_a_circuit_of_latents_is_kept_with_its_dictionary(loaded, dictionary):
    whole = coded(loaded, dictionary.path)
    found = discover_run(whole, replace(CONFIG, method="eap", when=None, edges=600), "latents")
    assert found["sae"] == str(dictionary.path)
    stored = read_circuit(loaded, "latents")  # of the agent alone: the dictionary is opened again
    assert any(link.source == "lstm.h.latents" for link in stored.mask.graph.links)
    config = EvaluateConfig(states=8, left_out=0, random=1, again=0, episodes=2)
    assert evaluate_circuit(loaded, "latents", config)["sae"] == str(dictionary.path)
    obs = torch.zeros(2, *loaded.env.observation_shape, dtype=torch.uint8)
    with intervened(loaded.agent, [stored.intervention(Mask.full(stored.mask.graph))]):
        torch.testing.assert_close(
            loaded.agent.step(obs, loaded.agent.initial_state(2)).preferences,
            whole.agent.step(obs, whole.agent.initial_state(2)).preferences,
        )
    dictionary.save_checkpoint(2, {name: value + 1 for name, value in TopK(6, 9, 3).state_dict().items()})
    with pytest.raises(UserError, match="was fitted anew since"):
        read_circuit(loaded, "latents")
    with pytest.raises(UserError, match="has other weights; give a dictionary of this agent"):
        coded(replace(loaded, weights_sha256="1" * 64), dictionary.path)


def test_latents_are_measured_beside_neurons_and_principal_components(loaded, dictionary, monkeypatch):
    played = []

    def noted(*args, **named):
        played.append((args[2], play_states(*args, **named)))
        return played[-1][1]

    monkeypatch.setattr("rl_interp.analysis.circuits.importance.play_states", noted)
    config = ImportanceConfig(kinds=("mean",), states=8, episodes=0)
    found = importance_run(coded(loaded, dictionary.path), (), config)
    # Measured on some episodes, replaced from others, and components fitted on others still.
    assert len(played) == 3
    assert all(int(states.episodes.max()) < seed for (_, states), (seed, _) in itertools.pairwise(played))
    kept = found["kept"]
    assert {name: each["counts"][-1] for name, each in kept.items()} == {
        "lstm.h": 6, "lstm.h.latents": 9, "lstm.h.components": 6, "lstm.h.policy_components": 6
    }  # fmt: skip
    for each in kept.values():
        assert set(each["faithfulness_by_ranking"]) == {"mean", "gradient", "integrated", "random", "each state"}
        assert all(
            curve[0] == 0 and curve[-1] == pytest.approx(1) for curve in each["faithfulness_by_ranking"].values()
        )
        assert each["enough"]["random"] == next(
            count for i, count in enumerate(each["counts"]) if min(each["faithfulness_by_ranking"]["random"][i:]) >= 0.9
        )


def test_a_circuit_of_another_agent_or_a_damaged_one_is_refused(loaded):
    folder = discover_run(loaded, replace(CONFIG, method="eap", when=None, edges=50), "mine")["folder"]
    with pytest.raises(UserError, match="is a circuit of another agent or checkpoint"):
        load_circuit(replace(loaded, weights_sha256="1" * 64), folder)
    with pytest.raises(RunError, match="holds no circuit"):
        load_circuit(loaded, "nothing")
    (loaded.run.path / "analyses" / "circuits" / "mine" / "circuit.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(RunError, match=r"circuit\.safetensors"):
        load_circuit(loaded, "mine")


def test_the_edges_that_are_drawn_of_a_large_circuit_lead_to_a_decision():
    graph = two_layers().graph
    scores = torch.rand(graph.edges, generator=torch.Generator().manual_seed(0))
    shown = leading(Mask.full(graph), scores, 12)
    assert [int(values.sum()) for values in shown.values.values()] == [4, 4, 4]
    led = shown.connected()[1]
    assert all(led[graph.link(link).dest][to] for link, to, _ in shown.edges)
    into_logits = shown.values["second -> logits"].flatten()
    assert torch.equal(into_logits.nonzero()[:, 0], scores[-len(into_logits) :].topk(4).indices.sort().values)


def test_a_concept_that_is_unknown_or_known_only_afterwards_is_refused(loaded):
    with pytest.raises(UserError, match="carries_key"):
        discover_run(loaded, replace(CONFIG, when="carries_keys"))
