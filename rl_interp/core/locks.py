"""One writer at a time: whoever writes a run, a store or a study holds its lock, `.<name>.lock` beside it.

The lock is the kernel's (flock): it ends with the process that holds it, however that ends, so that there is nothing to
take over by guessing. The file says who holds it, for the sentence that a second command gets, and goes with it; one
that a killed command left is held by nobody.
"""

import fcntl
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
from rl_interp.core.files import full_disk_said, remove_leftovers

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
    file = path.parent / f".{path.name}.lock"
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


def _take(file: Path, path: Path) -> int:
    while True:
        try:
            with full_disk_said(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunError(f"{path} can't be written: {error.strerror} ({file}); give a place that can.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise RunError(
                f"{path} is being written by another command{holder}; wait until it has ended, or stop it, and run "
                "this one again."
            ) from None
        except OSError:  # the file system has no locks: better to go on without than not at all
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        os.close(descriptor)  # its holder had just ended, and took the file with it


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
