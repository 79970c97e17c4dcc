"""One writer at a time: whoever writes a run, a store or a study holds its lock, `.<name>.lock` beside it (in it, where
only the directory itself can be written to, such as a volume that is mounted there).

The lock is the kernel's (flock): it ends with the process that holds it, however that ends, so that there is nothing to
take over by guessing. The file says who holds it, for the sentence that a second command gets, and goes with it; one
that a killed command left is held by nobody.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rl_interp.core.errors import RunError
from rl_interp.core.files import full_disk_said, lock, remove_leftovers

_held: dict[Path, tuple[int, int]] = {}
"""Path to the thread that holds its lock in this process, and the descriptor."""


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Hold the lock of what is written at `path` (that may be yet to come) for the length of the block; what dead
    commands left there is removed first. Within a block that holds it already it changes nothing.

    Raises:
        RunError: another command, or another thread, holds it, or the place can't be written to.
    """
    path = Path(path).resolve()
    if _held.get(path, (None,))[0] == threading.get_ident():
        yield
        return
    file = lock_file(path)
    descriptor = _take(file, path)
    _held[path] = threading.get_ident(), descriptor
    try:
        _sign(descriptor)
        remove_leftovers(path)
        yield
    finally:
        if _held.pop(path, None):  # not so in a child that was forked within the block
            with suppress(OSError):
                file.unlink()  # before the lock ends: whoever opened the file meanwhile sees that it is gone
            os.close(descriptor)


def lock_file(path: Path) -> Path:
    """The file whose lock is that of `path`, which is resolved."""
    inside = path.is_dir() and not os.access(path.parent, os.W_OK)
    return (path if inside else path.parent) / f".{path.name}.lock"


def _take(file: Path, path: Path) -> int:
    try:
        with full_disk_said(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, held = lock(file)
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror} ({file}); give a place that can.") from error
    if held is False:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise RunError(
            f"{path} is being written by another command{holder}; wait until it has ended, or stop it, and run this "
            "one again."
        )
    return descriptor  # where the file system has no locks, it is better to go on without than not at all


def _sign(descriptor: int) -> None:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    signature = {"process": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}
    with suppress(OSError):  # on a full disk the lock holds as well without it
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(signature).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        by = json.loads(os.pread(descriptor, 65_536, 0))
        return f" (`{by['command']}`, process {by['process']} on {by['host']}, since {by['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _forked() -> None:
    """A child that was forked has the descriptors too, and would keep the locks beyond its parent's end."""
    for _, descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forked)
