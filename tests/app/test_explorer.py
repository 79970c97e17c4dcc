"""The explorer's server: who may ask, for what and how much, and what bad input is answered with."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from explorer_client import HERE, client, sentence
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from rl_interp.agents.dqn.agent import DQN
from rl_interp.agents.load import load_agent
from rl_interp.analysis.episodes import Part, Recipe, record
from rl_interp.app import cli
from rl_interp.app.explorer.guard import HEADERS, MAX_BODY, MAX_PAGES
from rl_interp.app.explorer.library import Library
from rl_interp.app.explorer.server import make_app
from rl_interp.core.errors import RunError
from rl_interp.core.run import Run
from rl_interp.saliency import parse_target, randomisation_check

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs: an agent in Freeway, a study, one that is damaged, and one with a name that is HTML."""
    folder = tmp_path_factory.mktemp("explorer") / "runs"
    config = {"env": {"id": "ALE/Freeway-v5"}, "hidden": 8}
    for name, kind in (("tiny", "dqn"), (HOSTILE, "dqn"), ("other", "study")):
        Run.create(folder / name, kind, config, seed=0)
    torch.manual_seed(0)
    for name in ("tiny", HOSTILE):
        Run.open(folder / name).save_checkpoint(7, DQN(3, (4, 84, 84), hidden=8).state_dict())
    shutil.copytree(folder / "tiny", folder / "damaged")
    (folder / "damaged" / "meta.json").write_text("{")
    return folder


@pytest.fixture
def app(folder):
    return make_app(Library([str(folder)]))


def test_the_page_and_its_assets_are_served_with_a_policy_that_runs_nothing_inline(app):
    page = client(app).get("/")
    assert page.status_code == 200
    for answer in (page, client(app).get("/static/main.js"), client(app).post("/api/runs", json={})):
        assert answer.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert "<script>" not in page.text
    assert " on" not in page.text.partition("<body")[0]
    assert "style=" not in page.text


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/guard.py", "/etc/passwd"]
)
def test_no_other_file_is_served(app, path):
    assert client(app).get(path).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "10.0.0.7:8642", "", "a@127.0.0.1"]
)
def test_another_host_is_refused_whoever_points_it_here(app, host):
    for answer in (
        client(app).get("/", headers={"host": host}),
        client(app).post("/api/runs", json={}, headers={"host": host}),
    ):
        assert answer.status_code == 403
        assert "open the link" in sentence(answer)


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://127.0.0.1:8642", "http://127.0.0.1:1"])
def test_another_origin_is_refused(app, origin):
    answer = client(app, origin=origin).post("/api/runs", json={})
    assert answer.status_code == 403
    assert "another origin" in sentence(answer)
    assert client(app, origin=HERE).post("/api/runs", json={}).status_code == 200


def test_a_form_of_another_page_can_not_ask(app):
    assert client(app).get("/api/runs").status_code == 405
    assert client(app).post("/api/runs", content=b"{}", headers={"content-type": "text/plain"}).status_code == 405
    assert client(app, page="").post("/api/runs", json={}).status_code == 403


def test_no_websocket_is_opened(app):
    with pytest.raises(WebSocketDisconnect) as refused, client(app).websocket_connect("/"):
        pass
    assert refused.value.code == 1008


def test_requests_are_bounded(app):
    answer = client(app).post("/api/runs", json={"fill": "x" * MAX_BODY})
    assert answer.status_code == 413
    assert "bytes" in sentence(answer)
    chunked = client(app).post("/api/runs", content=iter([b"{}"]), headers={"content-type": "application/json"})
    assert chunked.status_code == 413


def test_pages_are_bounded_and_those_that_are_open_stay(app):
    for i in range(MAX_PAGES):
        assert client(app, page=f"page{i:04}").post("/api/runs", json={}).status_code == 200
    refused = client(app, page="onetoomany").post("/api/runs", json={})
    assert refused.status_code == 503
    assert "close one" in sentence(refused)
    assert client(app, page="page0003").post("/api/runs", json={}).status_code == 200


def test_a_page_that_is_left_makes_room_for_another(app):
    for i in range(3 * MAX_PAGES):
        page = client(app, page=f"page{i:04}")
        assert page.post("/api/runs", json={}).status_code == 200
        assert page.post("/api/left", json={}).status_code == 204


def test_beyond_loopback_a_token_is_wanted_and_asked_for_once(folder):
    app = make_app(Library([str(folder)]), "0.0.0.0", "secret")
    page = TestClient(app, "http://192.168.0.7:8642", headers={"x-page": "page0000"}, follow_redirects=False)
    for answer in (
        page.get("/"),
        page.get("/?token=wrong"),
        page.get("/static/main.js"),
        page.post("/api/runs", json={}),
    ):
        assert answer.status_code == 401
        assert "holds a token" in sentence(answer)
    welcomed = page.get("/?token=secret")
    assert (welcomed.status_code, welcomed.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=lax"} <= set(welcomed.headers["set-cookie"].split("; "))
    assert page.post("/api/runs", json={}).status_code == 200
    assert page.get("/", headers={"host": "evil.example"}).status_code == 403


def test_runs_are_listed_with_what_they_are_or_why_they_can_not_be_opened(app):
    found = {each["name"]: each for each in client(app).post("/api/runs", json={}).json()["runs"]}
    assert (found["tiny"]["env"], found["tiny"]["steps"]) == ("ALE/Freeway-v5", [7])
    assert "holds no agent" in found["other"]["problem"]
    assert "meta.json" in found["damaged"]["problem"]
    assert HOSTILE in found


ASKED = {"run": "tiny", "recipe": {"seed": 1, "parts": [{"steps": 2}]}, "step": 1}
CLUSTERS = ASKED | {"point": "conv1.post", "count": 3, "plane": "pca"}


@pytest.mark.parametrize(
    ("answer", "body", "want"),
    [
        ("open", {"run": "../tiny"}, "unknown run"),
        ("open", {"run": "/etc"}, "unknown run"),
        ("open", {"run": "other"}, "holds no agent"),
        ("open", {"run": "damaged"}, "meta.json"),
        ("open", {"run": 3}, "no text 'run'"),
        ("open", {"run": "tiny", "checkpoint": 8}, "checkpoint step"),
        ("open", {"run": "tiny", "sae": "../../x"}, "unknown dictionary"),
        ("open", {"run": "tiny", "sae": "other"}, "sae fit"),
        ("episode", ASKED | {"known": 0, "recipe": {"parts": [{"steps": 10_000_000}]}}, "at most"),
        ("episode", ASKED | {"known": 0, "recipe": {"parts": [{"steps": -1}]}}, "at least 0"),
        ("episode", ASKED | {"known": 0, "recipe": {"parts": [{"steps": 1, "actions": [99]}]}}, "action"),
        ("episode", ASKED | {"known": 0, "recipe": {"parts": [{"steps": 1, "thinking": 999}]}}, "at most 100"),
        ("episode", ASKED | {"known": 0, "recipe": {"maze": "x"}}, "about mazes"),
        ("episode", ASKED | {"known": 0, "recipe": {"colour": 1}}, "unknown Recipe field"),
        ("episode", ASKED, "whole number 'known'"),
        ("layer", ASKED | {"point": "nowhere"}, "unknown hook point"),
        ("layer", ASKED | {"point": "fc.post", "step": 9}, "recorded up to step 2"),
        ("features", ASKED, "no dictionary is open"),
        ("effect", ASKED | {"changes": ["clamp:fc.post:99=1"], "controls": 20}, "units 0 to 7"),
        ("effect", ASKED | {"changes": "x", "controls": 20}, "'changes' is no list"),
        ("clusters", CLUSTERS | {"beside": ["nowhere"]}, "unknown hook point"),
        ("clusters", CLUSTERS | {"beside": ["conv2.post"] * 4}, "'beside' is no list of at most 3"),
        ("clusters", CLUSTERS | {"plane": "tsne"}, "unknown plane"),
        ("saliency", ASKED | {"method": "magic", "target": "value"}, "unknown saliency method"),
        ("saliency", ASKED | {"method": "gradient", "target": "feature:3"}, "without an autoencoder"),
        ("track", ASKED | {"track": "concept:nothing"}, "no concept"),
        ("maze", ASKED, "has no mazes"),
        ("plan", ASKED, "an agent in Sokoban"),
        ("stored", ASKED | {"hook": "../../other", "episode": 0}, "unknown hook point"),
        ("stored", ASKED | {"hook": "fc.post", "episode": 0}, "is no activation store"),
        ("frames", ASKED | {"steps": list(range(999))}, "at most 64 steps"),
        ("lines", ASKED | {"view": {"tab": "nothing"}}, "view 'nothing'"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_with_a_sentence(app, answer, body, want):
    found = client(app).post(f"/api/{answer}", json=body)
    assert found.status_code == 400
    assert want in sentence(found)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_what_is_no_request_is_refused(app, body):
    found = client(app).post("/api/runs", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 400
    assert "JSON object" in sentence(found)


def test_an_answer_that_fails_is_said_and_the_next_one_comes(app, monkeypatch):
    def fail(*given):
        raise ZeroDivisionError("by nobody")

    monkeypatch.setattr(Library, "entries", fail)
    failed = client(app).post("/api/runs", json={})
    assert failed.status_code == 500
    assert "ZeroDivisionError: by nobody" in sentence(failed)
    monkeypatch.undo()
    assert client(app).post("/api/runs", json={}).status_code == 200


def test_an_episode_is_recorded_looked_into_and_changed(app):
    page = client(app)
    opened = page.post("/api/open", json={"run": "tiny"}).json()
    assert opened["points"]["fc.post"] == "vector"
    played = page.post("/api/episode", json=ASKED | {"known": 0}).json()
    assert (played["steps"], played["preferences"]["shape"]) == (2, [3, 3])
    frames = page.post("/api/frames", json=ASKED | {"steps": [0, 2]}).content
    assert frames[4:8] == b"\x89PNG"
    assert page.post("/api/layer", json=ASKED | {"point": "conv1.post"}).json()["grid"] == [20, 20]
    found = page.post("/api/effect", json=ASKED | {"changes": ["clamp:fc.post:2=50"], "controls": 5}).json()
    assert found["controls"]["preferences"]["shape"] == [5, 3]
    assert page.post("/api/track", json=ASKED | {"track": "unit:fc.post:1"}).json()["values"]["shape"] == [3]


@pytest.mark.parametrize(("run", "target"), [("impala-unlock", "advantage"), ("beso-two-ways", "chosen")])
def test_the_target_that_a_map_begins_with_is_one_that_the_agent_has(run, target):
    page = client(make_app(Library([str(Path(__file__).parents[2] / "runs" / run)])))
    opened = page.post("/api/open", json={"run": run}).json()
    assert opened["target"] == target
    body = ASKED | {"run": run, "method": opened["methods"][0], "target": target}
    assert page.post("/api/saliency", json=body).status_code == 200


def test_clusters_of_several_layers_are_told_with_their_places(app):
    found = client(app).post("/api/clusters", json=CLUSTERS | {"beside": ["conv3.post"]}).json()
    assert [(each["point"], each["grid"], len(each["assigned"])) for each in found["layers"]] == [
        ("conv1.post", [20, 20], 400),
        ("conv3.post", [7, 7], 49),
    ]
    assert (found["points"]["shape"], found["layers"][1]["alike"]["shape"]) == ([400, 2], [3])
    assert 0 < found["share"] <= 1


def test_a_map_is_tested_by_an_agent_with_its_weights_shuffled(app, folder):
    body = ASKED | {"step": 2, "method": "gradient", "target": "q:UP"}
    found = client(app).post("/api/saliency", json=body).json()
    loaded = load_agent(folder / "tiny", device="cpu")
    moment = record(loaded, Recipe(1, (Part(2),))).moment(2)
    obs, target = torch.from_numpy(moment.obs[None]), parse_target("q:UP", loaded.env.action_names)
    (alike,) = randomisation_check(loaded.agent, obs, target, "gradient")
    assert found["alike"] == pytest.approx(float(alike))
    assert found["alike"] < 0.9


@pytest.mark.parametrize(
    "view",
    [
        {"tab": "decision", "step": 1},
        {"tab": "layer", "step": 1, "point": "fc.post"},
        {"tab": "clusters", "step": 1, "point": "conv2.post", "clusters": 3, "beside": ["conv3.post"]},
        {"tab": "change", "step": 1, "changes": ["scale:fc.post:2=3"]},
        {"tab": "saliency", "step": 1, "method": "gradient", "target": "value"},
    ],
)
def test_the_lines_that_are_shown_run_as_they_stand(app, view, capsys):
    shown = client(app).post("/api/lines", json=ASKED | {"view": view}).json()
    exec(shown["python"], {})
    assert capsys.readouterr().out


@pytest.mark.full
def test_the_command_that_is_shown_runs(app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    view = {"tab": "saliency", "step": 1, "method": "gradient", "target": "value"}
    shown = client(app).post("/api/lines", json=ASKED | {"view": view}).json()
    program, *words = shown["command"].split()
    assert program == "rl-interp"
    assert cli.main([*words, "--output", str(tmp_path / "film.mp4"), "--json"]) == 0


def test_a_run_that_is_not_there_is_refused_before_anything_is_served(tmp_path):
    with pytest.raises(RunError, match="unknown run"):
        Library(["no-such-run"])


def test_a_port_in_use_and_one_that_is_none_are_said(folder, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["explore", str(folder), "--port", str(port), "--no-browser"]) == 1
        assert f"port {port} is in use; give another, or --port 0" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["explore", str(folder), "--port", "99999"]) == 1
    assert cli.main(["explore", str(folder), "--host", "no.such.host.invalid"]) == 1


def test_hostile_names_reach_the_page_as_text_alone(app):
    text = client(app).post("/api/runs", json={}).text
    assert HOSTILE in [each["name"] for each in json.loads(text)["runs"]]
