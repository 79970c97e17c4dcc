"""What is read may be damaged, altered or made to harm: it is refused in one sentence that names the file."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from rl_interp.agents.load import load_agent
from rl_interp.analysis.sae import runs
from rl_interp.core.config import from_plain
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import sha256
from rl_interp.core.interrupt import Interrupted
from rl_interp.core.read import read_json, read_yaml, reading
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore, StoreWriter
from rl_interp.core.weights import Held, Weights, read_state, with_weights

RUNS = Path(__file__).parents[2] / "runs"


def refused(load: Callable[[], Any], *said: str) -> str:
    with pytest.raises(UserError) as caught:
        load()
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in said:
        assert part in sentence
    return sentence


@pytest.fixture
def run(tmp_path) -> Path:
    return Path(shutil.copytree(RUNS / "impala-unlock", tmp_path / "run"))


def checkpoint_of(run: Path) -> Path:
    return next((run / "checkpoints").iterdir())


def resign(directory: Path, **changes: Any) -> None:
    """Give altered files their sha256 in the manifest, which anybody can."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: sha256(directory / name) for name in manifest["files"]} | changes
    path.write_text(json.dumps(manifest))


def reconfigure(run: Path, **changes: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["env"] |= changes.pop("env", {})
    (run / "config.yaml").write_text(yaml.safe_dump(config | changes))


@pytest.mark.parametrize("change", [{"hidden": 10**9}, {"lstm": 10**10}, {"hidden": 2**62}, {"lstm": 0}])
def test_a_config_takes_no_memory_that_its_weights_do_not_have(run, change):
    reconfigure(run, **change)
    refused(lambda: load_agent(run), str(run), "config")


def test_a_deep_config_takes_no_time(tmp_path):
    run = Path(shutil.copytree(RUNS / "impala-crafter", tmp_path / "run"))
    reconfigure(run, channels=[16] * 10_000)
    refused(lambda: load_agent(run), "config.yaml", "channels")


def test_a_stack_of_frames_takes_no_memory(tmp_path):
    run = Path(shutil.copytree(RUNS / "dqn-mspacman", tmp_path / "run"))
    reconfigure(run, env={"frame_stack": 10**9}, learning_starts=10**12, replay_capacity=10**12)
    refused(lambda: load_agent(run), str(run), "conv1.weight")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": "wide"}, "hidden is 'wide', where a whole number is wanted"),
        ({"hidden": True}, "hidden is True"),
        ({"gamma": [0.9]}, "gamma is [0.9], where a number is wanted"),
        ({"gamma": float("nan")}, "gamma=nan"),
        ({"channels": {"a": 1}}, "channels is {'a': 1}, where a list is wanted"),
        ({"env": {"id": 3}}, "3 for 'id'"),
        ({"env": {"observation": "smells"}}, "observation is 'smells', where one of 'pixels', 'symbols' is wanted"),
        ({"env": {"id": "ALE/../../etc-v5"}}, "unknown environment"),
        ({"precision": "int4"}, "precision is 'int4'"),
    ],
)
def test_a_config_of_other_types_or_values_is_refused_by_field(run, change, said):
    reconfigure(run, **change)
    refused(lambda: load_agent(run), "config.yaml", said)


@pytest.mark.parametrize("name", ["config.yaml", "meta.json", "manifest.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", ["{", "[1, 2]", "3", "\0", b"\xff\xfe", "[" * 5_000, '{"kind": ["x"]}'])
def test_a_damaged_file_is_named(run, name, content):
    path = (checkpoint_of(run) if name == "manifest.json" else run) / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode() + b"\n")
    refused(lambda: (Run.open(run).metrics(), load_agent(run)), name)


@pytest.mark.parametrize("name", ["config.yaml", "meta.json", "manifest.json"])
def test_an_empty_file_is_named(run, name):
    ((checkpoint_of(run) if name == "manifest.json" else run) / name).write_bytes(b"")
    refused(lambda: load_agent(run), f"{name} is empty")


def test_a_directory_in_the_place_of_a_file_is_named(run):
    path = checkpoint_of(run) / "manifest.json"
    path.unlink()
    path.mkdir()
    refused(lambda: load_agent(run), "manifest.json")


def test_aliases_in_yaml_do_not_multiply(tmp_path):
    lines = ["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    refused(lambda: read_yaml(tmp_path / "config.yaml"), "config.yaml", "aliases")


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}}, {"files": ["model.safetensors"]}, {"files": {"../model.safetensors": "0" * 64}},
        {"files": {"/etc/passwd": "0" * 64}}, {"files": {"model.safetensors": 3}}, {"files": {"": "0" * 64}},
        {"step": "x"}, {"step": 7}, {"files": None},
    ],
)  # fmt: skip
def test_a_checkpoints_manifest_names_its_own_files_and_all_that_are_read(run, change):
    path = checkpoint_of(run) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(lambda: load_agent(run), "manifest.json")


def test_a_state_that_the_manifest_does_not_list_is_not_read(run):
    torch.save({"learner": {}}, checkpoint_of(run) / "state.pt")
    refused(lambda: Run.open(run).load_state(), "manifest.json", "state.pt")


def test_weights_that_are_not_finite_are_refused(run):
    path = checkpoint_of(run) / "model.safetensors"
    for value in (float("nan"), float("inf")):
        weights = {name: w.clone() for name, w in load_file(RUNS / "impala-unlock" / path.relative_to(run)).items()}
        weights["fc.weight"][3, 5] = value
        save_file(weights, path)
        resign(path.parent)
        refused(lambda: load_agent(run), str(path), "'fc.weight'", "not finite")
    weights["fc.weight"].fill_(3e38)  # whose sum is not finite
    save_file(weights, path)
    resign(path.parent)
    load_agent(run)


def test_an_agent_is_of_the_step_that_it_is_said_to_be_of_while_its_training_saves(run, monkeypatch):
    kept = checkpoint_of(run)

    def load_while_saving(make, weights, source):
        agent = with_weights(make, weights, source)
        Run.open(run).save_checkpoint(10**9, {name: weight + 1 for name, weight in agent.state_dict().items()})
        return agent

    monkeypatch.setattr("rl_interp.agents.load.with_weights", load_while_saving)
    loaded = load_agent(run, device="cpu")
    assert loaded.step == int(kept.name)
    assert loaded.weights_sha256 == sha256(kept / "model.safetensors")


def test_tied_weights_are_tied_again(tmp_path):
    def make() -> nn.Module:
        layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        layers[1].weight = layers[0].weight
        return layers

    made = make()
    made[0].bias.requires_grad_(False)
    read = with_weights(make, Held(made.state_dict(), tmp_path), tmp_path)
    assert read[1].weight is read[0].weight
    assert len(list(read.parameters())) == 3
    assert all(torch.equal(weight, made.state_dict()[name]) for name, weight in read.state_dict().items())


def test_weights_of_another_type_are_refused(run):
    path = checkpoint_of(run) / "model.safetensors"
    save_file({name: w.long() for name, w in load_file(path).items()}, path)
    resign(path.parent)
    refused(lambda: load_agent(run), "int64 there and float32 in")


def test_weights_in_another_layout_or_precision_come_back_as_they_were(tmp_path):
    weights = {
        "a": torch.randn(2, 3).bfloat16(),
        "n": torch.arange(3),
        "b": torch.randn(4).double(),
        "c": torch.ones(()),
    }
    save_file(weights, tmp_path / "w.safetensors")
    loaded = Weights(tmp_path / "w.safetensors").load()
    assert {name: w.dtype for name, w in loaded.items()} == {
        "a": torch.float32, "n": torch.int64, "b": torch.float32, "c": torch.float32
    }  # fmt: skip
    for name, weight in weights.items():
        torch.testing.assert_close(loaded[name], weight.to(loaded[name].dtype), atol=0, rtol=0)


class Attack:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


class Room:
    def __reduce__(self):
        return bytearray, (10**12,)


def repacked(path: Path, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


def test_a_state_neither_runs_code_nor_takes_more_than_it_has(tmp_path):
    path, marker = tmp_path / "state.pt", tmp_path / "was_run"
    for value, said in [
        (Attack(marker), "io.open, which is neither"),
        (Room(), "bytearray, which is neither"),
        (torch.zeros(1).expand(10**12), "does not hold"),
        (torch.zeros(2, device="meta"), "neither a tensor"),
        (torch.ones(2).to_sparse(), "neither a tensor"),
        ({1j}, "neither a tensor"),
    ]:
        torch.save({"x": value}, path)
        refused(lambda: read_state(path), str(path), said)
    assert not marker.exists()
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested]
    torch.save(nested, path)
    refused(lambda: read_state(path), "nested too deep")
    torch.save({"x": torch.zeros(100_000)}, path)
    assert read_state(path)["x"].shape == (100_000,)
    repacked(path, lambda _, data: data, zipfile.ZIP_DEFLATED)
    refused(lambda: read_state(path), "compressed")
    path.write_bytes(pickle.dumps([Attack(marker)]))
    refused(lambda: read_state(path), str(path))
    assert not marker.exists()


def test_a_state_that_does_not_fit_its_training_is_refused(tmp_path):
    from rl_interp.agents.dqn.config import DQNConfig
    from rl_interp.agents.loop import _resume

    run = Run.create(tmp_path / "run", "dqn", {}, 0)
    run.save_checkpoint(5, {"w": torch.ones(2)}, {"learner": [1], "n": 3})

    class Training:
        def restore(self, weights, state, source):
            state["learner"]["updates"]

    refused(lambda: _resume(Training(), DQNConfig(), run), "checkpoints/5", "use another checkpoint")  # pyright: ignore


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried ...")])
def test_a_want_of_memory_is_not_taken_for_a_damage(tmp_path, error):
    said = refused(lambda: _raise(error, tmp_path / "state.pt"), "state.pt takes more memory than there is; free some")
    assert "fit" not in said


@pytest.mark.parametrize("caught_by", ["reading", "from_plain", "with_weights", "load_sae"])
def test_who_stops_a_reader_is_not_taken_for_a_damage(run, monkeypatch, caught_by):
    def stopped(*_: Any) -> Any:
        raise Interrupted("stopped by SIGTERM")

    @dataclass
    class Config:
        x: int = 0
        __post_init__ = stopped

    def load() -> None:
        if caught_by == "reading":
            _raise(Interrupted("stopped by SIGTERM"), run)
        elif caught_by == "from_plain":
            from_plain(Config, {}, run)
        elif caught_by == "with_weights":
            with_weights(stopped, Held({}, run), run)
        else:
            monkeypatch.setattr(runs, "load_agent", stopped)
            meta = json.loads((run / "meta.json").read_text())
            parent = {"run": str(run), "step": 0, "store": "s", "hook": "fc.post"}
            (run / "meta.json").write_text(json.dumps(meta | {"kind": "sae", "parent": parent}))
            (run / "config.yaml").write_text("latents: 8\nk: 2\n")
            runs.load_sae(run)

    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM$"):
        load()


def _raise(error: BaseException, path: Path) -> None:
    with reading(path, "use another checkpoint", "does not fit the training"):
        raise error


@pytest.fixture
def store(tmp_path) -> Path:
    with StoreWriter(tmp_path / "store", "fc.post", {"run": "r"}, shard_rows=6) as writer:
        for _ in range(2):
            writer.append(np.ones((6, 3), np.float32), {"episode": np.arange(6), "value": np.ones(6)})
    return tmp_path / "store"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 13}, {"rows": "12"}, {"rows": -1}, {"sample_shape": [2]}, {"sample_shape": []}, {"sample_shape": 3},
        {"sample_shape": [0]}, {"sample_shape": [10**12]}, {"dtype": "float64"}, {"dtype": "float16"}, {"dtype": "O"},
        {"shards": []}, {"shards": [{"file": "shard-00000.npy", "rows": 12}]}, {"shards": ["shard-00000.npy"]},
        {"shards": [{"file": "shard-00000.npy", "rows": 6}] * 2}, {"shards": [{"file": "../x.npy", "rows": 12}]},
        {"shards": [{"file": "index.parquet", "rows": 12}]}, {"files": {}}, {"hook": None}, {"provenance": []},
    ],
)  # fmt: skip
def test_a_stores_manifest_says_what_the_store_holds(store, change):
    path = store / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(lambda: ActivationStore(store), str(store), "collect the activations again")


def test_a_shard_that_the_manifest_does_not_list_is_not_read(store):
    path = store / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["shard-00001.npy"]
    path.write_text(json.dumps(manifest))
    refused(lambda: ActivationStore(store), "manifest.json", "shard-00001.npy")


def test_a_shard_is_an_array_of_numbers_as_said(store):
    path = store / "shard-00000.npy"
    for array in (np.ones((6, 4), np.float32), np.ones((6, 3)), np.asfortranarray(np.ones((6, 3), np.float32))):
        np.save(path, array)
        resign(store)
        refused(lambda: ActivationStore(store), str(path))
    np.save(path, np.array([[Attack(store / "was_run")] * 3] * 6, object), allow_pickle=True)
    resign(store)
    refused(lambda: ActivationStore(store), str(path))
    assert not (store / "was_run").exists()
    np.savez(path.with_suffix(".npz"), np.ones(3))
    path.with_suffix(".npz").rename(path)
    resign(store)
    refused(lambda: ActivationStore(store), str(path))


def test_an_index_is_a_table_of_numbers_that_is_not_packed_tight(store):
    path, episodes = store / "index.parquet", pa.array(range(12))
    for table, options in [
        ({"episode": episodes[:11]}, {}), ({"episode": ["x"] * 12}, {}), ({"episode": [[1]] * 12}, {}),
        ({"episode": episodes}, {"compression": "gzip"}),
        ({"episode": episodes, "x": episodes}, {"compression": {"episode": "snappy", "x": "zstd"}}),
    ]:  # fmt: skip
        pq.write_table(pa.table(table), path, **options)
        resign(store)
        refused(lambda: ActivationStore(store), str(path))
    for options in ({"write_statistics": False}, {"compression": "none"}, {"row_group_size": 5}):
        pq.write_table(pa.table({"episode": episodes}), path, **options)
        resign(store)
        assert ActivationStore(store).column("episode").tolist() == list(range(12))
    path.write_bytes(b"PAR1 and no more")
    resign(store)
    refused(lambda: ActivationStore(store), str(path))


def test_numbers_that_json_does_not_have_are_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"a": NaN}')
    with pytest.raises(RunError, match="NaN"):
        read_json(tmp_path / "x.json")
