"""One writer at a time, for as long as it lives."""

import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import as_nobody, end, forked

from rl_interp.core.errors import RunError
from rl_interp.core.files import atomic_path
from rl_interp.core.locks import writing


def test_a_second_command_is_told_who_writes(tmp_path, holder):
    first = holder(tmp_path / "run")
    sentence = rf"run is being written by another command \(`.*`, process {first} on .*, since 2.*\); wait until"
    with pytest.raises(RunError, match=sentence), writing(tmp_path / "run"):
        pass
    with writing(tmp_path / "other"):
        pass


@pytest.mark.parametrize("children", [0, 1])
def test_a_lock_ends_with_its_owner_whatever_children_it_has(tmp_path, holder, children):
    end(holder(tmp_path / "run", lambda: [forked(lambda: time.sleep(2)) for _ in range(children)]))
    assert (tmp_path / ".run.lock").exists()
    with writing(tmp_path / "run"):
        assert json.loads((tmp_path / ".run.lock").read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_what_the_owner_left_is_removed_by_the_next(tmp_path, holder):
    kept = []

    def half():
        kept.append(atomic_path(tmp_path / "run" / "checkpoints" / "5"))
        kept[0].__enter__().write_text("half")

    end(holder(tmp_path / "run", half))
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    with writing(tmp_path / "run"):
        assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_another_thread_is_another_writer_and_a_nested_block_is_not(tmp_path):
    refused = []

    def other():
        try:
            with writing(tmp_path / "run"):
                pass
        except RunError as error:
            refused.append(str(error))

    with writing(tmp_path / "run"), writing(tmp_path / "x" / ".." / "run"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    other()
    assert len(refused) == 1


def test_a_run_that_is_removed_while_it_is_written_stays_locked(tmp_path, holder):
    (tmp_path / "run").mkdir()
    holder(tmp_path / "run")
    (tmp_path / "run").rmdir()
    with pytest.raises(RunError, match="is being written by another command"), writing(tmp_path / "run"):
        pass


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    sentence = r"run can't be written: .*; give a place that can"
    with pytest.raises(RunError, match=sentence), writing(tmp_path / "file" / "run"):
        pass


@pytest.fixture
def volume():
    """A directory that anybody can write to, in one that only its owner can."""
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / "run"
        path.mkdir()
        path.chmod(0o777)
        os.chmod(parent, 0o555)
        yield path
        os.chmod(parent, 0o755)


def test_a_volume_that_is_mounted_at_a_runs_path_is_locked_inside(volume):
    def hold():
        with writing(volume):
            assert (volume / ".run.lock").exists()
            with pytest.raises(RunError, match="is being written by another command"):
                in_a_thread(lambda: writing(volume).__enter__())
            with atomic_path(volume / "checkpoints" / "5") as temporary:
                temporary.mkdir()

    as_nobody(hold)
    assert [path.name for path in volume.iterdir()] == ["checkpoints"]


def in_a_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_where_there_are_no_locks_work_goes_on_without(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with writing(tmp_path / "run"):
        (tmp_path / "run").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
