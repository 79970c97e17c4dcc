"""Replacing files and directories: whole, at once, and only what is ours; what the dead leave is found and removed."""

import ctypes
import errno
import fcntl
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from processes import die, killed

from rl_interp.core import files
from rl_interp.core.errors import RunError
from rl_interp.core.events import EventFile
from rl_interp.core.files import append_line, atomic_path, recover, remove, remove_leftovers


def write(target, name, content="x", ours=("a", "b", "deep/*")):
    with atomic_path(target, ours) as temporary:
        temporary.mkdir()
        (temporary / name).write_text(content)


@pytest.fixture(params=["exchange", "two renames", "NFS", "no locks"])
def way(request, monkeypatch):
    """Where directories can be exchanged at once, and where they can't; as NFS locks files, and where nothing does."""
    flock = fcntl.flock

    def locked(descriptor, how):
        if request.param == "no locks":
            raise OSError(errno.ENOLCK, "No locks available")
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, how)

    if request.param != "exchange":
        monkeypatch.setattr(files, "_exchange_at_once", lambda *_: False)
    if request.param in ("NFS", "no locks"):
        monkeypatch.setattr(fcntl, "flock", locked)
    return request.param


@pytest.mark.usefixtures("way")
def test_a_directory_of_our_kind_or_an_empty_one_is_replaced(tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a", "b", "a"):
        write(tmp_path / "d", name)
        assert [path.name for path in (tmp_path / "d").iterdir()] == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("foreign", ["notes.txt", "deep/er/a", "a/b", "empty/", ".git/config", "link"])
def test_a_directory_that_holds_anything_else_is_refused_before_the_work(tmp_path, foreign):
    path = tmp_path / "d" / foreign
    if foreign == "link":
        path.parent.mkdir(parents=True)
        path.symlink_to(tmp_path)
    elif foreign.endswith("/"):
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    refused = pytest.raises(RunError, match=r"d holds .*, which is no part of what is written there and would be lost")
    with refused, atomic_path(tmp_path / "d", ("a", "deep/*")):
        pytest.fail("the work was begun")
    assert os.path.lexists(path)


def test_what_came_into_a_directory_during_the_work_is_not_lost_either(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(RunError, match=r"holds notes.txt"), atomic_path(tmp_path / "d", ("a",)) as temporary:
        temporary.mkdir()
        (tmp_path / "d" / "notes.txt").write_text("mine")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["notes.txt"]


def test_a_directory_never_takes_the_place_of_a_file_nor_a_file_that_of_a_directory(tmp_path):
    (tmp_path / "f").write_text("mine")
    with pytest.raises(RunError, match="f is a file, and a directory is to be written there"):
        write(tmp_path / "f", "a")
    (tmp_path / "d" / "e").mkdir(parents=True)
    with pytest.raises(RunError, match="d holds e, which"):
        files.write_text(tmp_path / "d", "x")


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_directory_whose_exchange_is_killed_is_there_at_the_next_look(tmp_path, way, moment):
    target = tmp_path / "store"
    write(target, "a", "old")
    rename, calls = os.rename, iter(range(10))

    def rename_or_die(*paths):
        if next(calls) == moment:
            die()
        rename(*paths)

    def exchanged():
        os.rename = rename_or_die
        write(target, "b", "new")
        die()

    killed(exchanged)
    if way == "exchange":
        assert target.is_dir()
    recover(target)
    (name,) = [path.name for path in target.iterdir()]
    assert (target / name).read_text() == {"a": "old", "b": "new"}[name]
    assert name == ("a" if way != "exchange" and moment == 0 else "b")
    remove_leftovers(target)
    if way != "no locks":  # there nobody can tell the dead from the living
        assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_there_is_no_moment_at_which_a_directory_that_is_exchanged_is_absent(tmp_path):
    """Watched from another process while it is replaced some thousand times."""
    target = tmp_path / "d"
    write(target, "a")
    watch = "import os, sys\nprint('ready', flush=True)\nwhile os.path.exists(sys.argv[1] + '/a'):\n    pass"
    with subprocess.Popen([sys.executable, "-c", watch, str(target)], stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            write(target, "a")
        still_watching = watcher.poll() is None
        watcher.kill()
    assert still_watching


def test_the_dead_are_cleaned_up_after_and_the_living_are_left_alone(tmp_path):
    def half(name):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_text("half")
            die()

    for name in ("run/config.yaml", "run/checkpoints/5", "run"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        killed(lambda name=name: half(name))
    (tmp_path / "run" / ".git").mkdir()
    (tmp_path / ".other.abcdefgh").mkdir()  # of something else
    assert len(list(tmp_path.rglob(".*.*"))) == 4
    (tmp_path / ".link").symlink_to("run")
    with atomic_path(tmp_path / "run" / "report.html") as alive:
        remove_leftovers(tmp_path / "run")
        remove_leftovers(tmp_path / "run")
        alive.write_text("whole")
    assert (tmp_path / "run" / "report.html").read_text() == "whole"
    assert {path.name for path in tmp_path.rglob(".*")} == {".git", ".other.abcdefgh", ".link"}


@pytest.mark.parametrize("name", [".backup.20241128", ".ipynb.settings", ".d.abcdefgh", ".lock"])
def test_hidden_directories_of_others_are_neither_removed_nor_replaced(tmp_path, name):
    for place in (tmp_path, tmp_path / "d", tmp_path / "d" / "deep"):
        (place / name).mkdir(parents=True)
        (place / name / "notes.txt").write_text("mine")
    remove_leftovers(tmp_path / "d")
    with pytest.raises(RunError, match="which is no part of what is written there"):
        write(tmp_path / "d", "a")
    assert len(list(tmp_path.rglob("notes.txt"))) == 3


@pytest.mark.parametrize("moment", ["it is locked", "it is written"])
def test_a_writer_whose_temporary_is_taken_for_a_dead_commands_writes_in_another(tmp_path, monkeypatch, moment):
    """In the moment before it holds the lock."""
    made, stolen = tempfile.mkdtemp, []

    def mkdtemp(**how):
        holder = Path(made(**how))
        if not stolen:
            stolen.append(holder)
            if moment == "it is locked":  # the other has seen it
                stolen.append(files.lock(holder / files._LOCK)[0])
            else:  # and has removed it
                remove_leftovers(tmp_path / "f")
                assert not holder.exists()
        return str(holder)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with atomic_path(tmp_path / "f") as temporary:
        assert temporary.parent not in stolen
        temporary.write_text("x")
    assert (tmp_path / "f").read_text() == "x"
    for descriptor in stolen[1:]:
        os.close(descriptor)


def test_a_leftover_is_locked_until_it_is_removed(tmp_path, monkeypatch):
    def half():
        with atomic_path(tmp_path / "f"):
            die()

    killed(half)
    rmtree, held = shutil.rmtree, []

    def removed(holder, **how):
        descriptor, mine = files.lock(Path(holder) / files._LOCK)
        held.append(not mine)
        os.close(descriptor)
        rmtree(holder, **how)

    monkeypatch.setattr(shutil, "rmtree", removed)
    remove_leftovers(tmp_path / "f")
    assert held == [True]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("way")
def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/d")
    for name in ("a", "b"):
        write(tmp_path / "link", name)
        assert (tmp_path / "link").is_symlink()
        assert [path.name for path in (tmp_path / "far" / "d").iterdir()] == [name]
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["d"]
    with pytest.raises(RunError, match="link holds b, which is no part"):
        write(tmp_path / "link", "a", ours=("a",))


def test_what_is_too_large_for_the_limit_is_not_called_a_full_disk(tmp_path):
    def write_much():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        with pytest.raises(RunError, match=r"x could not be written: it would be larger than a file may be here"):
            files.write_text(tmp_path / "x", "x" * 2_000)
        die()

    killed(write_much)


def test_a_removal_leaves_nothing_half(tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a", "b"):
        (tmp_path / "d" / name).write_text("x")

    def removed():
        shutil.rmtree = lambda *_, **__: die()
        remove(tmp_path / "d")

    killed(removed)
    assert not (tmp_path / "d").exists()
    remove_leftovers(tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_a_recovered_directory_is_not_brought_back_after_its_removal(tmp_path):
    (tmp_path / "d").mkdir()
    remove(tmp_path / "d")
    recover(tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_a_line_is_appended_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    append_line(path, "one")

    class Full(io.FileIO):
        def write(self, data):
            if len(data) < 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:2])

    monkeypatch.setattr("builtins.open", lambda path, mode, buffering: Full(path, "ab+"))
    with pytest.raises(RunError, match="the disk is full: .*lines could not be written"):
        append_line(path, "two, which does not fit")
    monkeypatch.undo()
    assert path.read_text() == "one\n"
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


@pytest.mark.parametrize("half", [5, 4_096, 10_000])
def test_what_a_crash_left_of_a_line_is_cut_off_before_the_next(tmp_path, half):
    path = tmp_path / "lines"
    append_line(path, "one")
    with open(path, "a") as file:
        file.write("x" * half)
    append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"


def test_a_point_of_tensorboard_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventFile(tmp_path)
    events.add(1, {"loss": 1.0})

    class Full(io.FileIO):
        def write(self, data):
            if len(data) < 30:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:10])

    whole, events._records._writer._file = events._file, Full(events.path, "ab")
    with pytest.raises(RunError, match=r"the disk is full: .*tfevents.* could not be written"):
        events.add(2, {"loss": 2.0})
    events._records._writer._file = whole
    events.add(3, {"loss": 3.0})
    events.close()
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    assert [(point.step, point.value) for point in shown.Scalars("loss")] == [(1, 1), (3, 3)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_this_machine_can_exchange_directories(tmp_path):
    """Otherwise the tests above would test the other way twice."""
    assert hasattr(ctypes.CDLL(None), "renameat2")
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    (first / "a").touch()
    assert files._exchange_at_once(first, second)
    assert [path.name for path in second.iterdir()] == ["a"]
    assert not Path(first / "a").exists()
