"""Pictures for people: a font that is there everywhere, and files that appear whole or not at all."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

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


def save_figure(figure: "Figure", path: Path | str, dpi: int = 110) -> Path:
    """Write a Matplotlib figure as a PNG, whole or not at all, and close it."""
    import matplotlib.pyplot as plt

    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    plt.close(figure)
    return Path(path)


@lru_cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib, so that pictures look the same everywhere."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
