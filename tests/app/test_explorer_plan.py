"""What the explorer's server says of a Sokoban agent's plan."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from explorer_client import client, sentence

from rl_interp.agents.load import load_agent
from rl_interp.analysis.episodes import Part, Recipe, record
from rl_interp.analysis.probes.cells import CellProbe
from rl_interp.analysis.sokoban.reading import Point, save_probes
from rl_interp.app.explorer.library import Library
from rl_interp.app.explorer.server import make_app
from rl_interp.core.files import write_json


def plan_of(folder, **more):
    """What is answered about a plan of the agent of small rooms."""
    recipe = {"seed": 3, "parts": [{"steps": 3}]}
    body = {"run": "sokoban", "recipe": recipe, "step": 1, "layer": "", "kernel": 1, "thinking": 0}
    return client(make_app(Library([str(folder)]))).post("/api/plan", json=body | more)


@pytest.fixture
def sokoban(tmp_path):
    """A folder with an agent of Sokoban, whose plan is not probed yet."""
    shutil.copytree(Path(__file__).parents[2] / "runs" / "impala-sokoban-7x7", tmp_path / "runs" / "sokoban")
    return tmp_path / "runs"


@pytest.fixture
def probed(sokoban):
    """The same with probes at two ticks that say up at the first and left at the second, whatever they see; of boxes
    such that follow the first channels."""
    loaded, probes = load_agent(sokoban / "sokoban", device="cpu"), {}
    torch.manual_seed(0)
    for tick, direction in enumerate((0, 2)):
        probes["agent", Point("layer2.c", tick), 1] = CellProbe(torch.zeros(5, 16, 1, 1), 5 * torch.eye(5)[direction])
        probes["box", Point("layer2.c", tick), 1] = CellProbe(torch.randn(5, 16, 1, 1), torch.zeros(5))
    save_probes(loaded, probes, fitted=np.empty((0, 7, 7), np.uint8))
    score = {"layer": "layer2.c", "kernel": 1, "f1": 0.5, "interval": None, "controls": {"observation": 0.2}}
    scores = {concept: [score | {"tick": tick} for tick in range(2)] for concept in ("agent", "box")}
    write_json(sokoban / "sokoban/analyses/sokoban/probe.json", loaded.source | {"concepts": scores})
    return sokoban


def test_a_plan_that_is_not_probed_is_said_with_the_command_that_does_it(sokoban):
    assert client(make_app(Library([str(sokoban)]))).post("/api/open", json={"run": "sokoban"}).json()["plan"]
    missing = plan_of(sokoban).json()["missing"]
    assert "run `rl-interp sokoban probe " in missing
    assert "--checkpoint 789760" in missing


def test_a_plan_is_read_at_every_tick_of_every_look_beside_its_scores(probed):
    found = plan_of(probed, thinking=2).json()
    assert (found["layer"], found["layers"], found["size"]) == ("layer2.c", ["layer2.c"], [7, 7])
    assert (len(found["looks"]), {len(look) for look in found["looks"]}) == (3, {2})
    for look in found["looks"]:
        for tick, direction in zip(look, (0, 2), strict=True):
            assert {arrow[2] for arrow in tick["agent"]} == {direction}
            assert [arrow[3] for arrow in tick["agent"]] == pytest.approx([148.413 / 152.413] * len(tick["agent"]))
    moment = record(load_agent(probed / "sokoban", device="cpu"), Recipe(3, (Part(3),))).moment(1)
    assert len(found["looks"][0][0]["agent"]) == (moment.obs != 0).sum()
    assert [each["tick"] for each in found["scores"]["box"]] == [0, 1]
    assert found["changed"] is None


def test_a_plan_under_changes_stands_beside_random_changes_of_the_same_size(probed):
    found = plan_of(probed, changes=["ablate:layer2.c:0", "add:layer2.c:3=4"]).json()
    assert found["changed"] != found["looks"]
    assert found["differ"][0][1] > 0
    assert np.array(found["controls"]).shape == (20, 1, 2)
    nothing = plan_of(probed, changes=["scale:layer2.c:0=1"]).json()
    assert (nothing["changed"], nothing["differ"]) == (nothing["looks"], [[0, 0]])
    assert not np.any(nothing["controls"])


def test_scores_of_another_checkpoint_are_not_shown_as_those_of_this_one(probed):
    path = probed / "sokoban/analyses/sokoban/probe.json"
    path.write_text(path.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    assert "has the scores of step 789760" in plan_of(probed).json()["missing"]
    path.write_text("[]")
    assert "probe.json" in plan_of(probed).json()["missing"]


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"layer": "nowhere"}, "unknown hook point"),
        ({"layer": "layer1.c"}, "unknown probed layer 'layer1.c'"),
        ({"kernel": 3}, "1 x 1 or 3 x 3"),
        ({"thinking": 101}, "from 0 to 100"),
        ({"thinking": "many"}, "no whole number 'thinking'"),
        ({"changes": ["clamp:layer2.c:99=1"]}, "units 0 to 15"),
        ({"run": "tiny"}, "unknown run"),
    ],
)
def test_a_plan_that_can_not_be_read_is_a_sentence(probed, given, want):
    assert want in sentence(plan_of(probed, **given))


def test_the_lines_that_are_shown_of_a_plan_run_as_they_stand(probed, capsys):
    view = {
        "tab": "plan",
        "step": 1,
        "point": "layer2.c",
        "kernel": 1,
        "thinking": 1,
        "changes": ["scale:layer2.c:0=2"],
    }
    body = {"run": "sokoban", "recipe": {"seed": 3, "parts": [{"steps": 3}]}, "view": view}
    exec(client(make_app(Library([str(probed)]))).post("/api/lines", json=body).json()["python"], {})
    assert capsys.readouterr().out.count("Arrow(") > 10


def test_the_lines_of_a_plan_give_what_is_shown_of_it_under_a_patch(probed):
    changes, printed = ["patch:layer2.c=1"], {}
    view = {"tab": "plan", "step": 2, "point": "layer2.c", "kernel": 1, "changes": changes}
    body = {"run": "sokoban", "recipe": {"seed": 3, "parts": [{"steps": 3}]}, "view": view}
    python = client(make_app(Library([str(probed)]))).post("/api/lines", json=body).json()["python"]
    exec(python, {"print": printed.__setitem__})
    shown = plan_of(probed, step=2, changes=changes).json()["changed"][-1]
    for concept in ("agent", "box"):
        for tick, arrows in enumerate(printed[concept]):
            np.testing.assert_allclose([*map(list, arrows)], shown[tick][concept], rtol=1e-5)
