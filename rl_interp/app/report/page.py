"""Report data into one HTML file that makes no network request when opened."""

import json
from pathlib import Path
from typing import Any, Literal

from rl_interp.core.files import write_text

_HERE = Path(__file__).parent


def write_page(kind: Literal["report", "comparison"], data: dict[str, Any], path: Path | str) -> Path:
    """Write `data`, as `build` or `compare` gives it, into its template; the file appears whole or not at all."""
    # "</" would end the script element that holds the data.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    page = (_HERE / f"{kind}.html").read_text(encoding="utf-8")
    for name in ("style.css", "common.js"):
        page = page.replace(f"__{name}__", (_HERE / name).read_text(encoding="utf-8"))
    write_text(path, page.replace("__data__", text))
    return Path(path)
