"""What long work says on its way: how far it is, and what does not stop it.

Whatever takes long has a `progress` argument, silent by default. A face of the suite, such as the command line, passes
its own, so that nothing below knows of a terminal. What may happen anywhere, which is compiling alone, is logged by
Python's `logging` instead, below `rl_interp`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Update(Protocol):
    """`update(done, note)`: how much is done, and figures to show beside the bar."""

    def __call__(self, done: float, note: str = "") -> None: ...


class Notice(UserWarning):
    """What does not stop the work. Python shows each, however often it comes, unless a filter says otherwise."""


warnings.simplefilter("always", Notice, append=True)


class Progress:
    """Shows no bars, and hands warnings to Python's."""

    @contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator[Update]:
        """Show `title` and how many of `total` units are done, for the length of the block."""
        yield _ignore

    def note(self, sentence: str) -> None:
        """Say what is worth knowing, and nothing to worry about."""

    def warn(self, sentence: str) -> None:
        """Say what does not stop the work."""
        warnings.warn(sentence, Notice, stacklevel=2)


def _ignore(done: float, note: str = "") -> None:
    pass


SILENT = Progress()
