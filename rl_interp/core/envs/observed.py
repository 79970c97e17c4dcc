"""Where on the screen an observation lies: what a person sees and what the agent sees are seldom the same picture."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observed:
    """The rectangle of a screen that an observation shows, in pixels of the screen from its top left corner. Its edges
    may lie outside of the screen."""

    top: float
    left: float
    bottom: float
    right: float
    turns: int = 0
    """Quarter turns, counterclockwise, after which the observation is the right way up for the screen."""

    def enlarged(self, down: float, across: float) -> "Observed":
        """The same rectangle on a screen that is so many times as high and as wide."""
        return Observed(self.top * down, self.left * across, self.bottom * down, self.right * across, self.turns)

    def laid(self, values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Values `[h, w]` of an observation's pixels (or cells) where they belong on a screen `(H, W)`: `[H, W]`,
        linear between the middles of the pixels, and NaN where the agent does not look."""
        turned = np.ascontiguousarray(np.rot90(values, self.turns), np.float32)
        x, y, outside = _places(self, turned.shape, size)
        found = cv2.remap(turned, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.where(outside, np.float32(np.nan), found)

    def box(self, top: float, left: float, bottom: float, right: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, on the screen, of a part of the observation, given in shares of its height and
        width."""
        for _ in range(self.turns % 4):
            top, left, bottom, right = 1 - right, top, 1 - left, bottom
        height, width = self.bottom - self.top, self.right - self.left
        return self.left + left * width, self.top + top * height, self.left + right * width, self.top + bottom * height


@lru_cache(maxsize=4)
def _places(
    observed: Observed, shape: tuple[int, ...], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """For each pixel of a screen, the column and the row of an observation, `[H, W]` each, and whether it lies outside;
    the same for all frames of a film."""
    rows, columns = (np.arange(n) + 0.5 for n in size)
    down = (rows - observed.top) / (observed.bottom - observed.top)
    across = (columns - observed.left) / (observed.right - observed.left)
    y, x = (np.float32(at * n - 0.5) for at, n in zip((down, across), shape, strict=True))
    inside = ((down >= 0) & (down <= 1))[:, None] & ((across >= 0) & (across <= 1))
    return *np.meshgrid(x, y), ~inside
