"""Processes for tests: forked, so that they take milliseconds, and killed as hard as can be."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def die() -> None:
    """Kill this process, which gets no chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


def forked(function: Callable[[], None]) -> int:
    """The id of a child in which `function` runs."""
    child = os.fork()
    if child:
        return child
    try:
        function()
    finally:
        os._exit(0)


def as_nobody(function: Callable[[], object]) -> None:
    """Run `function`, which is to return, in a child without root's rights."""

    def run() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
        function()
        die()  # what ends otherwise has failed

    killed(run)


def killed(function: Callable[[], None]) -> None:
    """Run `function`, which calls `die`, in a child."""
    _, status = os.waitpid(forked(function), 0)
    assert os.WIFSIGNALED(status), "it was to die, and ended"


def end(child: int) -> None:
    """Kill a child, if it is there still."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def watch_files(directory: Path | str, each: Callable[[int], None]) -> None:
    """Call `each` with 0, 1, 2 and so on just before this process makes, writes, moves or removes something under the
    directory, as far as Python sees it; for as long as the process lives."""
    here, count = os.path.abspath(directory), 0

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not event.startswith(("os.", "open", "shutil.", "tempfile.")) or not arguments:
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        at = arguments[0]
        if isinstance(at, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(at)).startswith(here):
            count += 1
            each(count - 1)

    sys.addaudithook(seen)


def killed_at(operation: int, directory: Path | str, function: Callable[[], object]) -> bool:
    """Run `function` in a child that is killed just before its `operation`-th thing to a file under the directory;
    returns whether it came to that."""

    def run() -> None:
        watch_files(directory, lambda count: die() if count == operation else None)
        function()

    _, status = os.waitpid(forked(run), 0)
    return os.WIFSIGNALED(status)
