"""Where on the screen an observation lies: what a person sees and what the agent sees are seldom the same picture."""

from dataclasses import dataclass

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
        rows, columns = (np.arange(n) + 0.5 for n in size)
        down, across = (rows - self.top) / (self.bottom - self.top), (columns - self.left) / (self.right - self.left)
        y, x = (np.float32(at * n - 0.5) for at, n in zip((down, across), turned.shape, strict=True))
        grid = np.meshgrid(x, y)
        found = cv2.remap(turned, *grid, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = ((down >= 0) & (down <= 1))[:, None] & ((across >= 0) & (across <= 1))
        return np.where(inside, found, np.float32(np.nan))

    def box(self, top: float, left: float, bottom: float, right: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, on the screen, of a part of the observation, given in shares of its height and
        width."""
        for _ in range(self.turns % 4):
            top, left, bottom, right = 1 - right, top, 1 - left, bottom
        height, width = self.bottom - self.top, self.right - self.left
        return self.left + left * width, self.top + top * height, self.left + right * width, self.top + bottom * height
