"""Report data into one HTML file that makes no network request when opened."""

import json
from pathlib import Path
from typing import Any

from rl_interp.core.files import write_text

_TEMPLATE = Path(__file__).parent / "template.html"


def write_report(data: dict[str, Any], path: Path | str) -> Path:
    """Write `data`, as `build` gives it, into the template; the file appears whole or not at all."""
    # "</" would end the script element that holds the data.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    page = _TEMPLATE.read_text(encoding="utf-8").replace("__DATA__", text)
    write_text(path, page)
    return Path(path)
