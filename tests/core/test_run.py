import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from processes import as_nobody
from safetensors import safe_open
from torch import nn

from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import atomic_path
from rl_interp.core.run import Run, load_into


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "made", "dqn", {"lr": 0.1, "sizes": (1, 2)}, seed=3, parent={"run": "other"})


def save(run, step, value=1.0, state=None):
    return run.save_checkpoint(step, {"w": torch.full((2,), value)}, state)


def test_config_and_provenance_are_kept(run):
    opened = Run.open(run.path)
    assert opened.config == {"lr": 0.1, "sizes": [1, 2]}
    assert opened.meta["seed"] == 3
    assert opened.meta["parent"] == {"run": "other"}
    assert {"torch", "numpy"} <= opened.meta["versions"].keys()
    assert opened.meta["hardware"]["cores"] >= 1


def test_a_name_is_looked_up_under_runs_and_a_wrong_one_gets_a_suggestion(run, monkeypatch, tmp_path):
    monkeypatch.setattr("rl_interp.core.run.RUNS", tmp_path)
    assert Run.open("made").path == run.path
    with pytest.raises(RunError, match=r"unknown run 'mde'. Did you mean 'made'\? Known: made.* Looked for .* in "):
        Run.open("mde")


def test_a_name_is_looked_up_in_the_folders_that_a_variable_names(run, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("RL_INTERP_RUNS", f"{tmp_path / 'none'}:{run.path.parent}:")
    assert Run.open(run.path.name).path == run.path
    with pytest.raises(RunError, match=f"in runs, {run.path.parent}"):
        Run.open("nothing")


def test_runs_of_the_checkout_are_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Run.open("dqn-mspacman").meta["kind"] == "dqn"


def test_what_is_made_of_a_reference_run_goes_to_the_working_directory(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Run.open("dqn-mspacman").outputs == Path("runs/dqn-mspacman")
    assert Run.open(run.path).outputs == run.path


def test_a_second_run_does_not_overwrite_the_first(run):
    save(run, 1)
    with pytest.raises(RunError, match="already holds a run"):
        Run.create(run.path, "dqn", {}, seed=0)


def test_a_run_without_a_checkpoint_does_not_block_its_name(run):
    run.log(1, {"loss": 1.0})
    run.close()
    (run.path / "analyses").mkdir()
    (run.path / "replay").mkdir()
    (run.path / "replay" / "tick.npy").touch()
    again = Run.create(run.path, "dqn", {"lr": 0.2}, seed=4)
    assert (again.meta["kind"], again.config, again.metrics()) == ("dqn", {"lr": 0.2}, [])
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "meta.json", "analyses"}


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "tb", "replay"])
def test_what_is_no_runs_is_not_taken_for_a_runs(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(RunError, match=f"{name} is there and no run is"):
        Run.create(tmp_path, "dqn", {}, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_checkpoints_come_back_and_old_ones_go(run):
    for step in (100, 20, 300):
        save(run, step, step, {"optimizer": {"m": torch.ones(1)}, "rng": {"big": 2**120}, "n": [1, "a", None]})
    assert run.checkpoint_steps() == [100, 300]
    assert run.load_weights()["w"].tolist() == [300, 300]
    assert run.load_weights(100)["w"].tolist() == [100, 100]
    assert run.load_state()["rng"] == {"big": 2**120}
    with pytest.raises(RunError, match=r"unknown checkpoint step of .* 20; known: 100, 300"):
        run.load_weights(20)


def test_kept_weights_can_be_opened_before_the_first_whole_checkpoint(run):
    run.keep_weights(0, {"w": torch.ones(2)})
    assert run.load_weights(0)["w"].tolist() == [1, 1]
    with pytest.raises(RunError, match="has no checkpoint; train it further"):
        run.load_weights()


def test_half_precision_weights_come_back_as_float32(run):
    run.save_checkpoint(1, {"w": torch.ones(2).half()})
    assert run.load_weights()["w"].dtype == torch.float32


def test_half_precision_spares_weights_that_it_cannot_hold(run, tmp_path):
    weights = {"large": torch.tensor([1e5, 1.0]), "small": torch.tensor([0.5])}
    run.save_checkpoint(1, weights)
    run.keep_weights(2, weights)
    shared = run.share(tmp_path / "shared", half=True)
    for kept in (shared.load_weights(), run.load_weights(2)):
        assert kept["large"].tolist() == [1e5, 1.0]
    with safe_open(shared.checkpoint() / "model.safetensors", "pt") as file:
        assert file.get_tensor("small").dtype == torch.float16


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove"])
def test_a_damaged_checkpoint_is_refused(run, damage):
    file = save(run, 1) / "model.safetensors"
    data = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "truncate" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RunError, match=r"model.safetensors (does not match the sha256|is missing)"):
        run.load_weights()


def test_loading_a_checkpoint_runs_no_code_from_it(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "pwned"), "w")

    path = save(run, 1, state={"n": 1})
    torch.save({"n": Evil()}, path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    from rl_interp.core.files import sha256

    manifest["files"]["state.pt"] = sha256(path / "state.pt")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"was not read: it holds io\.open, which is neither a tensor nor"):
        run.load_state()
    assert not (tmp_path / "pwned").exists()


def test_a_shared_run_holds_the_weights_but_not_the_training_state(run, tmp_path):
    run.log(5, {"loss": 1.0})
    run.close()
    save(run, 5, 2.0, {"optimizer": 1})
    shared = run.share(tmp_path / "shared")
    assert shared.load_weights()["w"].tolist() == [2, 2]
    assert (shared.config, shared.meta, shared.metrics()) == (run.config, run.meta, run.metrics())
    with pytest.raises(RunError, match="holds weights only, so training can't resume"):
        shared.load_state()


def test_weights_of_another_architecture_are_refused_by_name():
    with pytest.raises(RunError, match=r"'weight' is \(2, 4\) there and \(2, 3\) in Linear"):
        load_into(nn.Linear(3, 2), {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "runs/x")


def test_metrics_after_the_checkpoint_are_dropped_on_resume(run):
    for step in (1, 2, 3):
        run.log(step, {"loss": step / 2})
    run.close()
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # a crash in mid-line
    run.rewind(2)
    assert [line["step"] for line in run.metrics()] == [1, 2]


def tensorboard(run):
    """What TensorBoard shows of the run: name to its points."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run.path / "tb"))
    shown.Reload()
    return {name: [(p.step, p.value) for p in shown.Scalars(name)] for name in shown.Tags()["scalars"]}


@pytest.mark.parametrize("step", [None, 0, 2])
def test_a_run_gone_on_with_shows_no_point_twice(run, step):
    for at in (1, 2, 3, 4):
        run.log(at, {"loss": at / 2})
    again = Run.open(run.path)  # the first was killed: it was not closed
    again.rewind(step)
    for at in range((step or 0) + 1, 6, 2):
        again.log(at, {"loss": -1.0})
    again.close()
    again.log(7, {"loss": -2.0})
    again.close()
    points = [(line["step"], line["loss"]) for line in again.metrics()]
    assert [at for at, _ in points] == [*range(1, (step or 0) + 1), *range((step or 0) + 1, 6, 2), 7]
    assert tensorboard(again) == {"loss": points}


def test_points_are_on_the_disk_when_they_are_logged(run):
    run.log(1, {"loss": 0.5, "note": "no number"})
    assert tensorboard(run) == {"loss": [(1, 0.5)]}


def test_a_line_that_a_crash_cut_off_does_not_spoil_the_next(run):
    run.log(1, {"loss": 1.0})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo' + "s" * 10_000)
    run.log(3, {"loss": 3.0})
    assert [line["step"] for line in run.metrics()] == [1, 3]


def test_a_run_with_nothing_to_drop_is_not_written(run):
    run.log(1, {"loss": 1.0})
    before = (run.path / "metrics.jsonl").stat().st_ino
    run.rewind(1)
    assert (run.path / "metrics.jsonl").stat().st_ino == before


def test_a_shared_run_takes_the_place_of_another_but_of_nothing_else(run, tmp_path):
    save(run, 5, 2.0, {"optimizer": 1})
    target = tmp_path / "shared"
    target.mkdir()
    for _ in range(2):  # an empty directory, then a shared run
        run.share(target)
    for name in ("notes.txt", "checkpoints/5/state.pt", "analyses/table.md"):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text("mine")
        with pytest.raises(RunError, match=f"holds {name}, which is no part of what is written there"):
            run.share(target)
        assert (target / name).read_text() == "mine"
        (target / name).unlink()
    with pytest.raises(RunError, match=r"state.pt, which is no part"):
        run.share(run.path)
    assert run.load_state() == {"optimizer": 1}


def test_a_run_that_can_only_be_read_is_shared(run):
    save(run, 5)
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        shutil.copytree(run.path, Path(place) / "run")
        for path in (Path(place) / "run").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        as_nobody(lambda: Run(Path(place) / "run").share(Path(place) / "shared"))
        assert Run(Path(place) / "shared").checkpoint_steps() == [5]


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_directory_replaces_an_older_one_whole(tmp_path):
    for content in ("a", "b"):
        with atomic_path(tmp_path / "d", ours=("a", "b")) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["b"]


def test_a_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match="the disk is full: .* could not be written"), atomic_path(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_tied_weights_and_parts_of_one_tensor_are_saved_and_loaded(run):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
            self.last.weight = self.first.weight
            whole = torch.randn(4)
            self.register_buffer("whole", whole)
            self.register_buffer("part", whole[1:3])

    made, again = Tied(), Tied()
    run.save_checkpoint(1, made.state_dict())
    load_into(again, run.load_weights(), run.path)
    assert all(torch.equal(each, again.state_dict()[name]) for name, each in made.state_dict().items())
    assert again.last.weight is again.first.weight


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"title": "my photos"}', "has nothing for 'kind'"),
        ("not JSON", "is no JSON"),
        ('{"kind": "impala", "seed": 0, "versions": {}}', "is of a run of kind 'impala', not 'dqn'"),
    ],
)
def test_only_a_run_of_the_same_kind_is_begun_anew(tmp_path, content, said):
    files = {"meta.json": content, "metrics.jsonl": "{}\n", "tb/events": "mine", "replay/a": "mine"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match=rf"meta.json {said}.* give another name, or move it away"):
        Run.create(tmp_path, "dqn", {}, seed=0)
    assert {name: (tmp_path / name).read_text() for name in files} == files
    assert not (tmp_path / "config.yaml").exists()


def test_a_run_that_logged_nothing_up_to_its_checkpoint_is_resumed_again_and_again(run):
    run.log(100, {"loss": 1.0})
    for _ in range(2):
        run.rewind(5)
        assert run.metrics() == []
    (run.path / "metrics.jsonl").touch()  # opened by another process, with its first line to come
    assert run.metrics() == []


@pytest.mark.parametrize(
    ("config", "seed", "said"), [({"x": "y" * 70_000}, 0, "more than the 65536 that are read"), ({}, -1, "seed=-1")]
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, config, seed, said):
    with pytest.raises(UserError, match=said):
        Run.create(tmp_path / "new", "dqn", config, seed)
    assert list(tmp_path.iterdir()) == []
