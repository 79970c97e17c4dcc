"""Atomic writes: a reader sees the old file or the whole new one, never a half.

What is being written lies in a temporary directory beside its target, `.<name>.<8 letters>.rl-interp-tmp`, and its
writer holds the lock of a file in that for as long as it lives. So a temporary whose lock is free is a dead command's,
whenever somebody looks.
"""

import ctypes
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rl_interp.core.errors import RunError, UserError

_MARK = ".rl-interp-tmp"
_TEMPORARY = re.compile(rf"\.(.+)\.[a-z0-9_]{{8}}{re.escape(_MARK)}")
_LOCK, _REPLACED = ".lock", ".replaced"
"""In a temporary: what its writer locks, and the old directory, where it could not be exchanged for the new at once."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_path(target: Path | str, ours: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary path beside `target`: write it, and on leaving the block it replaces `target`.

    Serves files and whole directories. There is no moment at which a kill would leave `target` absent; where the
    system can't exchange directories there is one, after which `recover` gives it back. On any exception the temporary
    is removed and `target` is untouched. A link stays one: what it leads to is replaced.

    Args:
        ours: for a directory, patterns of the files that one of its kind holds, such as `shard-*.npy`. It replaces
            one with these and nothing else, or an empty one.

    Raises:
        RunError: `target` is a directory that holds other things, or the disk is full.
    """
    given, target = Path(target), Path(target).resolve()
    require_ours(given, ours)
    with full_disk_said(given):
        target.parent.mkdir(parents=True, exist_ok=True)
        for dead in _temporaries(target.parent, target.name):
            _finish(dead)
        with _temporary(target) as holder:
            temporary = holder / target.name
            yield temporary
            sync(temporary)
            require_ours(given, ours)
            if temporary.is_dir() and target.is_dir():
                _exchange(temporary, target, holder / _REPLACED)
            else:
                os.replace(temporary, target)
            _sync_entry(target.parent)


def require_writable(path: Path | str) -> None:
    """Raise a `UserError` where a file can't be written to `path`: better before what it will hold is made."""
    path = Path(path)
    folder = next(each for each in path.absolute().parents if each.exists())
    why = "it is a folder" if path.is_dir() else None
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise UserError(f"{path} can't be written ({why}); give a file in a folder that you may write to.")


def require_ours(target: Path, ours: Sequence[str]) -> None:
    """Raise `RunError` where `target` is a directory with other files than those that the patterns `ours` describe."""
    if not target.is_dir():
        if ours and target.exists():
            raise RunError(f"{target} is a file, and a directory is to be written there; give another name.")
        return
    foreign = next((path for path in _entries(target) if not _fits(path, ours)), None)
    if foreign is not None:
        raise RunError(
            f"{target} holds {foreign.as_posix()}, which is no part of what is written there and would be lost; "
            "give another directory, or move it away."
        )


def recover(target: Path | str) -> None:
    """Finish what a kill left undone where directories can't be exchanged at once: give `target` its name."""
    target = Path(target).resolve()
    if not target.exists():
        for holder in _temporaries(target.parent, target.name):
            _finish(holder)


def remove_leftovers(target: Path) -> None:
    """Remove what killed commands left unfinished beside `target`, in it, and in the directories in it."""
    recover(target)
    inside = [path for path in target.iterdir() if path.is_dir()] if target.is_dir() else []
    for directory in (target.parent, target, *inside):
        for holder in _temporaries(directory):
            _finish(holder)


def remove(path: Path) -> None:
    """Remove a file or a directory at once: a kill leaves it whole, or only what `remove_leftovers` removes."""
    with _temporary(path) as holder:
        os.replace(path, holder / path.name)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line, or nothing; what a crash left of an unfinished one is cut off first.

    Raises:
        RunError: the disk is full.
    """
    with full_disk_said(path), open(path, "ab+", buffering=0) as file:
        end = _end_of_lines(file)
        if end != file.seek(0, os.SEEK_END):
            file.truncate(end)
        write_whole(file, f"{line}\n".encode())


def write_whole(file: io.FileIO, data: bytes) -> None:
    """Write all of `data` at the end of an unbuffered file, or nothing."""
    end, left = file.seek(0, os.SEEK_END), memoryview(data)
    try:
        while left:
            left = left[file.write(left) or 0 :]
    except OSError:
        file.truncate(end)
        raise


@contextmanager
def full_disk_said(path: Path | str) -> Iterator[None]:
    """Turn what writing to a full disk, over a quota or over the largest size of a file raises into a `RunError` that
    names `path`."""
    try:
        yield
    except Exception as error:
        code = None if isinstance(error, RunError) else _refusal(error)
        if code in _FULL:
            raise RunError(
                f"the disk is full: {path} could not be written ({free_mib(Path(path))} MiB free, if there is no "
                "quota); free some space and run the same command again."
            ) from error
        if code == errno.EFBIG:
            raise RunError(
                f"{path} could not be written: it would be larger than a file may be here; raise the limit "
                "(`ulimit -f`, or that of the file system) and run the same command again."
            ) from error
        raise


def sync(path: Path) -> None:
    """Flush a file, or everything in a directory, to the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())


def lock(file: Path) -> tuple[int, bool | None]:
    """Take a lock without waiting for it, on a file that is made for it if need be.

    Returns:
        Descriptor of the file, whose closing ends the lock, and whether this process has it: False where another has,
        None where the file system has no locks (some of NFS).
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks no file that is open for reading only
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return descriptor, False
        except OSError:
            return descriptor, None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor, True
        os.close(descriptor)  # who had it has just ended, and took the file with it


def sha256(path: Path | str) -> str:
    """Hex digest of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(directory: Path, digests: dict[str, str]) -> None:
    """Raise `RunError` unless each named file of `directory` is there with its recorded sha256."""
    for name, digest in digests.items():
        path = directory / name
        if not path.is_file():
            raise RunError(f"{path} is missing, though {directory.name}/manifest.json lists it; restore the file.")
        if sha256(path) != digest:
            raise RunError(
                f"{path} does not match the sha256 in its manifest: the file is truncated or was altered; "
                "restore it, or use another checkpoint."
            )


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A directory beside `target`, its lock held while the block lasts, and removed after it."""
    while True:
        holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_MARK, dir=target.parent))
        with suppress(FileNotFoundError):  # somebody took it for a dead command's before it was locked, and removed it
            descriptor, held = lock(holder / _LOCK)
            if held is not False:
                break
            os.close(descriptor)  # or is about to
    try:
        yield holder
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        os.close(descriptor)


def _temporaries(directory: Path, name: str | None = None) -> list[Path]:
    """Those in a directory, dead or alive; of the target `name`, or of all."""
    found: list[Path] = []
    with suppress(OSError):  # it is not there, or not to be looked into
        for each in sorted(os.listdir(directory)):
            match = _TEMPORARY.fullmatch(each)
            if match and name in (None, match[1]):
                found.append(directory / each)
    return found


def _finish(holder: Path) -> None:
    """Remove what a dead command left; a directory that it was replacing gets its name first. What a living command
    writes is left alone, and so is what may be one's, where there are no locks to tell."""
    match = _TEMPORARY.fullmatch(holder.name)
    assert match
    target, whole, replaced = holder.parent / match[1], holder / match[1], holder / _REPLACED
    try:
        descriptor, held = lock(holder / _LOCK)
    except OSError:  # it is gone, or somebody else's
        return
    try:
        nameless = held is not False and replaced.is_dir() and not target.exists()
        if nameless:
            os.replace(whole if whole.is_dir() else replaced, target)  # `whole` was so before the old one was moved
        if held or nameless:
            shutil.rmtree(holder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _exchange(temporary: Path, target: Path, aside: Path) -> None:
    """Replace one directory by another: in one step where the system can, else in two, which `recover` finishes after
    a kill between them."""
    if not _exchange_at_once(temporary, target):
        os.rename(target, aside)
        os.rename(temporary, target)


def _exchange_at_once(first: Path, second: Path) -> bool:
    """Linux's renameat2(2) with RENAME_EXCHANGE; False where the kernel or the file system does not have it."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def _entries(directory: Path) -> Iterator[Path]:
    """Relative paths of the files in it, of links, and of directories without any; not what a temporary holds."""
    for at, folders, names in os.walk(directory):
        inside = Path(at).relative_to(directory)
        if not folders and not names and at != str(directory):
            yield inside
        folders[:] = sorted(each for each in folders if not _TEMPORARY.fullmatch(each))
        yield from (inside / name for name in sorted(names))
        yield from (inside / name for name in folders if os.path.islink(os.path.join(at, name)))


def _fits(path: Path, patterns: Sequence[str]) -> bool:
    """Whether a relative path is as one of the patterns, part by part, or a directory on the way to one."""
    for pattern in patterns:
        wanted = pattern.split("/")
        if len(path.parts) <= len(wanted) and all(map(fnmatchcase, path.parts, wanted)):
            return True
    return False


def _end_of_lines(file: io.FileIO) -> int:
    """The position at which the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4_096)
        file.seek(start)
        newline = (file.read(end - start) or b"").rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _refusal(error: BaseException | None) -> int | None:
    """The system's number of a write that found no room, if it failed for that. PyTorch raises an error of its own on
    the way out from the system's, and Safetensors says it in words, with the number."""
    while error is not None:
        code = error.errno if isinstance(error, OSError) else None
        if code is None and (said := re.search(r"(?:os error |Os \{ code: )(\d+)", str(error))):
            code = int(said[1])
        if code in (*_FULL, errno.EFBIG):
            return code
        error = error.__context__
    return None


def free_mib(path: Path) -> int:
    """What is left of the disk that a path is, or will be, on."""
    there = next((each for each in path.absolute().parents if each.exists()), Path("/"))
    return shutil.disk_usage(there).free // 2**20


def _sync_entry(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
