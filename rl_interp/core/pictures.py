"""Pictures for people: a font that is there everywhere, and files that appear whole or not at all."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from rl_interp.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_png(path: Path | str, picture: NDArray[np.uint8]) -> Path:
    """Write an RGB picture; it appears whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return Path(path)


def new_figure(rows: int, columns: int, width: float, height: float, **options: Any) -> "tuple[Figure, NDArray[Any]]":
    """A Matplotlib figure of some inches and its axes `[rows, columns]`. It is drawn by Agg, without a screen, and
    pyplot, whose state is the caller's, is not asked.

    Args:
        options: what `Figure.subplots` takes, such as `sharex`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(figure: "Figure", path: Path | str, dpi: int = 110) -> Path:
    """Write a Matplotlib figure as a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return Path(path)


@lru_cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib, so that pictures look the same everywhere."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


@lru_cache(maxsize=1024)
def shortened(text: str, size: int, width: int) -> str:
    """A text of which so much of its middle is left out that it takes at most `width` pixels in a font of some size."""
    kept, short = len(text), text
    while kept and font_of(size).getlength(short) > width:
        kept -= 1
        first = kept * 2 // 5  # the end, which has the number, says more
        short = f"{text[:first]}…{text[len(text) - kept + first :]}"
    return short
