"""Processes for tests: forked, so that they take milliseconds, and killed as hard as can be."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress


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


def killed(function: Callable[[], None]) -> None:
    """Run `function`, which calls `die`, in a child."""
    _, status = os.waitpid(forked(function), 0)
    assert os.WIFSIGNALED(status), "it was to die, and ended"


def end(child: int) -> None:
    """Kill a child, if it is there still."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
