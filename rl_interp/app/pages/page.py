"""Report data into one HTML file that makes no network request when opened, and runs no script but its own.

Runs are shared, so what comes from one may be hostile. Jinja escapes all that a template shows; the rest of the data
lies in the page as JSON, of which its script makes text nodes, never HTML; and a policy in the page has the browser run
and apply nothing but the script and the style that were written here.
"""

import base64
import hashlib
import math
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rl_interp.core.files import write_text

_HERE = Path(__file__).parent


def write_page(kind: Literal["report", "comparison", "circuit"], data: dict[str, Any], path: Path | str) -> Path:
    """Write `data`, as `build`, `compare` or `circuit_report` gives it, into its template; the file appears whole or
    not at all."""
    script, style = _source("dom.js") + _source("common.js") + _source(f"{kind}.js"), _source("style.css")
    page = _environment().get_template(f"{kind}.html")
    write_text(path, page.render(data=data, script=Markup(script), style=Markup(style), policy=_policy(script, style)))
    return Path(path)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "percent": _percent, "score": _score, "best_first": _best_first}
    # Beside this, `tojson` writes <, >, & and ' as \u003c and so on, so that nothing in it ends a script element.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """A content-security policy (W3C, CSP Level 3): this script, this style, pictures in the page, and nothing else."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def _score(value: float) -> str:
    """A return: small ones with decimals."""
    return f"{value:.3f}" if math.fabs(value) < 20 else f"{value:.0f}"


def _best_first(concepts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(concepts, key=lambda concept: -(concept["feature"] or 0.0))
