"""TensorBoard's event files, written in the caller's thread.

`SummaryWriter` writes in a thread of its own, which meets a full disk where nobody can say so, and keeps two minutes of
points in memory, which a kill loses though the checkpoint after them is there.
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_interp.core.files import full_disk_said, write_whole


class EventFile:
    """A new event file in `directory`.

    Args:
        continues_after: points of later steps in older files no longer count; by default all do.

    Raises:
        RunError: the disk is full.
    """

    def __init__(self, directory: Path, continues_after: int | None = None):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads files in the order of their names, and two may be begun within a second.
        seconds, fraction = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds:010d}.{fraction:09d}.{socket.gethostname()}.{os.getpid()}"
        self.path = directory / name
        with full_disk_said(self.path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(self.path, "wb")
        self._records = RecordWriter(_Records(self._file))
        self._add(Event(file_version="brain.Event:2"))
        if continues_after is not None:
            self._add(Event(step=continues_after + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Points of one step, by name."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(step=step, summary=Summary(value=points)))

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        with full_disk_said(self.path):
            self._records.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()


class _Records:
    """What `RecordWriter` writes to: a record is there whole or not at all, since TensorBoard reads no further than to
    half of one."""

    def __init__(self, file: io.FileIO):
        self._file = file

    def write(self, record: bytes) -> None:
        write_whole(self._file, record)
