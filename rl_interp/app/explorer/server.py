"""The server: the page, its assets, and the answers of `answers.py`, behind the guard."""

import json
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from rl_interp.app.explorer.answers import ANSWERS
from rl_interp.app.explorer.asked import Asked
from rl_interp.app.explorer.guard import Guard, said
from rl_interp.app.explorer.library import Library
from rl_interp.app.explorer.work import Workers

_STATIC = Path(__file__).with_name("static")
_SHARED = Path(__file__).parents[1] / "pages"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def make_app(library: Library, host: str = "127.0.0.1", token: str | None = None) -> Guard:
    """The explorer as an ASGI application, as `Guard` takes `host` and `token`."""
    assets = {path.name: path for path in sorted(_STATIC.iterdir()) if path.suffix in _KINDS}
    assets |= {name: _SHARED / name for name in ("style.css", "dom.js")}
    workers = Workers()

    async def page(request: Request) -> Response:
        return FileResponse(assets["index.html"], media_type="text/html")

    async def asset(request: Request) -> Response:
        path = assets.get(request.path_params["name"])
        if path is None:
            return said(404, "there is no such file.")
        return FileResponse(path, media_type=_KINDS[path.suffix])

    async def answer(request: Request) -> Response:
        make = ANSWERS.get(request.path_params["name"])
        if make is None:
            return said(404, "there is no such answer.")
        body = _read(await request.body())
        if not isinstance(body, dict):
            return said(400, "a request is a JSON object.")
        return await workers.answer(request, lambda wanted: make(Asked(library, body, wanted)))

    routes = [
        Route("/", page),
        Route("/static/{name}", asset),
        Route("/api/{name}", answer, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), host, token)


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
