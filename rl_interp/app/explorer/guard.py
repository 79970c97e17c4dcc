"""Who may ask the explorer's server, for what, and how much.

A page of another origin must neither ask nor read, also by a name that it has pointed at this machine (DNS rebinding):
so every request must name this server as its host and, where it names an origin, as its origin. Beyond loopback a token
is wanted besides. Nothing but what was written here runs in the page.
"""

import re
import secrets
import time
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 200_000
"""Bytes of a request."""
MAX_PAGES, FORGOTTEN_AFTER = 16, 60.0
"""Pages that may ask, and seconds after which one that has not asked, and did not say that it was left, makes room for
another. It has its place again when it asks, if there is one."""
LEFT = "/api/left"
"""What a page that is left asks for."""
PAGE = "x-page"
"""The header in which a page says which it is. No page of another origin can send it unasked."""
_PAGE = re.compile("[a-z0-9]{8,32}")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets through what may be asked, and has every answer carry `HEADERS`."""

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", token: str | None = None):
        """
        Args:
            host: that the server was told to listen on.
            token: wanted of whoever asks; None: nothing is wanted.
        """
        self.app, self.token = app, token
        self._hosts, self._anywhere = {"127.0.0.1", "localhost", "::1", host.lower()}, token is not None
        self._cookie = "rl_interp_" + secrets.token_hex(4)  # cookies are shared by all ports of a host
        self._seen: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # there is none
        elif refusal := self._refusal(scope):
            await refusal(scope, receive, _carrying(send))
        else:
            await self.app(scope, receive, _carrying(send))

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered in place of what was asked for; None where it may be."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_here(host):
            return said(403, f"this server is not {host[:100]!r}; open the link that rl-interp explore printed.")
        if origin is not None and origin != f"http://{host}":
            return said(403, "a page of another origin asked; only the explorer's own page may.")
        if self.token is not None and (refusal := self._without_token(scope, headers, self.token)):
            return refusal
        if not scope["path"].startswith("/api/"):
            return None
        if scope["method"] != "POST" or headers.get("content-type") != "application/json":
            return said(405, "this is asked by POST, with JSON.")
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return said(413, f"a request of {length[:20] or 'unknown many'} bytes came; at most {MAX_BODY} are read.")
        return self._full(headers.get(PAGE, ""), scope["path"])

    def _is_here(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "") if _HOST.fullmatch(host) else ""
        return name in self._hosts or (self._anywhere and _is_address(name))

    def _without_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and secrets.compare_digest(given.encode(), token.encode()):
            answer = RedirectResponse("/", 303)  # the address is then free of it, and keeps what follows the #
            answer.set_cookie(self._cookie, token, httponly=True, samesite="lax")
            return answer
        kept = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if secrets.compare_digest(kept.encode(), token.encode()):
            return None
        return said(
            401, "open the link that rl-interp explore printed: it holds a token, without which nothing is shown."
        )

    def _full(self, page: str, path: str) -> Response | None:
        """Note that a page is there, or that it is left; a sentence where there are too many."""
        if not _PAGE.fullmatch(page):
            return said(403, "a request came that is not of the explorer's page.")
        now = time.monotonic()
        self._seen = {each: at for each, at in self._seen.items() if now - at < FORGOTTEN_AFTER}
        if path == LEFT:
            self._seen.pop(page, None)
            return Response(status_code=204)
        if page not in self._seen and len(self._seen) >= MAX_PAGES:
            return said(503, f"{MAX_PAGES} pages are open; close one, and open this again in a minute.")
        self._seen[page] = now
        return None


def said(status: int, sentence: str) -> JSONResponse:
    """An answer that is a sentence."""
    return JSONResponse({"error": sentence}, status)


_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?", re.ASCII)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _carrying(send: Send) -> Send:
    async def carrying(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return carrying
