"""A film in the form that its name says: MP4, GIF, or a PNG of some frames. The same frames give the same bytes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rl_interp.core.errors import UserError
from rl_interp.core.files import atomic_path, require_writable
from rl_interp.core.pictures import write_png
from rl_interp.core.progress import Update
from rl_interp.core.video import check_video, write_video

SHEET = 12
"""Frames of a sheet, four a row."""
_SHARE = 0.5
"""Of a frame's height and width, for what can't be compressed as well as an MP4."""

Picture = NDArray[np.uint8]
"""RGB `[H, W, 3]`."""


def check_film(path: Path) -> None:
    """Raise a `UserError` unless a film can be written to `path`: better before its frames are made."""
    require_writable(path)
    if path.suffix == ".mp4":
        check_video(path)
    elif path.suffix not in (".gif", ".png"):
        raise UserError(
            f"{path} given for a film; its name must end in .mp4, .gif or .png (a sheet of {SHEET} of its frames)."
        )


def write_film(path: Path, frames: Sequence[Picture], fps: float, update: Update) -> None:
    """Write frames that may be made as they are asked for, each once; `update` hears how many have been."""

    def each() -> Iterator[Picture]:
        for number in range(len(frames)):
            yield frames[number]
            update(number + 1)

    if path.suffix == ".mp4":
        write_video(path, each(), fps)
    elif path.suffix == ".gif":
        _write_gif(path, map(_smaller, each()), fps)
    else:
        chosen = np.linspace(0, len(frames) - 1, min(SHEET, len(frames))).round().astype(int).tolist()
        write_png(path, _sheet([_smaller(frames[number]) for number in chosen]))


def _write_gif(path: Path, frames: Iterable[Picture], fps: float) -> None:
    """It repeats for ever. GIF's unit of time is 1/100 s, and browsers show no frame for less than two."""
    images = (Image.fromarray(each).quantize() for each in frames)
    duration = 10 * max(2, round(100 / fps))
    with atomic_path(path) as temporary:
        next(images).save(
            temporary, format="GIF", save_all=True, append_images=images, duration=duration, loop=0, optimize=False
        )


def _sheet(pictures: Sequence[Picture]) -> Picture:
    """In order, four a row."""
    across = min(4, len(pictures))
    filled = [*pictures, *[np.zeros_like(pictures[0])] * (-len(pictures) % across)]
    return np.concatenate([np.concatenate(filled[at : at + across], 1) for at in range(0, len(filled), across)])


def _smaller(picture: Picture) -> Picture:
    size = [round(side * _SHARE) for side in picture.shape[1::-1]]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
