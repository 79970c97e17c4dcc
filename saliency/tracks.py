"""Numbers over a film's time, such as features of a dictionary, drawn under its frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl_interp.core.pictures import font_of, shortened

_ROW, _EDGE = 46, 14
_NAMES, _VALUES = 190, 90
"""Pixels for names at the left and for values at the right."""
_BACKGROUND, _GROUND, _INK, _FAINT, _LINE = (18, 20, 24), (30, 34, 40), (236, 238, 240), (140, 146, 154), (255, 176, 59)


@dataclass(frozen=True)
class Tracks:
    """K numbers at each of a film's T frames; each has a scale of its own, from its least to its largest."""

    names: Sequence[str]
    values: NDArray[np.float64]
    """`[T, K]`."""

    @property
    def height(self) -> int:
        """Pixels that they need, an even number."""
        return 2 * _EDGE + _ROW * len(self.names)

    def drawn(self, width: int, frame: int) -> NDArray[np.uint8]:
        """`[height, width, 3]`: all of the film, with a mark at one frame and the values there."""
        image = self._ground(width).copy()
        draw, x = ImageDraw.Draw(image), self._across(width)[frame]
        draw.line((x, _EDGE - 4, x, self.height - _EDGE + 3), _INK, 2)
        for k, value in enumerate(self.values[frame]):
            middle = _EDGE + _ROW * (k + 0.5)
            draw.text((width - _EDGE, middle), f"{value:.3g}", _INK, font_of(14), anchor="rm")
        return np.asarray(image)

    def _ground(self, width: int) -> Image.Image:
        if width not in self._drawn:
            self._drawn[width] = self._lines(width)
        return self._drawn[width]

    @cached_property
    def _drawn(self) -> dict[int, Image.Image]:
        """What is the same in all frames, by width."""
        return {}

    def _lines(self, width: int) -> Image.Image:
        image = Image.new("RGB", (width, self.height), _BACKGROUND)
        draw, across = ImageDraw.Draw(image), self._across(width)
        for k, name in enumerate(self.names):
            top, bottom = _EDGE + _ROW * k + 4, _EDGE + _ROW * (k + 1) - 4
            values = self.values[:, k]
            low, high = float(values.min()), float(values.max())
            y = bottom - 2 - (values - low) / max(high - low, 1e-12) * (bottom - top - 4)
            draw.rectangle((_NAMES, top, width - _VALUES, bottom), _GROUND)
            draw.line([*zip(across, y.tolist(), strict=True)], _LINE, 2)
            short = shortened(name, 14, _NAMES - _EDGE - 8)
            draw.text((_EDGE, (top + bottom) / 2), short, _FAINT, font_of(14), anchor="lm")
        return image

    def _across(self, width: int) -> list[float]:
        return np.linspace(_NAMES + 3, width - _VALUES - 3, len(self.values)).tolist()
