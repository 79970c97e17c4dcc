"""Answers that take long: each in a thread, given up when the page that asked no longer waits for it."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import anyio
from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.responses import Response

from rl_interp.app.explorer.guard import PAGE, said
from rl_interp.core.errors import UserError

AT_ONCE = 3
"""Answers that are computed for a page at once; further ones wait."""
_KEPT = 64
_LOG = logging.getLogger(__name__)


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


class Wanted:
    """Whether somebody still waits: what takes long calls it now and then."""

    def __init__(self) -> None:
        self._no = threading.Event()

    def __call__(self) -> None:
        """Raise `GivenUp` where nobody does."""
        if self._no.is_set():
            raise GivenUp

    def no_more(self) -> None:
        self._no.set()


class Workers:
    """Threads for each page, so that one page's slow answers never keep another's waiting."""

    def __init__(self) -> None:
        self._of_page: dict[str, CapacityLimiter] = {}

    async def answer(self, request: Request, compute: Callable[[Wanted], Response]) -> Response:
        """What `compute` gives, or the sentence of its error. What the page was told never ends the server."""
        wanted = Wanted()
        try:
            return await self._unless_gone(request, wanted, lambda: compute(wanted))
        except GivenUp:
            return said(499, "given up, as nobody waits for it.")
        except (UserError, OSError) as error:
            return said(400, str(error))
        except Exception as error:
            _LOG.exception("an answer failed")
            kind = type(error).__name__
            return said(500, f"this failed ({kind}: {str(error)[:300]}); the run is unharmed, the terminal says where.")

    async def _unless_gone(self, request: Request, wanted: Wanted, compute: Callable[[], Response]) -> Response:
        found: list[Any] = []

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            wanted.no_more()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                found.append(await anyio.to_thread.run_sync(compute, limiter=self._limiter(request.headers[PAGE])))
            except Exception as error:  # out of the group it would come wrapped
                found.append(error)
            group.cancel_scope.cancel()
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def _limiter(self, page: str) -> CapacityLimiter:
        limiter = self._of_page.pop(page, None) or CapacityLimiter(AT_ONCE)
        self._of_page[page] = limiter
        for old in list(self._of_page)[:-_KEPT]:
            del self._of_page[old]
        return limiter
