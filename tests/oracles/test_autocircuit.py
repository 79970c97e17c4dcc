"""The graph of a transformer, and attributions of its edges, are those of AutoCircuit (Miller et al. 2024)."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.transformer_circuits import edge_names
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import gradient
from rl_interp.circuits.mask import Mask
from rl_interp.core.read import read_json

sys.path.insert(0, str(Path(__file__).parent / "published_autocircuit"))
from edges import ANSWERS, SAID, made


@pytest.mark.parametrize("method", ["eap", "eap-ig"])
def test_edges_matter_as_much_as_they_do_there(method):
    said, (agent, states) = read_json(SAID), made()
    behaviour = Behaviour.of(agent, states, "counterfactual")
    torch.testing.assert_close(behaviour.preferences, torch.tensor(said["logits"]), atol=1e-5, rtol=1e-5)

    def difference(some: Behaviour, preferences: torch.Tensor) -> torch.Tensor:
        first, second = preferences.gather(-1, ANSWERS[: len(preferences)]).unbind(-1)
        return first - second

    steps = said["steps"] if method == "eap-ig" else 0
    places = [1 - i / steps for i in range(steps + 1)] if steps else [1.0]
    scores = sum(gradient(behaviour, Mask.full(behaviour.graph, place), difference) for place in places)
    wanted = said[method]
    assert set(edge_names(behaviour.graph)) == set(wanted)
    assert len(wanted) == behaviour.graph.edges == 46
    got = dict(zip(edge_names(behaviour.graph), scores.tolist(), strict=True))
    assert got == {name: pytest.approx(score, rel=1e-4, abs=1e-5) for name, score in wanted.items()}
