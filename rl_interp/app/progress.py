"""Progress bars on stderr, so that stdout stays for results."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from rl_interp.core.progress import Progress, Update

console = Console(stderr=True, markup=False)
"""Without markup: what is printed names files, targets and runs, and these may look like it."""


def warn(sentence: str) -> None:
    """Say on stderr what does not stop the command."""
    say("warning:", "yellow", sentence)


def say(label: str, colour: str, sentence: str) -> None:
    """Print a sentence on stderr behind a coloured label."""
    console.print(Text(label, colour), Text(printable(sentence)), highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """With control characters and lone surrogates written out: a name out of a file must not steer the terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def progress_bar(title: str, total: float, unit: str) -> Iterator[Update]:
    """A bar with rate and time left; where stderr is no terminal, a line now and then instead."""
    if not console.is_terminal:
        yield _Lines(title, total, unit)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}", markup=False),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with rich.progress.Progress(*columns, console=console) as progress:
        task = progress.add_task(printable(title), total=total, unit=unit, note="")

        def update(done: float, note: str = "") -> None:
            progress.update(task, completed=done)
            if note:
                progress.update(task, note=note)

        yield update


class _Lines:
    """Ten lines a task, for logs."""

    def __init__(self, title: str, total: float, unit: str):
        self.title, self.total, self.unit, self.tenth = printable(title), total, unit, -1

    def __call__(self, done: float, note: str = "") -> None:
        tenth = int(10 * done / self.total) if self.total else 10
        if tenth > self.tenth:
            self.tenth = tenth
            console.print(f"{self.title}: {done:,.0f}/{self.total:,.0f} {self.unit}  {note}", highlight=False)


class Terminal(Progress):
    """Bars and warnings on stderr."""

    def bar(self, title: str, total: float, unit: str) -> AbstractContextManager[Update]:
        return progress_bar(title, total, unit)

    def note(self, sentence: str) -> None:
        console.print(Text(printable(sentence)), highlight=False, soft_wrap=True)

    def warn(self, sentence: str) -> None:
        warn(sentence)


TERMINAL = Terminal()


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        TERMINAL.note(record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            TERMINAL.note("".join(traceback.format_exception(record.exc_info[1])))


def show_log() -> None:
    """Print what the suite logs on stderr, from now on."""
    logger = logging.getLogger("rl_interp")
    if not any(isinstance(each, _Log) for each in logger.handlers):
        logger.addHandler(_Log())
    logger.setLevel(logging.INFO)
