"""Atomic writes: a reader sees the old file or the whole new one, never a half."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl_interp.core.errors import RunError


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """A temporary path beside `target`: write it, and on leaving the block it replaces `target`.

    Serves files and whole directories. On any exception the temporary is removed and `target` is
    untouched; a full disk becomes a `RunError` that says so.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    temporary = holder / target.name
    try:
        yield temporary
        _sync(temporary)
        if temporary.is_dir() and target.is_dir():
            os.rename(target, holder / "replaced")
        os.replace(temporary, target)
        _sync_entry(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(target.parent).free // 2**20
            raise RunError(
                f"the disk is full: {target} could not be written ({free} MiB free); free some space and run the "
                "same command again, it resumes from the last checkpoint."
            ) from error
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


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


def _sync(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


def _sync_entry(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
