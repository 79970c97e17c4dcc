"""Pushing to and pulling from a hub: the real client against a hub of this machine."""

import base64
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from rl_interp import sae
from rl_interp.core.errors import RunError, UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a repository of small files needs, in memory."""

    files: dict[str, bytes] = {}
    repos: set[str] = set()

    def _answer(self, body: object = b"", status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.repos.add(f"{asked['organization']}/{asked['name']}")
            self._answer({"url": f"http://{self.headers['Host']}/{asked['organization']}/{asked['name']}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {
                    "commitUrl": f"http://{self.headers['Host']}/me/mine/commit/{COMMIT}",
                    "commitOid": COMMIT,
                    "success": True,
                }
            )
        else:
            self._answer(status=404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "nowhere" in path:
            self._answer({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
        elif path.startswith("/api/models/") and "/tree/" in path:
            self._answer([{"type": "file", "path": p, "size": len(d), "oid": "0"} for p, d in self.files.items()])
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.files]
            self._answer({"id": "me/mine", "modelId": "me/mine", "sha": COMMIT, "siblings": siblings, "tags": []})
        elif "/resolve/" in path:
            data = self.files.get(path.split(f"/resolve/{COMMIT}/")[-1])
            if data is None:
                self._answer(status=404, X_Error_Code="EntryNotFound")
            else:
                self._answer(data, ETag='"' + str(hash(data)) + '"', X_Repo_Commit=COMMIT)
        else:
            self._answer(status=404)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    Hub.files, Hub.repos = {}, set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def dictionary() -> sae.SAE:
    torch.manual_seed(0)
    made = sae.TopK(8, 16, 3)
    torch.nn.init.normal_(made.W_enc)
    torch.nn.init.normal_(made.W_dec)
    return made


def test_what_is_pushed_is_pulled_to_the_last_bit(hub, tmp_path):
    made = dictionary()
    folder = sae.save(made, tmp_path / "made", {"hook_name": "fc.post"})
    (folder / "notes.txt").write_text("stays here")
    address = sae.push(folder, "me/mine", "fc.post", token="hf_x", endpoint=hub)
    assert address.endswith(COMMIT)
    assert Hub.repos == {"me/mine"}
    assert sorted(Hub.files) == ["fc.post/cfg.json", "fc.post/sae_weights.safetensors"]
    found = sae.pull("me/mine", "fc.post", endpoint=hub)
    for name, weight in made.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name])
    assert found.metadata["hook_name"] == "fc.post"


def test_the_commands_push_and_pull(hub, tmp_path, monkeypatch):
    from rl_interp.app import cli
    from rl_interp.app.commands import sae as commands

    folder = sae.save(dictionary(), tmp_path / "run" / "sae_lens", {"hook_name": "fc.post", "model_name": "dqn"})
    opened = SimpleNamespace(run=SimpleNamespace(path=folder.parent), hook="fc.post")
    monkeypatch.setattr("rl_interp.app.commands.sae.load_sae", lambda run, progress: opened)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    for name, call in (("push", sae.push), ("pull", sae.pull)):  # elsewhere HF_ENDPOINT says where the hub is
        monkeypatch.setattr(f"rl_interp.app.commands.sae.{name}", partial(call, endpoint=hub))
    assert cli.main(["sae", "push", "run", "me/mine"]) == 0
    assert "fc.post/cfg.json" in Hub.files
    assert commands.sae_pull("me/mine", tmp_path / "out", "fc.post")["d_sae"] == 16
    assert torch.equal(sae.load(tmp_path / "out").W_dec, sae.load(folder).W_dec)
    wanted = {"hook_name": "fc.post", "model_name": "dqn", "repo": "me/mine", "folder": "fc.post"}
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"].items() >= wanted.items()


def test_metadata_that_is_no_object_is_refused(tmp_path):
    config = sae.save(dictionary(), tmp_path / "made") / "cfg.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"metadata": ["fc.post"]}))
    with pytest.raises(RunError, match=r"has metadata = \['fc.post'\]; it must be an object, or left out"):
        sae.load(tmp_path / "made")


def test_what_is_not_there_is_said_in_one_sentence(hub, tmp_path):
    with pytest.raises(RunError, match="holds no autoencoder: cfg.json is missing"):
        sae.push(tmp_path, "me/mine", endpoint=hub)
    with pytest.raises(UserError, match="the hub did not give or take 'me/nowhere'"):
        sae.pull("me/nowhere", endpoint=hub)
    sae.push(sae.save(dictionary(), tmp_path / "made"), "me/mine", "one", token="hf_x", endpoint=hub)
    with pytest.raises(RunError, match="cfg.json is missing"):
        sae.pull("me/mine", "other", endpoint=hub)
    with pytest.raises(UserError, match="the hub did not give or take 'me/mine'"):
        sae.pull("me/mine", endpoint="http://127.0.0.1:9")
