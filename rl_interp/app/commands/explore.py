"""`rl-interp explore`."""

import importlib.util
import os
import secrets
import socket
import sys
import threading
import webbrowser
from errno import EADDRINUSE
from typing import Annotated, Any

import tyro

from rl_interp.app.commands.flags import CountOrZero, several
from rl_interp.app.progress import say
from rl_interp.core.errors import UserError

Runs = Annotated[tuple[str, ...], tyro.conf.Positional, several("RUN")]
Host = Annotated[str, tyro.conf.arg(metavar="HOST")]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def explore(
    runs: Runs = (),
    sae: Annotated[tuple[str, ...], several("SAE_RUN")] = (),
    host: Host = "127.0.0.1",
    port: CountOrZero = 8642,
    browser: bool = True,
) -> dict[str, Any]:
    """Watch agents in the browser, look inside them, change them, and watch what changes.

    The page is served on this machine, to this machine alone, until Ctrl-C.

    Args:
        runs: Runs, by name or path, or folders of runs; by default all runs that are found.
        sae: Runs of dictionaries, beside those in the same folders.
        host: Address to listen on; another than 127.0.0.1 lets other machines in, by a link with a token.
        port: Port to listen on; 0 for any that is free.
        browser: Open the page in the browser, if there is one.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package} is not installed, which the explorer needs: pip install 'rl-interp[explore]'.")
    from rl_interp.app.explorer.library import Library
    from rl_interp.app.explorer.server import make_app

    library = Library(runs, sae)
    found = len(library.paths())
    token = None if host in LOOPBACK else secrets.token_urlsafe(16)
    with _listening(host, port) as listener:
        at = f"[{host}]" if ":" in host else host
        link = f"http://{at}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
        say("open:", "cyan", f"{link}  (Ctrl-C ends it)")
        if browser:
            _show(link)
        _serve(make_app(library, host, token), listener)
    return {"link": link, "runs": found}


def _listening(host: str, port: int) -> socket.socket:
    if port > 65_535:
        raise UserError(f"port {port} given; it is a number up to 65535, or 0 for any that is free.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror:
        raise UserError(
            f"host {host!r} given, which is no address of this machine; leave it out for 127.0.0.1."
        ) from None
    except OSError as error:
        if error.errno != EADDRINUSE:
            raise UserError(f"{host} port {port} can't be listened on ({error.strerror}); give another.") from None
        raise UserError(f"port {port} is in use; give another, or --port 0 for any that is free.") from None


def _show(link: str) -> None:
    """Open the link, unless only a browser in the terminal could."""
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen:
        threading.Timer(0.5, webbrowser.open, [link]).start()  # False where there is none; the link is printed


def _serve(app: Any, listener: socket.socket) -> None:
    import uvicorn

    settings = uvicorn.Config(
        app, log_level="warning", server_header=False, ws="none", limit_concurrency=128, timeout_graceful_shutdown=2
    )
    uvicorn.Server(settings).run(sockets=[listener])
