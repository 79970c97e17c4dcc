"""Atomic writes: a reader sees the old file or the whole new one, never a half.

What is being written lies in a temporary directory beside its target, `.<name>.<8 letters>`, on which its writer holds
a lock for as long as it lives. So a temporary that nobody holds is a dead command's, whenever somebody looks.
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
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rl_interp.core.errors import RunError

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
_REPLACED = "replaced"
"""In a temporary: what a directory that could not be exchanged at once was called meanwhile."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(target: Path | str, ours: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary path beside `target`: write it, and on leaving the block it replaces `target`.

    Serves files and whole directories. There is no moment at which a kill would leave `target` absent. On any
    exception the temporary is removed and `target` is untouched.

    Args:
        ours: for a directory, patterns of the files that one of its kind holds, such as `shard-*.npy`. It replaces
            one with these and nothing else, or an empty one.

    Raises:
        RunError: `target` is a directory that holds other things, or the disk is full.
    """
    target = Path(target)
    require_ours(target, ours)
    with full_disk_said(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(target) as holder:
            temporary = holder / target.name
            yield temporary
            sync(temporary)
            require_ours(target, ours)
            if temporary.is_dir() and target.is_dir():
                _exchange(temporary, target, holder / _REPLACED)
            else:
                os.replace(temporary, target)
            _sync_entry(target.parent)


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
    target = Path(target)
    if target.exists() or not target.parent.is_dir():
        return
    for holder in _temporaries(target):
        if (holder / _REPLACED).is_dir() and _is_dead(holder):
            whole = holder / target.name  # it was whole and synced before the old one was moved away
            os.replace(whole if whole.is_dir() else holder / _REPLACED, target)
            shutil.rmtree(holder, ignore_errors=True)
            return


def remove_leftovers(target: Path) -> None:
    """Remove what dead commands left of their writing of `target`, and of anything in it."""
    recover(target)
    inside = [Path(at) / name for at, folders, _ in os.walk(target) for name in folders]
    for holder in [*_temporaries(target), *inside]:
        named = _TEMPORARY.fullmatch(holder.name)
        if named and _is_dead(holder):
            recover(holder.parent / named[1])
            shutil.rmtree(holder, ignore_errors=True)


def remove(directory: Path) -> None:
    """Remove a directory at once: a kill leaves it whole, or only what `remove_leftovers` removes."""
    with _temporary(directory) as holder:
        os.replace(directory, holder / directory.name)


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
    """Turn what writing to a full disk, or over a quota, raises into a `RunError` that names `path`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RunError) or not _is_full(error):
            raise
        raise RunError(
            f"the disk is full: {path} could not be written ({_free(Path(path))} MiB free, if there is no quota); free "
            "some space and run the same command again, it resumes from the last checkpoint."
        ) from error


def sync(path: Path) -> None:
    """Have what was written to a file, or to all of a directory, reach the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


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
    """A directory beside `target`, held while the block lasts and removed after it."""
    while True:
        holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        descriptor = os.open(holder, os.O_RDONLY)
        if _hold(descriptor) is not False and holder.is_dir():
            break
        os.close(descriptor)  # somebody took it for a dead command's in the moment before it was held
    try:
        yield holder
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        os.close(descriptor)


def _temporaries(target: Path) -> list[Path]:
    """Those of `target`, dead or alive."""
    if not target.parent.is_dir():
        return []
    names = sorted(os.listdir(target.parent))
    return [target.parent / each for each in names if (m := _TEMPORARY.fullmatch(each)) and m[1] == target.name]


def _hold(descriptor: int) -> bool | None:
    """Whether this process holds the file from now on; None where the file system has no locks (some of NFS)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_dead(holder: Path) -> bool:
    """Whether the command that made a temporary has ended. Where nobody can say, it counts as alive."""
    try:
        descriptor = os.open(holder, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _hold(descriptor) is True
    finally:
        os.close(descriptor)


def _exchange(temporary: Path, target: Path, aside: Path) -> None:
    """Put one directory in the place of another: in one step where the system can, else in two, between which
    `recover` finds the way."""
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
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4_096)
        file.seek(start)
        newline = (file.read(end - start) or b"").rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _is_full(error: BaseException) -> bool:
    """Whether a write failed for want of space. PyTorch raises an error of its own on the way out from the system's,
    and Safetensors says it in words, with the system's number."""
    if error.__context__ is not None and _is_full(error.__context__):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    code = re.search(r"(?:os error |Os \{ code: )(\d+)", str(error))
    return code is not None and int(code[1]) in _FULL


def _free(path: Path) -> int:
    there = next((each for each in path.absolute().parents if each.exists()), Path("/"))
    return shutil.disk_usage(there).free // 2**20


def _sync_entry(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
