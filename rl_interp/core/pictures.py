"""Pictures for people: a font that is there everywhere, and files that appear whole or not at all."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from rl_interp.core.files import atomic_path


def write_png(path: Path | str, picture: NDArray[np.uint8]) -> Path:
    """Write an RGB picture; it appears whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return Path(path)


@lru_cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib, so that pictures look the same everywhere."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
