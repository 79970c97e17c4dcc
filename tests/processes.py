"""Processes for tests: forked, so that they take milliseconds, and killed as hard as can be."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


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


_BEGUN = """
import json, os, sys, traceback
import torch
for line in sys.stdin:
    code, place, *files = json.loads(line)
    child = os.fork()
    if not child:
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(place)
        status = 0
        try:
            exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Programs:
    """Runs programs as a new Python process would in which `import torch` is the first line, each in a fork of one that
    has done that, which is most of the time that such a process takes."""

    def __init__(self, directory: Path):
        self._files = [str(directory / name) for name in ("stdout", "stderr")]
        self._begun = subprocess.Popen(
            [sys.executable, "-c", _BEGUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def run(self, code: str, place: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        """In a working directory from which it imports, as `python -c` does."""
        print(json.dumps([code, str(place), *self._files]), file=self._begun.stdin, flush=True)
        status = int(self._begun.stdout.readline())
        out, err = (Path(file).read_text() for file in self._files)
        return subprocess.CompletedProcess(code, status, out, err)

    def end(self) -> None:
        self._begun.communicate()
