"""What the explorer's server says under changes: in a moment, along the episode, and as Python lines."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from explorer_client import client

from rl_interp.agents.load import load_agent
from rl_interp.analysis.mazes.fields import STEPS
from rl_interp.analysis.sae.runs import dictionary_of, parent_of
from rl_interp.app.explorer.library import Library
from rl_interp.app.explorer.server import make_app
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore, StoreWriter
from rl_interp.sae import SAEConfig, TopK

RUNS = Path(__file__).parents[2] / "runs"
MAZE, WAYS = "impala-maze-region5", "beso-two-ways"
PATCH = "patch:fc.post=2"
"""From the agent's own episode, which is another for seed 1 than for seed 0."""
ASKED = {"run": MAZE, "recipe": {"seed": 1, "parts": [{"steps": 6}]}, "step": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with a dictionary of random features, on a layer of the maze agent."""
    folder, loaded = tmp_path_factory.mktemp("dictionary"), load_agent(RUNS / MAZE, device="cpu")
    with StoreWriter(folder / "store", "fc.post", loaded.source) as writer:
        writer.append(np.ones((12, 256), np.float32), {"episode": np.arange(12) // 3})
    parent = parent_of(loaded, ActivationStore(folder / "store"), None)
    torch.manual_seed(0)
    Run.create(folder / "random", "sae", SAEConfig(latents=32, k=16), 0, parent)
    weights = {name: torch.randn_like(each) for name, each in TopK(256, 32, 16).state_dict().items()}
    Run.open(folder / "random").save_checkpoint(1, weights)
    return folder


@pytest.fixture(scope="module")
def ask(folder):
    """`ask(answer, **body)`: what is answered."""
    page = client(make_app(Library([str(RUNS / MAZE), str(RUNS / WAYS)], [str(folder / "random")])))

    def answered(answer, **body):
        found = page.post(f"/api/{answer}", json=ASKED | body)
        assert found.status_code == 200, found.text
        return found.json()

    return answered


def numbers(array) -> np.ndarray:
    return np.frombuffer(base64.b64decode(array["data"]), "<f4").reshape(array["shape"])


def test_a_layer_is_patched_from_the_agents_own_episode_of_the_same_seed(ask):
    other, patched = ask("layer", point="fc.post", step=2), ask("layer", point="fc.post", changes=[PATCH])
    np.testing.assert_allclose(numbers(patched["values"]), numbers(other["values"]), rtol=1e-5, atol=1e-6)


def test_a_field_is_patched_from_the_agents_own_episode_of_the_same_seed(ask):
    maze = ask("maze", step=4, recipe={"seed": 7, "parts": [{"steps": 6}]})["maze"]
    after = {seed: numbers(ask("field", maze=maze, seed=seed, changes=[PATCH])["after"]) for seed in (0, 1)}
    for seed, found in after.items():
        played = {"recipe": {"seed": seed, "maze": maze, "parts": [{"steps": 6}]}}
        preferences = numbers(ask("layer", point="policy", changes=[PATCH], **played)["values"])[0]
        step = torch.from_numpy(preferences.copy()).softmax(0).numpy() @ STEPS  # the same in every cell
        np.testing.assert_allclose(found, np.tile(step, (len(found), 1)), atol=1e-5)
    assert np.abs(after[0] - after[1]).max() > 0.5


def test_tracks_are_of_what_was_there_as_the_agent_played(ask):
    unit = int(numbers(ask("layer", point="fc.post")["values"])[0].argmax())
    parts = [{"steps": 3}, {"steps": 2, "changes": [f"ablate:fc.post:{unit}"]}, {"steps": 2}]
    along = numbers(ask("track", track=f"unit:fc.post:{unit}", recipe={"seed": 1, "parts": parts})["values"])
    assert [value > 0 for value in along] == [True, True, True, False, False, True, True, True]


def test_features_are_of_what_is_there_under_the_changes(ask, folder):
    unit = numbers(ask("layer", point="fc.post")["values"])[0].argmax()
    random = {"sae": "random", "changes": [f"ablate:fc.post:{unit}", "patch:fc.post:8=2"]}
    held = [ask("layer", point="fc.post", changes=each)["values"] for each in ([], random["changes"])]
    with torch.no_grad():
        encode = dictionary_of(folder / "random").encode
        before, after = (encode(torch.from_numpy(numbers(each).copy()))[0].numpy() for each in held)
    listed = {each["feature"]: each["activation"] for each in ask("features", **random)["features"]}
    assert listed == pytest.approx({i: value for i, value in enumerate(after.tolist()) if value > 0}, rel=1e-4)
    number = int(np.abs(after - before).argmax())
    assert numbers(ask("feature", feature=number, **random)["values"])[0] == pytest.approx(after[number], rel=1e-4)
    assert after[number] != pytest.approx(before[number], rel=0.1)


def ran(ask, view, **body) -> list:
    """What the Python lines of a view print."""
    printed = []
    python = ask("lines", view={"step": ASKED["step"], **view}, **body)["python"]
    exec(python, {"print": lambda *values: printed.extend(values)})
    return printed


@pytest.mark.parametrize("changes", [[], [PATCH]])
def test_the_lines_of_a_layer_give_what_is_shown_of_it(ask, changes):
    (printed,) = ran(ask, {"tab": "layer", "point": "policy", "changes": changes})
    shown = numbers(ask("layer", point="policy", changes=changes)["values"])
    np.testing.assert_allclose(printed, shown, rtol=1e-5, atol=1e-6)


def test_the_lines_of_features_give_what_is_shown_of_them(ask):
    (printed,) = ran(ask, {"tab": "features", "changes": [PATCH]}, sae="random")
    shown = ask("features", changes=[PATCH], sae="random")["features"][:20]
    assert printed == pytest.approx({each["feature"]: each["activation"] for each in shown}, rel=1e-4)


def test_the_lines_of_a_field_give_what_is_shown_of_it(ask):
    maze = ask("maze", step=4, recipe={"seed": 7, "parts": [{"steps": 6}]})["maze"]
    _, probabilities = ran(ask, {"tab": "maze", "maze": maze, "changes": [PATCH]})
    shown = numbers(ask("field", maze=maze, seed=1, changes=[PATCH])["after"])
    np.testing.assert_allclose(probabilities @ STEPS, shown, atol=1e-5)


@pytest.mark.parametrize("method", ["perturbation", "resample"])
def test_the_lines_of_a_map_of_a_vector_give_what_is_shown_of_it(ask, method):
    (printed,) = ran(ask, {"tab": "saliency", "method": method, "target": "chosen"}, run=WAYS)
    shown = ask("saliency", run=WAYS, method=method, target="chosen")
    np.testing.assert_allclose(printed, numbers(shown["values"]), rtol=1e-4, atol=1e-6)
