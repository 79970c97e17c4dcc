"""Saliency of a vector's entries: a bar an input, and over the whole film a strip of colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl_interp.core.pictures import font_of, shortened
from rl_interp.saliency.overlay import AGAINST, FOR, MATTERS, shades

MOST = 16
"""Inputs that are shown, at most: those that matter most over the film."""
_ROW, _TITLE, _FOOT = 24, 34, 30
_NAMES, _NAME = 250, 160
"""Pixels for names and values, at the left, and of these for a name."""
_INK, _FAINT, _FRAME = (236, 238, 240), (140, 146, 154), (48, 54, 64)
_GROUND = 34


@dataclass(frozen=True)
class Inputs:
    """The entries of a film's observations, of T steps."""

    names: Sequence[str]
    """D of them."""
    values: NDArray[np.float32]
    """`[T, D]`: what the agent saw."""
    maps: NDArray[np.float32]
    """`[T, D]`: how much each entry mattered."""
    steps: Sequence[int]
    """T of them: which of the episode they are."""

    @property
    def shown(self) -> NDArray[np.int64]:
        """Which entries are, in order."""
        return np.sort(np.argsort(-np.abs(self.maps).mean(0), kind="stable")[:MOST])

    @property
    def height(self) -> int:
        """Pixels that `draw` needs, an even number."""
        return _TITLE + _ROW * len(self.shown) + _FOOT

    def draw(self, image: Image.Image, top: int, split: int, at: int, scale: float, signed: bool) -> None:
        """Names, values and the strip to the left of `split`, and a bar each to its right, beneath `top`, of the frame
        that is number `at` of the film."""
        draw = ImageDraw.Draw(image)
        left, right = _NAMES, split - 24
        draw.text((24, top + 8), self._title(), _FAINT, font_of(13))
        draw.text((split + 24, top + 8), "now", _FAINT, font_of(13))
        top += _TITLE
        bottom = top + _ROW * len(self.shown)
        image.paste(Image.fromarray(self._strip((bottom - top, right - left), scale, signed)), (left, top))
        draw = ImageDraw.Draw(image)
        for row, entry in enumerate(map(int, self.shown)):
            middle = top + _ROW * (row + 0.5)
            draw.text((24, middle), shortened(self.names[entry], 13, _NAME), _INK, font_of(13), anchor="lm")
            draw.text((left - 12, middle), f"{self.values[at, entry]:.3g}", _FAINT, font_of(13), anchor="rm")
            _bar(draw, (split + 24, image.width - 24, middle), float(self.maps[at, entry]), scale, signed)
        x = left + (at + 0.5) / len(self.maps) * (right - left)
        draw.line((x, top - 4, x, bottom + 3), _INK, 2)
        draw.text((left, bottom + 6), f"step {self.steps[0]:,}", _FAINT, font_of(13))
        draw.text((right, bottom + 6), f"{self.steps[-1]:,}", _FAINT, font_of(13), anchor="ra")

    def _title(self) -> str:
        if len(self.shown) == len(self.names):
            return "each input over time"
        return f"over time, the {len(self.shown)} of {len(self.names)} inputs that matter most"

    def _strip(self, size: tuple[int, int], scale: float, signed: bool) -> NDArray[np.uint8]:
        strength = self.maps[:, self.shown].T / max(scale, 1e-12)
        shrinks = strength.shape[1] > size[1]
        wide = cv2.resize(
            np.ascontiguousarray(strength, np.float32), (size[1], len(strength)),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST,
        )  # fmt: skip
        colours, weights = shades(np.asarray(wide, np.float32), signed)
        strip = np.repeat((_GROUND * (1 - weights) + colours * weights), size[0] // len(strength), 0)
        strip[:: size[0] // len(strength)] = 18  # a line between two rows
        return strip.astype(np.uint8)


def _bar(draw: ImageDraw.ImageDraw, place: tuple[int, int, float], value: float, scale: float, signed: bool) -> None:
    left, right, middle = place
    end, top, bottom = right - 76, middle - 8, middle + 8
    zero = (left + end) / 2 if signed else left
    length = float(np.clip(value / max(scale, 1e-12), -1, 1)) * (end - zero)
    draw.rectangle((left, top, end, bottom), outline=_FRAME)
    colour = MATTERS if not signed else FOR if value > 0 else AGAINST
    begin, stop = sorted((zero, zero + length))
    draw.rectangle((begin, top, stop, bottom), colour)
    draw.line((zero, top, zero, bottom), _FAINT)
    draw.text((right, middle), f"{value:{'+' if signed else ''}.2g}", _FAINT, font_of(13), anchor="rm")
