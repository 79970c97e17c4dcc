"""Stopping cleanly: Ctrl-C and SIGTERM ask a loop to finish its step and save."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The user stopped a long command; what was done is saved, as the message says. It is no `Exception`, so
    that handlers of errors let it through."""


class Stop:
    """Whether a stop was asked for: `if stop: save and return`."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a true `Stop`; a second SIGINT interrupts at once.

    A signal that is ignored stays so, as SIGINT is in what a shell runs in the background. Outside the main thread,
    where signals can't be handled, the `Stop` stays false.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal = number

    try:
        heeded = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
        previous = {number: signal.signal(number, handle) for number in heeded}
    except ValueError:
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
