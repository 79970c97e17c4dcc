"""`numba.njit` with a cache on disk, wherever this process may write one; what compiles is announced.

Numba keeps it beside the source or in the user's cache directory (or in `NUMBA_CACHE_DIR`), and refuses to compile at
all where it may write to none of them, as in a container whose user owns neither the package nor a home.
"""

import logging
import os
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core import event

_LOG = logging.getLogger(__name__)


@cache
def announce(what: str) -> None:
    """Log, the first time in this process, that something is being compiled, which may take a minute: whoever waits
    should know for what. The command line shows it."""
    _LOG.info("compiling %s for this machine; this happens once, and later runs start at once.", what)


class _Announced(event.Listener):
    """Told by Numba of what it does not find in its cache."""

    def on_start(self, event: event.Event) -> None:
        announce("loops")

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announced())


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: `njit(cache=True, **options)`; where Numba finds no place for its cache, in a directory of this
    user's under the system's temporary one, and where that fails too, without a cache."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # there is no place
            pass
        try:
            config.CACHE_DIR = str(_own_directory())  # pyright: ignore[reportAttributeAccessIssue]
            return njit(cache=True, **options)(function)
        except (OSError, RuntimeError):
            return njit(**options)(function)

    return decorate


def _own_directory() -> Path:
    """A directory that nobody else may write to: what is read back from a cache is executed."""
    path = Path(tempfile.gettempdir()) / f"rl-interp-numba-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError(f"{path} is not this user's alone")
    return path
